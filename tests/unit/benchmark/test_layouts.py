"""What UV layouts and painted light measure, against values by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.benchmark.aspects.textures import measure_textures, score_textures
from dream_cad.benchmark.aspects.uv import measure_uv
from dream_cad.benchmark.mesh_files import read_mesh_file
from dream_cad.benchmark.welded import weld

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float64)
FACES = np.array([[0, 1, 2], [0, 2, 3]])
SQUARE = CORNERS[:, :2]


@pytest.mark.parametrize(
    ("scale", "stretch", "density"),
    [((0.5, 0.5), 1.0, 512.0), ((1.0, 0.25), 4 / 8.5, 512.0), ((0.25, 0.25), 1.0, 256.0)],
)
def test_stretch_and_density_of_a_square(
    scale: tuple[float, float], stretch: float, density: float
) -> None:
    layout = measure_uv(weld(CORNERS, FACES), SQUARE * scale, FACES)
    assert layout.stretch == pytest.approx(stretch)
    assert layout.texel_density == pytest.approx(density)
    assert layout.coverage == pytest.approx(scale[0] * scale[1], rel=0.01)
    assert (layout.islands, layout.padding) == (1, None)


@pytest.mark.parametrize("texels", [4, 16, 64])
def test_padding_is_the_gap_between_islands(texels: int) -> None:
    vertices = np.vstack([CORNERS, CORNERS + np.array([2, 0, 0])])
    uv = np.vstack([SQUARE * 0.4, SQUARE * 0.4 + [0.4 + texels / 1024, 0]])
    faces = np.vstack([FACES, FACES + 4])
    layout = measure_uv(weld(vertices, faces), uv, faces)
    assert layout.islands == 2
    assert layout.padding == pytest.approx(texels, abs=2)


def test_painted_light_follows_the_normals_and_noise_does_not() -> None:
    mesh = trimesh.creation.icosphere(3)
    lit = np.clip(mesh.face_normals @ [0.3, 0.9, 0.3], 0, 1) * 200 + 40
    noise = np.random.default_rng(0).uniform(0, 255, len(mesh.faces))
    texture = np.full((64, 64, 3), 128, np.uint8)
    hints = []
    for brightness in (lit, noise):
        colors = np.repeat(brightness[:, None], 3, axis=1)
        found = measure_textures(weld(mesh.vertices, mesh.faces), texture, ["base colour"], colors)
        hints.append((found.baked_light or 0, "baked light?" in score_textures(found).reason))
    (light, is_told), (random, is_random_told) = hints
    assert light > 0.7 > 0.05 > random
    assert (is_told, is_random_told) == (True, False)


@pytest.mark.parametrize("parts", [1, 3])
def test_each_part_of_a_file_is_a_draw_call(tmp_path: Path, parts: int) -> None:
    paint = trimesh.visual.material.PBRMaterial(name="one paint for all")
    scene = trimesh.Scene()
    for number in range(parts):
        box = trimesh.creation.box()
        box.apply_translation([2.0 * number, 0, 0])
        box.visual = trimesh.visual.TextureVisuals(
            uv=np.zeros((len(box.vertices), 2)), material=paint
        )
        scene.add_geometry(box)
    path = tmp_path / "boxes.glb"
    scene.export(path)
    assert read_mesh_file(path).draw_calls == parts
