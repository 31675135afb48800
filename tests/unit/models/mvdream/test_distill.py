from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad.exceptions import GenerationCancelledError, GenerationError
from dream_cad.models.base import ignore_progress
from dream_cad.models.mvdream import MVDream
from dream_cad.models.mvdream.distill import run_sds
from dream_cad.models.mvdream.options import MVDreamOptions
from dream_cad.models.mvdream.sds_field import FieldConfig, HashGridConfig
from dream_cad.models.mvdream.sds_training import TrainingConfig
from dream_cad.models.profile import StageClock
from tests.tiny_mvdream import PROMPT, write_checkpoint

TRAINING = TrainingConfig(
    steps=3,
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
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MVDream:
    folder = write_checkpoint(tmp_path_factory.mktemp("mvdream"))
    return MVDream(checkpoint=folder, device="cpu", training=TRAINING)


def test_the_long_road_ends_in_a_mesh(model: MVDream, tmp_path: Path) -> None:
    path = tmp_path / "field.ckpt"
    stages: list[str] = []
    made = model.generate_from_text(
        PROMPT,
        sds_checkpoint=str(path),
        progress=lambda _, stage: stages.append(stage),
        **OPTIONS,
    )
    assert len(made.faces) > 100
    assert made.vertex_colors is not None
    assert path.is_file()
    assert Image.open(io.BytesIO(made.files["views.png"])).size == (32, 8)
    assert made.metadata["options"]["guidance_scale"] == 50.0
    assert made.metadata["options"]["prompt_suffix"] is False
    assert made.metadata["sds_steps"] == 3
    assert [stage for stage in stages if stage.startswith("distill")][:2] == [
        "distill 0/3",
        "distill 1/3",
    ]
    assert stages[-1] == "done"


def test_a_cancelled_job_is_taken_up(model: MVDream, tmp_path: Path) -> None:
    path = tmp_path / "field.ckpt"

    def stop(fraction: float, stage: str) -> None:
        if stage.startswith("distill 2/"):
            raise GenerationCancelledError("stop")

    options = OPTIONS | {"sds_checkpoint": str(path)}
    with pytest.raises(GenerationCancelledError):
        model.generate_from_text(PROMPT, progress=stop, **options)
    stages: list[str] = []
    model.generate_from_text(PROMPT, progress=lambda _, stage: stages.append(stage), **options)
    assert [stage for stage in stages if stage.startswith("distill")] == ["distill 2/3"]


def test_previews_come_as_it_goes_and_change_nothing(model: MVDream) -> None:
    model.load_model()
    pipeline = model._require_loaded().pipeline
    seen: dict[int, tuple[int, ...]] = {}
    options = MVDreamOptions(**OPTIONS, sds_checkpoint_every=1)
    with_previews, without = (
        run_sds(
            pipeline,
            PROMPT,
            options,
            1,
            StageClock(),
            ignore_progress,
            training=TRAINING,
            on_preview=on_preview,
        )
        for on_preview in (lambda step, views: seen.update({step: views.shape}), None)
    )
    assert seen == dict.fromkeys((1, 2, 3), (4, 8, 8, 3))
    np.testing.assert_array_equal(with_previews.mesh.vertices, without.mesh.vertices)


def test_guidance_that_overflows_is_told(tmp_path: Path) -> None:
    made = MVDream(checkpoint=write_checkpoint(tmp_path), device="cpu", training=TRAINING)
    made.load_model()
    with torch.no_grad():
        made._require_loaded().pipeline.network.unet.out[2].bias.fill_(torch.nan)
    with pytest.raises(GenerationError, match="guidance gave NaN"):
        made.generate_from_text(PROMPT, **OPTIONS)
