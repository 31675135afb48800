from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.models.trellis.cameras import orbit_view, sphere_angles, sphere_views, video_angles
from dream_cad.models.trellis.field_render import evaluate_voxels, render_field
from dream_cad.models.trellis.rendering import (
    main_components,
    picture_of,
    preview,
    preview_latent,
    world_cloud,
)
from dream_cad.models.trellis.representations import (
    SH_0,
    Gaussians,
    GaussianSettings,
    RadianceField,
)
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet

SIDE = 8


def field(coords: torch.Tensor, density: float, seed: int = 0) -> RadianceField:
    """A field of rank 2 whose density is about ``density`` in its voxels of a grid of 8^3."""
    random = torch.Generator().manual_seed(seed)
    count = len(coords)
    return RadianceField(
        1 + 0.3 * torch.randn(count, 2, 3, 4, generator=random),
        torch.full((count, 2), density / 2),
        torch.randn(count, 2, 1, 3, generator=random),
        (coords.float() + 0.5) / SIDE,
        torch.full((count, 1), 3, dtype=torch.uint8),
    )


def splats(positions: NDArray[np.float64], color: tuple[float, float, float]) -> Gaussians:
    count = len(positions)
    dc = (torch.tensor(color) - 0.5) / SH_0
    return Gaussians(
        torch.tensor(positions + 0.5, dtype=torch.float32),
        dc.expand(count, 1, 3),
        torch.full((count, 3), 2.0),
        torch.zeros(count, 4),
        torch.full((count, 1), 5.0),
        GaussianSettings(),
    )


def test_views_are_spread_evenly_and_look_at_the_origin() -> None:
    views = sphere_views(200)
    eyes = np.stack([view.eye for view in views])
    np.testing.assert_allclose(np.linalg.norm(eyes, axis=1), 2, rtol=1e-5)
    assert np.linalg.norm(eyes.mean(axis=0)) < 0.05
    np.testing.assert_allclose(
        [view.project(np.zeros((1, 3)), 10)[0][0] for view in views], 5, atol=1e-5
    )


def test_yaw_turns_from_y_to_x_and_pitch_lifts() -> None:
    np.testing.assert_allclose(orbit_view(0, 0).eye, [0, 2, 0], atol=1e-6)
    np.testing.assert_allclose(orbit_view(math.pi / 2, 0, 3).eye, [3, 0, 0], atol=1e-6)
    assert orbit_view(0, 0.3).eye[2] > 0.5


def test_the_video_goes_round_once() -> None:
    angles = video_angles(5)
    assert angles[0].tolist() == [0, 0.25]
    assert angles[-1, 0] == pytest.approx(2 * math.pi, abs=1e-3)
    assert angles[:, 1].max() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("count", [0, 10_001])
def test_the_number_of_views_is_checked(count: int) -> None:
    with pytest.raises(InvalidConfigError, match="views"):
        sphere_angles(count)


def plain_ray(
    what: RadianceField, origin: NDArray[np.float64], step: NDArray[np.float64], jitter: float
) -> tuple[NDArray[np.float64], float]:
    """March one ray as the specification says, sample after sample, voxel looked up each time."""
    rows = {tuple((place * SIDE).int().tolist()): row for row, place in enumerate(what.position)}
    length = 0.5 / 4 / SIDE
    color, light = np.zeros(3), 1.0
    for n in range(int(4 / length)):
        point = (origin + (n + jitter) * length * step + 0.5) * SIDE
        row = rows.get(tuple(np.floor(point).astype(int).tolist()))
        if row is None or light < 1e-3:
            continue
        local = torch.tensor(point - np.floor(point), dtype=torch.float32)
        density, rgb = evaluate_voxels(what, torch.tensor([row]), local[None, None])
        alpha = min(1 - math.exp(-float(density) * length), 0.999)
        color += light * alpha * rgb[0, 0].double().numpy()
        light *= 1 - alpha
    return color, 1 - light


def test_marching_all_rays_equals_one_ray_after_the_other() -> None:
    coords = torch.randint(0, SIDE, (60, 3), generator=torch.Generator().manual_seed(4)).unique(
        dim=0
    )
    what, view, size = field(coords, 8.0), orbit_view(0.7, 0.4), 12
    jitter = np.random.default_rng(1).random((size, size), np.float32)
    seen = render_field(what, view, size=size, jitter=jitter)
    eye, rays = view.rays(size)
    for row, column in [(3, 4), (5, 6), (6, 6), (7, 5), (0, 0)]:
        step = rays[row, column] / np.linalg.norm(rays[row, column])
        color, alpha = plain_ray(what, eye, step, float(jitter[row, column]))
        np.testing.assert_allclose(seen.image[:, row, column], color, atol=2e-3)
        assert seen.alpha[row, column] == pytest.approx(alpha, abs=2e-3)
    assert seen.alpha.max() > 0.3


def test_a_voxel_is_the_sum_of_its_products() -> None:
    what = field(torch.tensor([[1, 2, 3]]), 3.0)
    # at the centre of the first sample of each axis no interpolation takes part
    local = torch.full((1, 1, 3), 0.5 / 4)
    product = what.trivec[0, :, :, 0].prod(dim=1)
    density, color = evaluate_voxels(what, torch.tensor([0]), local)
    wanted = torch.nn.functional.softplus((what.density[0] * product).sum())
    assert float(density) == pytest.approx(float(wanted), rel=1e-5)
    summed = SH_0 * (what.features_dc[0, :, 0] * product[:, None]).sum(dim=0)
    torch.testing.assert_close(color[0, 0], torch.sigmoid(summed))


