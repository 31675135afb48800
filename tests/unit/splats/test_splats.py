from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dream_cad.exceptions import FileFormatError, GenerationError, ShapeError, StorageError
from dream_cad.mesh.simplify import simplify
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.kernels import Kernels, Lattice
from dream_cad.splats.meshing import (
    MeshingOptions,
    SplatColors,
    density_grid,
    fill_inside,
    mesh_gaussians,
)
from dream_cad.splats.ply import load_ply, parse_ply, ply_bytes
from dream_cad.splats.texture import dilate_nearest, texture_from_colors

RADIUS = 0.6


def rows(count: int, scale: float = 0.03, seed: int = 0) -> NDArray[np.float32]:
    """Opaque splats of mixed shape on a sphere, red where x > 0, else blue."""
    random = np.random.default_rng(seed)
    at = random.normal(size=(count, 3))
    at *= RADIUS / np.linalg.norm(at, axis=1, keepdims=True)
    color = np.where(at[:, :1] > 0, [[0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9]])
    parts = (
        at,
        random.uniform(0.5, 1, (count, 1)),
        random.uniform(0.5, 1.5, (count, 3)) * scale,
        random.normal(size=(count, 4)),
        color,
    )
    return np.concatenate(parts, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def cloud() -> GaussianCloud:
    return GaussianCloud.from_packed(rows(3_000))


def plain_density(cloud: GaussianCloud, lattice: Lattice) -> NDArray[np.float64]:
    """The sum as the specification states it, one Gaussian after the other."""
    axis = np.linspace(-1, 1, lattice.size)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    total = np.zeros(nodes.shape[:3])
    widened = cloud.covariances() + (0.5 * lattice.spacing) ** 2 * np.eye(3)
    for mean, inverse, opacity in zip(
        cloud.positions.astype(np.float64), np.linalg.inv(widened), cloud.opacities, strict=True
    ):
        m = np.einsum("...i,ij,...j->...", nodes - mean, inverse, nodes - mean)
        total += np.where(m > 16, 0, opacity * np.exp(-m / 2))
    return total


def test_density_equals_the_plain_sum_also_at_the_border() -> None:
    packed = rows(40, scale=0.2, seed=3)
    packed[:5, 0] = [1.0, -1.0, 1.3, 5.0, 0.99]
    cloud = GaussianCloud.from_packed(packed)
    lattice = Lattice(24)
    got = density_grid(Kernels(cloud, lattice))
    np.testing.assert_allclose(got, plain_density(cloud, lattice), rtol=1e-3, atol=1e-3)


def test_a_hollow_skin_becomes_one_closed_sphere(cloud: GaussianCloud) -> None:
    mesh = mesh_gaussians(cloud, MeshingOptions(resolution=48))
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    crossed = np.cross(corners[:, 1], corners[:, 2])
    volume = np.einsum("fc,fc->", corners[:, 0], crossed) / 6
    # the skin is some 0.06 thick on both sides, and positive means that faces look outwards
    assert 4 / 3 * np.pi * RADIUS**3 < volume < 4 / 3 * np.pi * (RADIUS + 0.1) ** 3
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_leaks_are_closed_before_the_inside_is_filled(cloud: GaussianCloud) -> None:
    density = density_grid(Kernels(cloud, Lattice(48)))
    leaking, closed = (fill_inside(density, 1.0, steps)[1] for steps in (0, 1))
    assert leaking == 0
    assert closed > 5_000


def test_colors_are_those_of_the_side(cloud: GaussianCloud) -> None:
    colors = SplatColors(cloud, Lattice(48))
    points = np.array([[RADIUS, 0, 0], [-RADIUS, 0, 0], [9, 0, 0]], dtype=np.float32)
    got = colors(points)
    want = [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.9, 0.1, 0.1]]  # the last: nearest splat
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert colors(points[:0]).shape == (0, 3)


