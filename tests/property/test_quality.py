"""Scores fall with the defects that they measure, and agree with trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cad.benchmark.aspects.intersections import find_intersections
from dream_cad.benchmark.aspects.shape import measure_shape, score_smoothness
from dream_cad.benchmark.aspects.thickness import measure_thickness
from dream_cad.benchmark.aspects.topology import (
    edge_table,
    measure_topology,
    score_components,
    score_manifold,
    score_validity,
    score_watertight,
)
from dream_cad.benchmark.aspects.uv import coverage_and_overlap
from dream_cad.benchmark.welded import WeldedMesh, weld

SPHERE = trimesh.creation.icosphere(3)
seeds = st.integers(0, 10_000)


def topology_of(mesh: WeldedMesh):  # type: ignore[no-untyped-def]
    return measure_topology(mesh, edge_table(mesh.faces))


def isolated_faces(seed: int) -> list[int]:
    """Faces of the sphere that share no vertex."""
    taken: set[int] = set()
    found = []
    for face in np.random.default_rng(seed).permutation(len(SPHERE.faces)):
        corners = set(SPHERE.faces[face].tolist())
        if not corners & taken:
            taken |= corners
            found.append(int(face))
    return found


@given(seeds, st.integers(0, 20), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_more_holes_score_lower(seed: int, few: int, more: int) -> None:
    holes = isolated_faces(seed)
    scores = []
    for count in (few, few + more):
        mesh = weld(SPHERE.vertices, np.delete(SPHERE.faces, holes[:count], axis=0))
        topology = topology_of(mesh)
        assert topology.boundary_loops == count
        scores.append(score_watertight(topology).value)
    assert scores[1] < scores[0]


@given(seeds, st.integers(0, 20), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_more_flipped_faces_score_lower(seed: int, few: int, more: int) -> None:
    chosen = isolated_faces(seed)
    scores = []
    for count in (few, few + more):
        faces = SPHERE.faces.copy()
        faces[chosen[:count]] = faces[chosen[:count], ::-1]
        mesh = weld(SPHERE.vertices, faces)
        topology = topology_of(mesh)
        assert topology.inconsistent_edges >= 2 * count
        scores.append(score_manifold(topology, len(mesh.vertices)).value)
    assert scores[1] < scores[0]


@given(seeds, st.integers(0, 8), st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_more_crumbs_score_lower(seed: int, few: int, more: int) -> None:
    crumb = trimesh.creation.box((0.02, 0.02, 0.02))
    generator = np.random.default_rng(seed)
    crumbs = [
        crumb.copy().apply_translation([2 + index, *generator.uniform(-1, 1, 2)])
        for index in range(few + more)
    ]
    parts = [SPHERE, *crumbs]
    scores = []
    for count in (few, few + more):
        mesh = trimesh.util.concatenate(parts[: count + 1])
        topology = topology_of(weld(mesh.vertices, mesh.faces))
        assert (topology.components, topology.floaters) == (count + 1, count)
        scores.append(score_components(topology).value)
    assert scores[1] < scores[0]


@given(seeds, st.integers(0, 30), st.integers(1, 30), st.sampled_from(["copy", "collapse", "wild"]))
@settings(max_examples=30, deadline=None)
def test_more_invalid_faces_score_lower(seed: int, few: int, more: int, kind: str) -> None:
    chosen = np.random.default_rng(seed).permutation(len(SPHERE.faces))[: few + more]
    bad = SPHERE.faces[chosen].copy()
    if kind == "collapse":
        bad[:, 1] = bad[:, 0]
    if kind == "wild":
        bad[:, 2] = 10**6
    scores = [
        score_validity(weld(SPHERE.vertices, np.vstack([SPHERE.faces, bad[:count]]))).value
        for count in (few, few + more)
    ]
    assert scores[1] < scores[0]


@given(seeds, st.floats(0, 0.02), st.floats(0.005, 0.02))
@settings(max_examples=15, deadline=None)
def test_more_noise_is_less_smooth(seed: int, low: float, more: float) -> None:
    noise = np.random.default_rng(seed).normal(size=SPHERE.vertices.shape)
    scores = []
    for amount in (low, low + more):
        mesh = weld(SPHERE.vertices + noise * amount, SPHERE.faces)
        scores.append(score_smoothness(measure_shape(mesh, edge_table(mesh.faces))).value)
    assert scores[1] < scores[0]


@given(st.floats(0.02, 0.08), st.floats(1.5, 3.0))
@settings(max_examples=15, deadline=None)
def test_walls_are_measured_in_parts_of_the_longest_side(wall: float, height: float) -> None:
    tube = trimesh.creation.annulus(1 - wall, 1, height, sections=96)
    thickness = measure_thickness(weld(tube.vertices, tube.faces))
    assert thickness.median == pytest.approx(wall / max(2, height), rel=0.05)


@given(seeds, st.floats(-0.9, 0.9), st.booleans())
@settings(max_examples=20, deadline=None)
def test_crossing_spheres_are_found(seed: int, shift: float, apart: bool) -> None:
    direction = np.random.default_rng(seed).normal(size=3)
    direction /= np.linalg.norm(direction)
    other = SPHERE.copy()
    other.apply_translation(direction * (2.1 if apart else 0.5 + abs(shift)))
    both = trimesh.util.concatenate([SPHERE, other])
    found = find_intersections(weld(both.vertices, both.faces))
    assert (found.pairs == 0) == apart
    assert found.is_complete


@given(st.floats(0.15, 0.4), st.floats(0.05, 0.5), st.floats(0.2, 0.45), st.floats(-0.1, 0.15))
@settings(max_examples=25, deadline=None)
def test_uv_overlap_agrees_with_two_rectangles(x: float, y: float, side: float, s: float) -> None:
    def square(left: float, bottom: float) -> np.ndarray:
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + [left, bottom]
        return corners[[[0, 1, 2], [0, 2, 3]]]

    triangles = np.concatenate([square(x, y), square(x + s, y)])
    coverage, overlap = coverage_and_overlap(triangles)
    shared = max(side - abs(s), 0) * side
    union = 2 * side**2 - shared
    assert coverage == pytest.approx(union, rel=0.01)
    assert overlap == pytest.approx(shared / union, abs=0.01)


def corpus() -> list[trimesh.Trimesh]:
    """120 made meshes, of which 90 damaged: holes, splits, flips, copies, loose parts."""
    made = [
        trimesh.creation.box((1, 2, 3)),
        trimesh.creation.icosphere(2),
        trimesh.creation.torus(1, 0.3, 12, 8),
        trimesh.creation.capsule(count=(8, 8)),
        trimesh.creation.cylinder(0.5, 2, sections=12),
        trimesh.creation.cone(0.5, 1, sections=9),
    ]
    meshes = []
    for number in range(120):
        mesh = made[number % 6].copy()
        generator = np.random.default_rng(number)
        mesh.apply_transform(trimesh.transformations.random_rotation_matrix(generator.random(3)))
        faces, vertices = mesh.faces.copy(), mesh.vertices.copy()
        kind = number // 6 % 4
        if kind == 1:
            faces = faces[generator.random(len(faces)) > 0.1]
        if kind == 2:
            faces = np.vstack([faces, faces[: generator.integers(1, 4)]])
        if kind == 3:
            faces = np.vstack([faces, faces + len(vertices)])
            vertices = np.vstack([vertices, vertices + np.array([0, 0, 9])])
            faces = faces[1 if generator.random() < 0.5 else 0 :]
        meshes.append(trimesh.Trimesh(vertices, faces, process=False))
    return meshes


def test_agrees_with_trimesh_on_120_meshes() -> None:
    watertight = 0
    for mesh in corpus():
        split = mesh.vertices[mesh.faces].reshape(-1, 3)
        welded = weld(split, np.arange(len(split)).reshape(-1, 3))
        topology = topology_of(welded)
        assert topology.is_watertight == mesh.is_watertight
        assert topology.components == mesh.body_count
        assert welded.area == pytest.approx(mesh.area, rel=1e-6)
        if mesh.is_watertight:
            watertight += 1
            assert welded.volume == pytest.approx(mesh.volume, rel=1e-6)
            assert topology.euler_number == mesh.euler_number
    assert 30 <= watertight <= 90