def test_the_nearer_voxel_hides_the_farther_and_depth_tells() -> None:
    coords = torch.tensor([[4, 1, 4], [4, 6, 4]])
    what = field(coords, 500.0)
    size = 65
    front = render_field(what, orbit_view(math.pi, 0.0), size=size)
    middle = np.unravel_index(front.alpha.argmax(), front.alpha.shape)
    # voxel row 1 begins at y = -0.375, and the camera stands at y = -2
    assert front.percent_depth[middle] == pytest.approx(2 - 0.375, abs=0.02)
    assert front.alpha[middle] > 0.99
    back = render_field(what, orbit_view(0.0, 0.0), size=size)
    assert back.percent_depth.max() == pytest.approx(2 - 0.375, abs=0.02)


def test_an_empty_field_is_black_and_supersampling_averages() -> None:
    nothing = field(torch.zeros(0, 3), 1.0)
    assert render_field(nothing, orbit_view(0, 0), size=4).image.max() == 0
    what = field(torch.tensor([[4, 4, 4]]), 50.0)
    fine = render_field(what, orbit_view(0, 0), size=64)
    smooth = render_field(what, orbit_view(0, 0), size=16, supersampling=4)
    assert smooth.image.shape == (3, 16, 16)
    assert smooth.alpha.sum() == pytest.approx(fine.alpha.sum() / 16, rel=0.02)
    assert 0 < smooth.alpha[smooth.alpha > 0].min() < 0.5


def test_bands_join_seamlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    what, view = field(torch.tensor([[3, 4, 4], [4, 4, 5]]), 30.0), orbit_view(0.3, 0.2)
    whole = render_field(what, view, size=20)
    monkeypatch.setattr("dream_cad.models.trellis.field_render._RAYS_PER_BAND", 60)
    monkeypatch.setattr("dream_cad.models.trellis.field_render._SAMPLES_PER_BATCH", 64)
    parts = render_field(what, view, size=20)
    np.testing.assert_allclose(parts.image, whole.image, atol=1e-6)
    np.testing.assert_allclose(parts.depth, whole.depth, atol=1e-5)


def test_wrong_calls_of_the_marcher_are_refused() -> None:
    what = field(torch.tensor([[4, 4, 4]]), 1.0)
    with pytest.raises(InvalidConfigError, match="rays a side"):
        render_field(what, orbit_view(0, 0), size=2048, supersampling=4)
    with pytest.raises(ShapeError, match="jitter"):
        render_field(what, orbit_view(0, 0), size=8, jitter=np.zeros((4, 4), np.float32))


def test_splats_are_seen_with_their_colour_on_black() -> None:
    what = splats(np.random.default_rng(0).uniform(-0.1, 0.1, (500, 3)), (0.9, 0.4, 0.1))
    image, alpha = picture_of(what, orbit_view(1.0, 0.3), 33)
    assert image.shape == (33, 33, 3)
    np.testing.assert_allclose(image[16, 16], [0.9, 0.4, 0.1], atol=0.02)
    assert alpha[0, 0] == 0
    assert image[0, 0].max() == 0
    again, _ = picture_of(world_cloud(what), orbit_view(1.0, 0.3), 33)
    np.testing.assert_array_equal(image, again)


def test_previews_begin_at_the_front_with_x_to_the_right() -> None:
    """glTF's front (+z) is the world's -y: there the camera stands, a third of a turn aside."""
    cluster = np.random.default_rng(0).normal(0, 0.03, (400, 3))
    marked = splats(cluster + np.array([0.3, -0.3, 0.0]), (1.0, 0.0, 0.0))
    sheet = preview(marked, views=2, size=48).astype(int)
    assert sheet.shape == (48, 96, 3)
    redness = (sheet[..., 0] - sheet[..., 1]).clip(0)
    columns = np.arange(48)
    first, second = redness[:, :48].sum(axis=0), redness[:, 48:].sum(axis=0)
    # azimuth 35 looks almost straight at it; half a turn later it is behind, farther off
    assert abs((first * columns).sum() / first.sum() - 23.5) < 8
    assert first.sum() > 1.3 * second.sum()
    assert sheet[0, 0].tolist() == [246, 246, 248]


def test_every_representation_has_a_preview() -> None:
    coords = torch.cartesian_prod(*[torch.arange(2, 6)] * 3)
    of_field = preview(field(coords, 100.0), views=1, size=24)
    assert of_field.std() > 10
    voxels = torch.cat((torch.zeros_like(coords[:, :1]), coords), dim=1)
    latent = SparseTensor(VoxelSet(voxels), torch.randn(len(coords), 8))
    of_latent = preview_latent(latent, SIDE, views=3, size=24)
    assert of_latent.shape == (24, 72, 3)
    assert of_latent.std() > 10
    with pytest.raises(InvalidConfigError, match="views"):
        preview(field(coords, 1.0), views=0)


def test_components_are_ranks_along_the_main_axes() -> None:
    random = np.random.default_rng(0)
    main = random.normal(size=(50, 1))
    feats = np.concatenate([main * 10, random.normal(size=(50, 4))], axis=1).astype(np.float32)
    shown = main_components(feats)
    assert shown.shape == (50, 3)
    assert shown.min() == 0
    assert shown.max() == 1
    assert abs(np.corrcoef(shown[:, 0], main[:, 0])[0, 1]) > 0.9
    np.testing.assert_array_equal(main_components(feats[:, :2])[:, 2], 0.5)
