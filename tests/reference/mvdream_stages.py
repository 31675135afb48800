"""Which function runs which stage of the MVDream cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.reference import mvdream_distillation as distillation
from tests.reference import mvdream_meshes as meshes
from tests.reference import mvdream_networks as networks
from tests.reference.cases import Case

STAGES: dict[str, Callable[[Case], dict[str, Any]]] = {
    "camera": networks.camera,
    "tokenizer": networks.tokenizer,
    "text_encoder": networks.text_encoder,
    "unet": networks.unet,
    "vae": networks.vae,
    "scheduler": networks.scheduler,
    "pipeline": networks.pipeline,
    "lgm_preprocess": networks.lgm_preprocess,
    "lgm_unet": networks.lgm_unet,
    "gaussians": networks.gaussians,
    "export": meshes.export,
    "rasterise": meshes.rasterise_stage,
    "mesh": meshes.mesh_stage,
    "texture": meshes.texture,
    "end_to_end": meshes.end_to_end,
    "sds": distillation.sds,
    "nerf": distillation.nerf,
}
