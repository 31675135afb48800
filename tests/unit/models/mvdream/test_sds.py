from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
    StorageError,
)
from dream_cad.models.mvdream.sds_cameras import CameraRanges, camera_rays, look_at
from dream_cad.models.mvdream.sds_field import FieldConfig, HashGridConfig, RadianceField
from dream_cad.models.mvdream.sds_mesh import field_mesh
from dream_cad.models.mvdream.sds_render import box_span, composite, render_rays
from dream_cad.models.mvdream.sds_training import (
    FieldTrainer,
    RenderedViews,
    TrainingConfig,
    train_field,
)

GRID = HashGridConfig(n_levels=4, log2_hashmap_size=13, base_resolution=6, per_level_scale=1.6)
TINY = TrainingConfig(
    steps=200,
    batch_sizes=(4, 4),
    sizes=(20, 20),
    samples=32,
    occupancy=16,
    geometry=FieldConfig(GRID, neurons=16),
    cameras=CameraRanges(elevation=(-30.0, 60.0), fovy=(40.0, 50.0)),
)
HALF = torch.tensor([0.5, 0.25, 0.35])
"""Half sides of the box to reconstruct; red above, blue below."""


def box_renders(views: RenderedViews) -> tuple[Tensor, Tensor]:
    """Colours and opacity of the box as these cameras see it, analytically."""
    origins, directions = camera_rays(views.cameras, views.color.shape[1])
    first, second = (-HALF - origins) / directions, (HALF - origins) / directions
    near = torch.minimum(first, second).amax(dim=-1)
    far = torch.maximum(first, second).amin(dim=-1)
    hit = (far > near).float()
    above = (origins + near[..., None] * directions)[..., 2:] > 0
    color = torch.where(above, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    return hit[..., None] * color + (1 - hit[..., None]) * views.background.detach(), hit


def renders_loss(views: RenderedViews, generator: torch.Generator) -> Tensor:
    color, opacity = box_renders(views)
    return F.mse_loss(views.color, color) + 0.5 * F.mse_loss(views.opacity, opacity)


@pytest.fixture(scope="module")
def trained() -> FieldTrainer:
    trainer = FieldTrainer(TINY)
    train_field(trainer, renders_loss)
    return trainer


def test_a_known_object_is_reconstructed(trained: FieldTrainer) -> None:
    axis = torch.linspace(-1, 1, 40)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    with torch.no_grad():
        density = trained.field.density(points)[:, 0]
        color = trained.field.features(torch.tensor([[0.0, 0, 0.34], [0, 0, -0.34]])).sigmoid()
    got, want = density > 2.0, (points.abs() <= HALF).all(dim=1)
    iou = float((got & want).sum() / (got | want).sum())
    assert iou >= 0.7, iou
    assert color[0, 0] > color[0, 2]
    assert color[1, 2] > color[1, 0]


def test_its_mesh_is_closed_and_of_the_right_size(trained: FieldTrainer) -> None:
    mesh = field_mesh(trained.field, 32, 2.0)
    sides = mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)
    # loose: a short run leaves a soft rim around the object
    np.testing.assert_allclose(sides, 2 * HALF.numpy(), atol=0.4)
    assert sides.argmin() == 1
    assert sides.argmax() == 0
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def small(steps: int = 4, **changes: Any) -> FieldTrainer:
    config = replace(TINY, steps=steps, sizes=(6, 6), samples=8, **changes)
    return FieldTrainer(config)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = small()
    train_field(whole, renders_loss)
    path = tmp_path / "field.ckpt"

    def kill(fraction: float, stage: str) -> None:
        if stage.startswith("distill 3/"):
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        train_field(small(), renders_loss, checkpoint=path, every=2, progress=kill)
    resumed = small()
    stages: list[str] = []
    train_field(
        resumed, renders_loss, checkpoint=path, progress=lambda _, stage: stages.append(stage)
    )
    assert stages[0].startswith("distill 3/4")
    for key, value in whole.field.state_dict().items():
        torch.testing.assert_close(resumed.field.state_dict()[key], value)


def test_progress_tells_the_time_left_and_previews_come(tmp_path: Path) -> None:
    clock = iter(range(1_000))
    stages: list[str] = []
    seen: list[int] = []
    train_field(
        small(steps=12),
        renders_loss,
        every=5,
        progress=lambda _, stage: stages.append(stage),
        on_checkpoint=lambda trainer: seen.append(trainer.step),
        now=lambda: 60.0 * next(clock),
    )
    assert stages[0] == "distill 0/12"
    assert stages[-1] == "distill 11/12, 1 min left"
    assert seen == [5, 10, 12]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    path = tmp_path / "field.ckpt"
    small().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        train_field(small(), renders_loss, checkpoint=path)
    torch.save({"step": 3}, path)
    with pytest.raises(CheckpointError, match="damaged"):
        small().load(path)


def test_a_checkpoint_of_other_settings_is_told(tmp_path: Path) -> None:
    path = tmp_path / "field.ckpt"
    small().save(path)
    with pytest.raises(InvalidConfigError, match="other settings"):
        small(seed=5).load(path)
    small(steps=9).load(path)  # more steps are no other settings


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        small().save(tmp_path / "missing" / "field.ckpt")


def test_a_loss_that_is_not_finite_names_the_step() -> None:
    trainer = small()
    before = {key: value.clone() for key, value in trainer.field.state_dict().items()}
    with pytest.raises(GenerationError, match="step 1"):
        trainer.run_step(lambda views, _: views.color.sum() * torch.nan)
    for key, value in trainer.field.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_an_empty_field_says_how_dense_it_is() -> None:
    field = RadianceField(FieldConfig(GRID, neurons=16))
    with pytest.raises(GenerationError, match=r"reaches [19][\d.]+, below the threshold of 25"):
        field_mesh(field, 17, 25.0)


def test_empty_space_can_be_skipped() -> None:
    field = RadianceField(FieldConfig(GRID, neurons=16))
    origins = torch.tensor([[0.0, -3.0, 0.0], [0.0, -3.0, 5.0]])
    directions = torch.tensor([[0.0, 1.0, 0.0]]).repeat(2, 1)
    white = torch.ones(2, 3)
    full = render_rays(field, origins, directions, white, 64)
    empty = render_rays(
        field, origins, directions, white, 64, torch.zeros(4, 4, 4, dtype=torch.bool)
    )
    assert full.opacity[0] > 0.9
    assert full.opacity[1] == 0  # misses the box
    assert empty.opacity.max() == 0
    torch.testing.assert_close(empty.color, white)
    near, far = box_span(origins, directions, 1.0)
    assert (near[0], far[0]) == (2.0, 4.0)


def test_an_opaque_sample_hides_what_is_behind() -> None:
    edges = torch.tensor([[0.0, 1.0, 2.0]])
    color = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    seen = composite(edges, torch.tensor([[1e3, 1e3]]), color, torch.zeros(3))
    torch.testing.assert_close(seen.color, torch.tensor([[1.0, 0, 0]]))
    assert seen.depth == pytest.approx(0.5)


def test_cameras_look_at_the_origin() -> None:
    elevation, azimuth = torch.tensor([0.0, 30.0]), torch.tensor([0.0, 90.0])
    cameras = look_at(elevation, azimuth, torch.tensor([2.0, 3.0]))
    for camera, distance in zip(cameras, (2.0, 3.0), strict=True):
        centre = camera[:3, 3] - distance * camera[:3, 2]
        torch.testing.assert_close(centre, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras[0, :3, 3], torch.tensor([2.0, 0, 0]))
