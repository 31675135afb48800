"""The cube model of the other cluster tests, for nodes with (fake) GPUs: it takes a whole one."""

from __future__ import annotations

from dream_cad.models import factory
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.factory import register_model
from tests.cluster.echo_model import EchoModel

GPU_GB = 24.0
factory.get_total_vram = lambda: GPU_GB  # what the driver of a fake GPU says


@register_model("gpu-cube", ModelCapabilities(min_vram_gb=GPU_GB, recommended_vram_gb=GPU_GB))
class GpuCube(EchoModel):
    """Needs the memory of one fake GPU, and none of it."""
