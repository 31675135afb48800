from __future__ import annotations

import numpy as np
import pytest
import trimesh

from deployments.judging import count_uv_overlaps, judge
from dream_cad.benchmark.quality import is_watertight
from dream_cad.mesh.data import MeshData

GATES = {"watertight": True}
SEED, NEXT, THIRD = 7, 7 + 1_000_003, 7 + 2_000_006


def ball(*, holes: int = 0, subdivisions: int = 3) -> MeshData:
    solid = trimesh.creation.icosphere(subdivisions)
    faces = np.asarray(solid.faces)[holes:]
    return MeshData(np.asarray(solid.vertices, np.float32), faces.astype(np.int32))


def test_a_good_mesh_passes() -> None:
    verdict = judge(ball(), {"watertight": True, "max_faces": 2000, "uv_overlap_free": True})
    assert verdict.failed == []
    assert verdict.quality is None


def test_too_many_faces_are_simplified_away() -> None:
    verdict = judge(ball(subdivisions=4), {"max_faces": 1000})
    assert verdict.failed == []
    assert len(verdict.mesh.faces) <= 1000


def test_a_small_hole_is_closed() -> None:
    mesh = ball(holes=1)
    assert not is_watertight(mesh)
    verdict = judge(mesh, {"watertight": True})
    assert verdict.failed == []
    assert is_watertight(verdict.mesh)


def test_half_a_ball_cannot_be_repaired() -> None:
    mesh = ball(holes=700)
    verdict = judge(mesh, {"watertight": True})
    assert verdict.failed == [{"gate": "watertight", "wanted": True, "measured": False}]


def test_quality_is_measured_against_its_gate() -> None:
    good, bad = ball(), ball(holes=700)
    scores = [judge(mesh, {}, is_ranked=True).quality or 0.0 for mesh in (good, bad)]
    assert scores[0] > scores[1]
    between = sum(scores) / 2
    assert judge(good, {"min_quality": between}).failed == []
    (failed,) = judge(bad, {"min_quality": between}).failed
    assert failed["gate"] == "min_quality"
    assert failed["measured"] == pytest.approx(scores[1], abs=0.01)


def test_faces_on_the_same_texels_are_counted() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    vertices = np.concatenate([corners, corners + 1])
    faces = np.arange(6, dtype=np.int32).reshape(2, 3)
    apart = np.array([[0, 0], [0.4, 0], [0, 0.4], [0.6, 0.6], [1, 0.6], [0.6, 1]], np.float32)
    assert count_uv_overlaps(MeshData(vertices, faces, uv_coords=apart)) == 0
    shifted = apart.copy()
    shifted[3:] = apart[:3] + 0.05
    mesh = MeshData(vertices, faces, uv_coords=shifted)
    assert count_uv_overlaps(mesh) == 1
    (failed,) = judge(mesh, {"uv_overlap_free": True}).failed
    assert failed["gate"] == "uv_overlap_free"
