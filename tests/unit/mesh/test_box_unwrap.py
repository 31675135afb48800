from __future__ import annotations

import numpy as np
import pytest
import torch

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.box_unwrap import (
    LEFTOVER,
    align,
    assign_layers,
    box_project_unwrap,
    place,
    project_on_box,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import indexed_normals
from tests.unit.mesh.layouts import MESHES, check_layout, nested_boxes
from tests.unit.mesh.shapes import sphere


@pytest.mark.parametrize("name", MESHES)
def test_islands_never_overlap(name: str) -> None:
    mesh = MESHES[name]
    atlas = box_project_unwrap(mesh.vertices, mesh.faces, indexed_normals(*_parts(mesh)))
    assert len(atlas.uvs) == 3 * len(mesh.faces)
    assert check_layout(mesh, atlas) > 0.05


def test_inward_normals_give_the_opposite_sides() -> None:
    mesh = sphere(2)
    normals = indexed_normals(*_parts(mesh))
    positions, outward = align(mesh.vertices, normals)
    side, _ = project_on_box(positions, outward, mesh.faces)
    other, _ = project_on_box(positions, -outward, mesh.faces)
    assert np.array_equal(side ^ 1, other)


def test_alignment_is_orthogonal_and_leaves_the_global_generator_alone() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3)) * (3, 2, 1)
    state = torch.get_rng_state()
    moved, _ = align(points.astype(np.float32), points.astype(np.float32))
    assert torch.equal(state, torch.get_rng_state())
    lengths = np.linalg.norm(points, axis=1)
    assert np.linalg.norm(moved, axis=1) == pytest.approx(lengths, rel=1e-5)
    # Widest, second and least wide stay x, y and z.
    assert np.abs(moved - points).max() < 4 * lengths.max()
    assert list(np.argsort(-moved.std(axis=0))) == [0, 1, 2]


def test_hidden_faces_move_to_the_second_layer_and_on() -> None:
    """Three parallel squares: the outermost two of +z leave, as the published rule has it."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * 0.5
    levels = [np.column_stack([square, np.full(4, z, np.float32)]) for z in (0.0, 0.1, 0.2)]
    vertices = np.concatenate(levels)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    faces = np.concatenate([faces, faces + 4, faces + 8])
    uvs = np.repeat(square[faces[:2] % 4][None], 3, axis=0).reshape(6, 3, 2).astype(np.float64)
    uvs += np.repeat([0.0, 1e-4, 2e-4], 2)[:, None, None]  # copies would not count
    layer = assign_layers(vertices, faces, uvs, np.full(6, 4))
    assert layer.tolist() == [4, 4, 10, 10, LEFTOVER, LEFTOVER]


def test_places_are_those_of_the_table() -> None:
    unit = np.array([[0, 0], [1, 0], [0, 1]], np.float64)
    layer = np.arange(13)
    uvs = place(np.repeat(unit[None], 13, axis=0), layer, island_padding=0.0)
    low, high = uvs.min(axis=1), uvs.max(axis=1)
    assert low[4] == pytest.approx([1 / 3, 1 / 3])
    assert high[4] == pytest.approx([2 / 3, 2 / 3])
    assert low[8] == pytest.approx([1 / 3, 2 / 3])
    assert high[11] == pytest.approx([1 / 2, 1.0])
    assert low[12] == pytest.approx([1 / 2, 2 / 3])


def test_many_leftovers_keep_their_area() -> None:
    """From some 6,600 leftovers on the published rim eats whole cells."""
    unit = np.array([[0, 0], [1, 0], [0, 1]], np.float64)
    uvs = place(np.repeat(unit[None], 9_000, axis=0), np.full(9_000, 12), island_padding=0.02)
    assert (np.ptp(uvs, axis=1) > 0).all()


def test_bad_input_is_refused() -> None:
    mesh = nested_boxes()
    normals = indexed_normals(*_parts(mesh))
    with pytest.raises(InvalidConfigError, match=r"0\.\.0\.25"):
        box_project_unwrap(mesh.vertices, mesh.faces, normals, island_padding=0.3)
    with pytest.raises(ShapeError, match="Normals"):
        box_project_unwrap(mesh.vertices, mesh.faces, normals[:-1])
    with pytest.raises(ShapeError, match="no faces"):
        box_project_unwrap(mesh.vertices, mesh.faces[:0], normals)


def _parts(mesh: MeshData) -> tuple[np.ndarray, np.ndarray]:
    return mesh.vertices, mesh.faces
