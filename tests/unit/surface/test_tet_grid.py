from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.surface.marching_tets import march_tets
from dream_cad.surface.tet_grid import TetGrid, tet_grid


def volumes(grid: TetGrid) -> NDArray[np.float64]:
    corners = grid.vertices[grid.tets].astype(np.float64)
    sides = corners[:, 1:] - corners[:, :1]
    volume: NDArray[np.float64] = np.linalg.det(sides) / 6
    return volume


@pytest.mark.parametrize("resolution", [8, 12, 16, 32])
def test_counts_follow_the_formula(resolution: int) -> None:
    grid, n = tet_grid(resolution), resolution // 4
    assert len(grid.vertices) == 8 * n**3 + 15 * n**2 - 3 * n + 2
    assert len(grid.tets) == 46 * n**3 + 18 * n**2 - 34 * n + 12


def test_tetrahedra_fill_the_cube_but_for_its_edges() -> None:
    volume = volumes(tet_grid(16))
    assert volume.min() > 0
    assert 0.97 < volume.sum() < 1


def test_the_cached_grid_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tet_grid(8).vertices[0] = 0


@pytest.mark.parametrize("resolution", [4, 10, 260])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(InvalidConfigError, match="multiple of 4 from 8 to 256"):
        tet_grid(resolution)


def ball(grid: TetGrid) -> NDArray[np.float32]:
    distance = np.linalg.norm(grid.vertices - 0.5, axis=1)
    return (0.35 - distance).astype(np.float32)


def test_a_ball_is_closed_and_winds_inwards() -> None:
    grid = tet_grid(32)
    made = march_tets(grid, ball(grid))
    mesh = trimesh.Trimesh(made.vertices, made.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(-4 / 3 * np.pi * 0.35**3, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(made.vertices - 0.5, axis=1), 0.35, atol=3e-3)


def test_offsets_are_asked_for_beside_the_surface_only() -> None:
    grid = tet_grid(32)
    asked: list[NDArray[np.intp]] = []

    def offsets(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        asked.append(numbers)
        return np.full((len(numbers), 3), 100.0, np.float32)

    moved, plain = march_tets(grid, ball(grid), offsets), march_tets(grid, ball(grid))
    assert len(asked[0]) < 0.4 * len(grid.vertices)
    np.testing.assert_array_equal(moved.faces, plain.faces)
    # tanh(100) = 1: everything moves by one cell along each axis
    np.testing.assert_allclose(moved.vertices - plain.vertices, 1 / 32, atol=1e-6)


def test_an_empty_field_gives_no_faces() -> None:
    grid = tet_grid(8)
    made = march_tets(grid, np.full(len(grid.vertices), -1, np.float32))
    assert made.vertices.shape == made.faces.shape == (0, 3)


@pytest.mark.parametrize("level", [np.zeros(3, np.float32), np.full(120, np.nan, np.float32)])
def test_wrong_levels_are_refused(level: NDArray[np.float32]) -> None:
    with pytest.raises(ShapeError, match="level set"):
        march_tets(tet_grid(8), level)
