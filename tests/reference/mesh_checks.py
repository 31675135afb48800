"""Compare meshes and textures with cases whose vertex order is no part of the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from tests.reference.cases import Case

# What the cases' notes ask for.
_SIZE_TOLERANCE = 0.01
_BOX_TOLERANCE = 1e-3
_MIN_IOU = 0.97
_POSITION_TOLERANCE = 1e-3
_COLOR_TOLERANCE = 2


def check_mesh(case: Case, vertices: NDArray[Any], faces: NDArray[Any]) -> None:
    """Compare with every mesh of ``mesh_stats``; ours is welded first, as theirs were."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices(digits_vertex=4)
    mesh.update_faces(mesh.nondegenerate_faces())
    for maker, stats in case.data["mesh_stats"].items():
        what = f"{case.name} against {maker}"
        assert mesh.area == pytest.approx(stats["area"], rel=_SIZE_TOLERANCE), what
        assert mesh.volume == pytest.approx(stats["volume"], rel=_SIZE_TOLERANCE), what
        np.testing.assert_allclose(mesh.bounds, stats["bbox"], atol=_BOX_TOLERANCE, err_msg=what)
        assert len(mesh.faces) == pytest.approx(
            stats["nondegenerate_faces"], rel=_SIZE_TOLERANCE
        ), what
        assert mesh.is_watertight == stats["watertight"], what
        assert mesh.euler_number == stats["euler"], what
        assert mesh.body_count == stats["components"], what


def check_texture(
    case: Case, positions: NDArray[Any], coverage: NDArray[Any], colors: NDArray[Any]
) -> None:
    """Compare rasters of the case's own atlas, on interior texels (row 0 is v = 0)."""
    want = case.expected()["positions"]
    wanted_coverage = want[..., 3] > 0
    union = (coverage | wanted_coverage).sum()
    iou = (coverage & wanted_coverage).sum() / union
    assert iou >= _MIN_IOU, f"{case.name}: coverage IoU {iou:.4f}"
    interior = binary_erosion(coverage & wanted_coverage, np.ones((3, 3)))
    assert interior.sum() > 0.5 * wanted_coverage.sum()
    difference = np.abs(positions - want[..., :3])[interior]
    # Which of two overlapping border strips is drawn last differs between rasterisers.
    assert difference.max() <= _POSITION_TOLERANCE, f"{case.name}: {difference.max():.3g}"
    stored = case.expected()["png"][::-1, :, :3].astype(int)
    difference = np.abs(colors.astype(int) - stored)[interior]
    assert difference.max() <= _COLOR_TOLERANCE, f"{case.name}: {difference.max()} of 255"
