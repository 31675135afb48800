"""MVDream's long road at tiny size, as a model of its own: a step takes some milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dream_cad.models.base import (
    GenerationResult,
    ModelCapabilities,
    ProgressCallback,
    ignore_progress,
)
from dream_cad.models.factory import register_model
from dream_cad.models.mvdream import MVDream
from dream_cad.models.mvdream.sds_field import FieldConfig, HashGridConfig
from dream_cad.models.mvdream.sds_training import TrainingConfig

TRAINING = TrainingConfig(
    batch_sizes=(4, 4),
    sizes=(8, 8),
    samples=16,
    occupancy=8,
    geometry=FieldConfig(
        HashGridConfig(n_levels=3, log2_hashmap_size=10, base_resolution=4), neurons=16
    ),
)
OPTIONS = {
    "reconstruction": "sds",
    "seed": 1,
    "resolution": 32,
    "density_threshold": 4.0,
    "sds_checkpoint_every": 4,
}


@register_model("tiny-sds", ModelCapabilities(min_vram_gb=0.0, recommended_vram_gb=0.0))
class TinySDS(MVDream):
    """Notes the step at which each attempt begins.

    Args:
        folder: a checkpoint of ``tests.tiny_mvdream``.
        log: file for the notes, a line each.
        steps: of the optimisation.
    """

    def __init__(self, folder: str, log: str, steps: int = 12) -> None:
        super().__init__(checkpoint=folder, device="cpu", training=replace(TRAINING, steps=steps))
        self._log = Path(log)

    def generate_from_text(
        self, prompt: str, *, progress: ProgressCallback = ignore_progress, **options: Any
    ) -> GenerationResult:
        is_noted = False

        def note(fraction: float, stage: str) -> None:
            nonlocal is_noted
            if stage.startswith("distill ") and not is_noted:
                is_noted = True
                with self._log.open("a") as log:
                    log.write(f"{stage.split()[1].partition('/')[0]}\n")
            progress(fraction, stage)

        return super().generate_from_text(prompt, progress=note, **options)
