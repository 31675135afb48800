from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.raster import NO_FACE, barycentric, rasterize
from dream_cad.mesh.render import render_turntable, render_view
from tests.unit.mesh.shapes import checker, from_trimesh, sphere, textured_quad


def boxes() -> MeshData:
    """A red box on the right (+x), a blue one in front (+z), green ones behind and on the left."""
    parts = [
        ((0.4, 0, 0), (255, 0, 0)),
        ((0, 0, 0.4), (0, 0, 255)),
        ((-0.4, 0, 0), (0, 255, 0)),
        ((0, 0, -0.4), (0, 255, 0)),
    ]
    meshes, colors = [], []
    for centre, color in parts:
        move = trimesh.transformations.translation_matrix(centre)
        meshes.append(trimesh.creation.box((0.2, 0.2, 0.2), transform=move))
        colors.append(np.tile(np.uint8(color), (8, 1)))
    joined = trimesh.util.concatenate(meshes)
    return from_trimesh(joined, vertex_colors=np.concatenate(colors))


def test_turntable_has_the_documented_shape() -> None:
    sheet = render_turntable(sphere(), views=3, size=48)
    assert sheet.shape == (48, 144, 3)
    assert sheet.dtype == np.uint8
    assert (sheet[0, 0] > 240).all()
    assert (sheet[24, 24] < 230).any()


def test_a_sphere_covers_a_disc() -> None:
    alpha = render_view(sphere(4), size=128, azimuth_deg=10, elevation_deg=20)[..., 3] / 255
    rows, columns = np.nonzero(alpha > 0.5)
    width = columns.max() - columns.min() + 1
    assert width == pytest.approx(0.92 * 128, abs=2)
    assert rows.mean() == pytest.approx(63.5, abs=0.6)
    assert columns.mean() == pytest.approx(63.5, abs=0.6)
    assert alpha.sum() == pytest.approx(np.pi / 4 * width**2, rel=0.02)


@pytest.mark.parametrize(("azimuth", "hue"), [(0, 2), (90, 0)])
def test_azimuth_zero_sees_the_front_and_ninety_the_right(azimuth: float, hue: int) -> None:
    picture = render_view(boxes(), size=64, azimuth_deg=azimuth, elevation_deg=0)
    middle = picture[32, 32, :3].astype(int)
    assert middle[hue] > middle.sum() - middle[hue] + 50


def test_front_view_has_x_to_the_right_and_y_up() -> None:
    mesh = sphere(3)
    colors = np.zeros((len(mesh.vertices), 3), np.uint8)
    colors[mesh.vertices[:, 0] > 0, 0] = 255
    colors[mesh.vertices[:, 1] > 0, 1] = 255
    picture = render_view(
        MeshData(mesh.vertices, mesh.faces, vertex_colors=colors),
        size=64,
        azimuth_deg=0,
        elevation_deg=0,
    ).astype(int)
    assert picture[32, 46, 0] > 100 > picture[32, 18, 0] + 50
    assert picture[18, 32, 1] > 100 > picture[46, 32, 1] + 50


def test_texture_is_upright_and_not_mirrored() -> None:
    texture = np.zeros((2, 2, 3), np.uint8)
    texture[0, 0] = (255, 0, 0)  # v = 1, u = 0: top left
    texture[1, 1] = (0, 255, 0)  # bottom right
    picture = render_view(textured_quad(texture), size=64, azimuth_deg=0, elevation_deg=0)
    assert picture[10, 10, 0] > 150 > picture[10, 10, 1] + 100
    assert picture[54, 54, 1] > 150 > picture[54, 54, 0] + 100


def test_perspective_look_up_hits_texel_centres() -> None:
    texture = checker(8, 8)
    picture = render_view(textured_quad(texture), size=120, azimuth_deg=0, elevation_deg=0)
    inside = picture[12:108, 12:108, :3].astype(float)
    assert np.corrcoef(inside[..., 0].mean(axis=1), np.arange(96))[0, 1] > 0.98
    assert np.corrcoef(inside[..., 1].mean(axis=0), np.arange(96))[0, 1] > 0.98


def test_the_key_light_comes_from_above() -> None:
    picture = render_view(sphere(4), size=96, azimuth_deg=30, elevation_deg=10).astype(int)
    assert picture[20, 40, 0] > picture[76, 56, 0] + 30


def test_scale_and_place_do_not_matter() -> None:
    mesh = boxes()
    moved = MeshData(mesh.vertices * 40 + 7, mesh.faces, vertex_colors=mesh.vertex_colors)
    same = render_turntable(mesh, views=2, size=64).astype(int)
    difference = np.abs(render_turntable(moved, views=2, size=64).astype(int) - same)
    assert np.percentile(difference, 99) <= 2


def test_open_meshes_show_their_inside() -> None:
    mesh = sphere(3)
    half = MeshData(mesh.vertices, mesh.faces[mesh.vertices[mesh.faces][:, :, 2].max(1) <= 0.01])
    picture = render_view(half, size=64, azimuth_deg=0, elevation_deg=0)
    assert picture[32, 32, 3] == 255
    assert picture[32, 32, 0] > 60


def test_degenerate_faces_do_no_harm() -> None:
    mesh = sphere(2)
    flat = np.concatenate([mesh.faces, [[0, 0, 1], [2, 2, 2]]]).astype(np.int32)
    clean = render_turntable(mesh, views=1, size=64)
    assert np.array_equal(render_turntable(MeshData(mesh.vertices, flat), views=1, size=64), clean)
    point = MeshData(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    assert (render_turntable(point, views=1, size=32) > 240).all()


def test_a_mesh_without_faces_gives_the_background() -> None:
    empty = MeshData(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert (render_turntable(empty, views=2, size=32) > 240).all()


@pytest.mark.parametrize(
    "arguments",
    [{"views": 0}, {"views": 65}, {"size": 8}, {"size": 5000}, {"elevation_deg": float("nan")}],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidConfigError):
        render_turntable(sphere(1), **arguments)  # type: ignore[arg-type]


def test_inconsistent_meshes_are_refused() -> None:
    with pytest.raises(ShapeError):
        render_turntable(MeshData(sphere(1).vertices[:2], sphere(1).faces))


def test_rasterize_against_a_point_in_triangle_test(rng: np.random.Generator) -> None:
    screen = rng.uniform(-5, 37, (60, 3, 2))
    depth = np.repeat(rng.permutation(60)[:, None] + 1.0, 3, axis=1)
    got = rasterize(screen, depth, width=32, height=24)
    y, x = np.mgrid[0:24, 0:32] + 0.5
    want = np.full((24, 32), NO_FACE)
    nearest = np.full((24, 32), np.inf)
    for face in range(60):
        inside = _inside(screen[face], x, y) & (depth[face, 0] < nearest)
        want[inside], nearest[inside] = face, depth[face, 0]
    assert np.array_equal(got, want)


def _inside(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sides = []
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        sides.append((bx - ax) * (y - ay) - (by - ay) * (x - ax))
    return np.all(np.array(sides) >= 0, axis=0) | np.all(np.array(sides) <= 0, axis=0)


def test_barycentric_is_perspective_correct() -> None:
    screen = np.array([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]])
    depth = np.array([[1.0, 3.0, 1.0]])
    weights = barycentric(screen, depth, np.array([0]), np.array([[5.0, 0.0]]))
    # Half way on the screen is a quarter of the way to a corner three times as far.
    assert weights[0] == pytest.approx([0.75, 0.25, 0.0])
