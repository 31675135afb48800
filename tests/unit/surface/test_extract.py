"""Surface extraction against analytic shapes, and the sparse path against the dense one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dream_cad.exceptions import GenerationCancelledError, GenerationError, InvalidConfigError
from dream_cad.models.triposr.field import TriplaneField
from dream_cad.models.triposr.network import NeRFMLP
from dream_cad.surface.extract import extract_surface
from dream_cad.surface.field import device_of
from dream_cad.surface.marching import SurfaceMesh
from dream_cad.surface.triplane_field import TriplaneDensity, accelerate

THRESHOLD = 25.0
STEEPNESS = 20.0


class DistanceField:
    """Density equals the threshold where ``distance`` (positive inside) is zero."""

    density_bias = -1.0

    def __init__(self, distance: Callable[[Tensor], Tensor], radius: float = 1.0) -> None:
        self.distance = distance
        self.radius = radius
        self.queried = 0

    def raw_density(self, points: Tensor) -> Tensor:
        self.queried += len(points)
        return self.distance(points) * STEEPNESS + math.log(THRESHOLD) + 1.0


def ball(radius: float, center: tuple[float, float, float] = (0, 0, 0)) -> Callable[..., Tensor]:
    return lambda points: radius - (points - torch.tensor(center)).norm(dim=-1)


def torus(points: Tensor) -> Tensor:
    ring = points[:, :2].norm(dim=-1) - 0.55
    return 0.2 - torch.stack([ring, points[:, 2]]).norm(dim=0)


def cube(points: Tensor) -> Tensor:
    return 0.5 - points.abs().amax(dim=-1)


def two_balls(points: Tensor) -> Tensor:
    return torch.maximum(ball(0.3, (0.5, 0, 0))(points), ball(0.2, (-0.5, 0, 0))(points))


def extract(field: DistanceField, resolution: int = 48, **options: object) -> SurfaceMesh:
    return extract_surface(field, resolution=resolution, threshold=THRESHOLD, **options)  # type: ignore[arg-type]


def solid(mesh: SurfaceMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("method", ["sparse", "dense"])
@pytest.mark.parametrize(
    ("shape", "volume", "area", "euler"),
    [
        (ball(0.6), 4 / 3 * math.pi * 0.6**3, 4 * math.pi * 0.36, 2),
        (torus, 2 * math.pi**2 * 0.55 * 0.04, 4 * math.pi**2 * 0.55 * 0.2, 0),
        (cube, 1.0, 6.0, 2),
        (two_balls, 4 / 3 * math.pi * (0.027 + 0.008), 4 * math.pi * (0.09 + 0.04), 4),
    ],
)
def test_analytic_shapes_have_their_volume_area_and_genus(
    shape: Callable[[Tensor], Tensor], volume: float, area: float, euler: int, method: str
) -> None:
    mesh = extract(DistanceField(shape), method=method)
    result = solid(mesh)
    assert mesh.vertices.dtype == np.float32
    assert mesh.faces.dtype == np.int32
    assert result.is_watertight
    assert result.volume == pytest.approx(volume, rel=0.04)
    assert result.area == pytest.approx(area, rel=0.04)
    assert result.euler_number == euler


def random_triplane(seed: int) -> TriplaneField:
    """A smooth field whose level lies at its median, so that surface is everywhere."""
    torch.manual_seed(seed)
    coarse = torch.randn(3, 8, 5, 5)
    planes = torch.nn.functional.interpolate(coarse, size=16, mode="bicubic")
    decoder = NeRFMLP(24, 16, 3).eval()
    field = TriplaneField(planes, decoder, radius=0.87, density_bias=-1.0)
    raw = field.raw_density((torch.rand(2000, 3) - 0.5) * 1.7)
    with torch.no_grad():
        last = decoder.layers[-1]
        scale = 10 / raw.std()
        last.weight[0] *= scale
        last.bias[0] = (last.bias[0] - raw.median()) * scale + math.log(THRESHOLD) + 1.0
    return field


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("resolution", [32, 37])
def test_sparse_equals_dense_on_triplanes(seed: int, resolution: int) -> None:
    field = random_triplane(seed)
    sparse, dense = (
        extract_surface(field, resolution=resolution, threshold=THRESHOLD, method=method)
        for method in ("sparse", "dense")
    )
    assert len(dense.faces) > 500
    np.testing.assert_array_equal(sparse.faces, dense.faces)
    np.testing.assert_allclose(sparse.vertices, dense.vertices, rtol=0, atol=1e-5)


def test_fast_lattice_equals_the_field() -> None:
    field = random_triplane(3)
    fast = accelerate(field)
    assert isinstance(fast, TriplaneDensity)
    axis = torch.linspace(-0.87, 0.87, 9)
    index = torch.randint(0, 9, (3, 50))
    points = torch.stack([axis[i] for i in index], dim=-1)
    expected = field.raw_density(points)
    with torch.inference_mode():
        on_lattice = fast.on_lattice(axis)(*index)
        at_points = fast.raw_density(points)
    torch.testing.assert_close(on_lattice, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(at_points, expected, rtol=1e-4, atol=1e-4)


def test_fields_of_other_kinds_are_not_accelerated() -> None:
    field = DistanceField(cube)
    assert accelerate(field) is field
    assert device_of(field) == torch.device("cpu")
    triplane = random_triplane(0)
    triplane.decoder.layers.append(torch.nn.SiLU())
    assert accelerate(triplane) is triplane


def test_sparse_queries_a_small_part() -> None:
    field = DistanceField(ball(0.4))
    extract(field, resolution=64, coarse_stride=4)
    assert field.queried < 0.25 * 64**3


def test_component_between_coarse_nodes_is_missed_unless_the_stride_is_smaller() -> None:
    # Nodes lie at i / 32 - 1; the small ball is around node (51, 51, 51), between multiples of 8.
    small = ball(0.06, (19 / 32,) * 3)
    field = DistanceField(lambda p: torch.maximum(ball(0.3, (-0.4, -0.4, -0.4))(p), small(p)))
    faces = {
        (stride, margin): len(
            extract(field, resolution=65, coarse_stride=stride, margin=margin).faces
        )
        for stride, margin in ((8, 1), (1, 0), (8, 8))
    }
    dense = len(extract(field, resolution=65, method="dense").faces)
    assert faces[8, 1] < dense
    assert faces[1, 0] == faces[8, 8] == dense


def test_surface_is_followed_out_of_the_blocks_first_seen() -> None:
    # A rod too thin for the coarse nodes, fixed to a ball that they see.
    def distance(points: Tensor) -> Tensor:
        rod = 0.06 - (points[:, 1:] - 3 / 32).norm(dim=-1)
        rod = torch.minimum(rod, 0.8 - points[:, 0].abs())
        return torch.maximum(ball(0.3)(points), rod)

    field = DistanceField(distance)
    sparse = extract(field, resolution=65, coarse_stride=8, margin=0)
    dense = extract(field, resolution=65, method="dense")
    assert dense.vertices[:, 0].max() > 0.75
    np.testing.assert_array_equal(sparse.faces, dense.faces)


@pytest.mark.parametrize("method", ["sparse", "dense"])
def test_threshold_never_reached_gives_an_empty_mesh(method: str) -> None:
    mesh = extract(DistanceField(lambda p: torch.full((len(p),), -1.0)), method=method)
    assert mesh.vertices.shape == (0, 3)
    assert mesh.faces.shape == (0, 3)


def test_surface_that_meets_the_box_stays_open() -> None:
    field = DistanceField(ball(0.6, (0.9, 0.0, 0.0)))
    sparse, dense = extract(field), extract(field, method="dense")
    assert not solid(dense).is_watertight
    np.testing.assert_array_equal(sparse.faces, dense.faces)
    np.testing.assert_allclose(sparse.vertices, dense.vertices, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["sparse", "dense"])
def test_huge_densities_stay_finite_and_nan_is_refused(method: str) -> None:
    huge = DistanceField(lambda p: ball(0.5)(p) * 1e4)
    assert np.isfinite(extract(huge, method=method).vertices).all()
    with pytest.raises(GenerationError, match="NaN"):
        extract(DistanceField(lambda p: p[:, 0] * math.nan), method=method)


@pytest.mark.parametrize("method", ["sparse", "dense"])
def test_progress_rises_and_can_cancel(method: str) -> None:
    seen: list[float] = []
    extract(
        DistanceField(cube),
        method=method,
        chunk_size=2000,
        progress=lambda fraction, stage: seen.append(fraction),
    )
    assert seen == sorted(seen)
    assert 0 <= seen[0] < seen[-1] <= 1

    def stop(fraction: float, stage: str) -> None:
        raise GenerationCancelledError("Stopped.")

    with pytest.raises(GenerationCancelledError):
        extract(DistanceField(cube), method=method, progress=stop)


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 1},
        {"resolution": 100_000},
        {"threshold": math.nan},
        {"threshold": 0.0},
        {"radius": math.inf},
        {"chunk_size": 0},
        {"margin": -1},
        {"coarse_stride": 0},
        {"method": "other"},
    ],
)
def test_bad_arguments_are_refused_before_any_query(options: dict[str, object]) -> None:
    field = DistanceField(cube)
    with pytest.raises(InvalidConfigError):
        extract_surface(field, **{"resolution": 32, "threshold": THRESHOLD, **options})  # type: ignore[arg-type]
    assert field.queried == 0