def test_colors_equal_the_plain_weighted_mean() -> None:
    cloud = GaussianCloud.from_packed(rows(60, scale=0.2, seed=5))
    lattice = Lattice(32)
    points = np.random.default_rng(1).uniform(-0.7, 0.7, (50, 3)).astype(np.float32)
    inverse = np.linalg.inv(cloud.covariances() + (0.5 * lattice.spacing) ** 2 * np.eye(3))
    offset = points[:, None].astype(np.float64) - cloud.positions
    m = np.einsum("pgi,gij,pgj->pg", offset, inverse, offset)
    weight = np.where(m > 16, 0, cloud.opacities * np.exp(-m / 2))
    want = weight @ cloud.colors / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(SplatColors(cloud, lattice)(points), want, atol=1e-3)


def test_nothing_dense_enough_says_what_would_be(cloud: GaussianCloud) -> None:
    with pytest.raises(GenerationError, match="density reaches") as caught:
        mesh_gaussians(cloud, MeshingOptions(resolution=32, threshold=1e3))
    assert "would give one" in str(caught.value.hint)


def test_texture_shows_the_splats(cloud: GaussianCloud) -> None:
    options = MeshingOptions(resolution=32)
    shape = simplify(mesh_gaussians(cloud, options), 400)
    mesh = texture_from_colors(shape, SplatColors(cloud, options.lattice), 256)
    assert mesh.texture is not None
    assert mesh.uv_coords is not None
    right = mesh.vertices[:, 0] > 0.2
    texel = (mesh.uv_coords[right] * [255, -255] + [0, 255]).astype(int)
    seen = mesh.texture[texel[:, 1], texel[:, 0]]
    assert np.median(seen[:, 0]) > 200
    assert np.median(seen[:, 2]) < 60


def test_dilation_takes_the_nearest_and_needs_something() -> None:
    image = np.zeros((5, 5, 1), np.float32)
    image[2, 2] = 7
    wider, mask = dilate_nearest(image, image[..., 0] > 0, 1)
    assert mask.sum() == 5
    assert wider[2, 3, 0] == 7
    assert wider[3, 3, 0] == 0
    with pytest.raises(ShapeError):
        dilate_nearest(image, np.zeros((5, 5), bool))


def test_ply_round_trip_leaves_out_the_faint(tmp_path: Path) -> None:
    packed = rows(30)
    packed[:4, 3] = 0.004
    packed[4, 3] = 1.0
    path = tmp_path / "cloud.ply"
    path.write_bytes(ply_bytes(GaussianCloud.from_packed(packed)))
    got = load_ply(path)
    assert len(got) == 26
    np.testing.assert_allclose(got.to_packed(), packed[4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "no .ply"),
        (lambda data: data[:-8], "shorter"),
        (lambda data: data.replace(b"opacity", b"opaqueness"), "opacity missing"),
        (lambda data: data.replace(b"binary_little_endian", b"ascii"), "not binary"),
        (lambda data: data.replace(b"property float x", b"property list x"), "cannot be read"),
        (lambda data: data.replace(b"element vertex", b"element face"), "something else"),
    ],
)
def test_damaged_ply_is_told(change: object, message: str) -> None:
    data = ply_bytes(GaussianCloud.from_packed(rows(3)))
    with pytest.raises(FileFormatError, match=message):
        parse_ply(change(data))  # type: ignore[operator]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        load_ply(tmp_path / "none.ply")


def test_clouds_are_checked() -> None:
    with pytest.raises(ShapeError):
        GaussianCloud.from_packed(np.zeros((3, 13), np.float32))
    broken = rows(3)
    broken[1, 5] = np.nan
    with pytest.raises(GenerationError, match="scales"):
        GaussianCloud.from_packed(broken)
    good = GaussianCloud.from_packed(rows(3))
    with pytest.raises(ShapeError, match="colors"):
        GaussianCloud(good.positions, good.opacities, good.scales, good.rotations, good.colors[:2])
