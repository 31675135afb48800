"""Mesh operations on arbitrary meshes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import trimesh
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dream_cad.mesh.cleanup import (
    face_components,
    normalize_to_unit_cube,
    remove_degenerate_faces,
    remove_small_components,
    weld_vertices,
)
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh, load_mesh
from dream_cad.mesh.normals import vertex_normals
from dream_cad.mesh.render import render_view

coordinates = st.floats(-100, 100, width=32, allow_subnormal=False)


@st.composite
def meshes(draw: st.DrawFn) -> MeshData:
    count = draw(st.integers(1, 30))
    vertices = draw(hnp.arrays(np.float32, (count, 3), elements=coordinates))
    faces = draw(
        hnp.arrays(
            np.int32,
            st.tuples(st.integers(1, 40), st.just(3)),
            elements=st.integers(0, count - 1),
        )
    )
    colors = draw(st.none() | hnp.arrays(np.uint8, (count, 3)))
    return MeshData(vertices, faces, vertex_colors=colors)


@given(meshes())
@settings(max_examples=40, deadline=None)
def test_welding_exact_positions_keeps_every_triangle(mesh: MeshData) -> None:
    welded = weld_vertices(mesh, 0)
    assert np.array_equal(welded.vertices[welded.faces], mesh.vertices[mesh.faces] + 0.0)
    assert len(np.unique(welded.vertices + 0.0, axis=0)) == len(welded.vertices)
    again = weld_vertices(welded, 0)
    assert np.array_equal(again.faces, welded.faces)


@given(meshes())
@settings(max_examples=40, deadline=None)
def test_cleaned_meshes_have_no_waste(mesh: MeshData) -> None:
    clean = remove_degenerate_faces(mesh)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        assert (clean.faces[:, a] != clean.faces[:, b]).all()
    assert np.array_equal(np.unique(clean.faces), np.arange(len(clean.vertices)))
    if mesh.vertex_colors is not None:
        assert clean.vertex_colors is not None
        assert len(clean.vertex_colors) == len(clean.vertices)


@given(meshes(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_kept_parts_are_whole_and_large(mesh: MeshData, fraction: float) -> None:
    kept = remove_small_components(mesh, fraction)
    before = np.bincount(face_components(mesh))
    after = np.bincount(face_components(kept))
    expected = before[(before >= fraction * len(mesh.faces)) | (before == before.max())]
    assert sorted(after) == sorted(expected)


@given(meshes())
@settings(max_examples=40, deadline=None)
def test_normalized_meshes_fill_the_cube(mesh: MeshData) -> None:
    done = normalize_to_unit_cube(mesh)
    low, high = done.vertices.min(axis=0), done.vertices.max(axis=0)
    side = float(np.ptp(mesh.vertices.astype(np.float64), axis=0).max())
    assert np.allclose(low + high, 0, atol=1e-4)
    if side > 0:
        assert np.isclose((high - low).max(), 1, atol=1e-5)


@given(meshes())
@settings(max_examples=40, deadline=None)
def test_normals_are_unit_vectors(mesh: MeshData) -> None:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


@given(meshes(), st.floats(-360, 360), st.floats(-90, 90))
@settings(max_examples=40, deadline=None)
def test_any_mesh_renders(mesh: MeshData, azimuth: float, elevation: float) -> None:
    picture = render_view(mesh, size=24, azimuth_deg=azimuth, elevation_deg=elevation)
    assert picture.shape == (24, 24, 4)
    assert (picture[picture[..., 3] == 0][:, :3] == 0).all()


@given(meshes())
@settings(max_examples=25, deadline=None)
def test_exporters_invert(raw: MeshData) -> None:
    mesh = remove_degenerate_faces(raw)  # readers of obj drop vertices of no face
    assume(len(mesh.faces) > 0)
    with tempfile.TemporaryDirectory() as folder:
        for format in ("glb", "ply", "obj"):
            loaded = load_mesh(export_mesh(mesh, Path(folder) / f"mesh.{format}"))
            assert np.allclose(loaded.vertices, mesh.vertices, rtol=1e-6, atol=1e-6)
            assert np.array_equal(loaded.faces, mesh.faces)
            assert np.array_equal(loaded.vertex_colors, mesh.vertex_colors) or (
                mesh.vertex_colors is None and loaded.vertex_colors is None
            )


@given(st.floats(0.2, 3.0), st.floats(0.2, 3.0), st.floats(0.2, 3.0))
@settings(max_examples=20, deadline=None)
def test_boxes_stay_closed_through_stl(x: float, y: float, z: float) -> None:
    box = trimesh.creation.box((x, y, z))
    mesh = MeshData(np.array(box.vertices, np.float32), np.array(box.faces, np.int32))
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_mesh(export_mesh(mesh, Path(folder) / "box.stl"))
    back = trimesh.Trimesh(loaded.vertices, loaded.faces, process=False)
    assert back.is_watertight
    assert np.isclose(back.volume, x * y * z, rtol=1e-4)
