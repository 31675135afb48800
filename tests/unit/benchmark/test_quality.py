from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dream_cad.benchmark import QualityAssessor
from dream_cad.benchmark.quality import is_watertight, mesh_quality, uv_overlap
from dream_cad.exceptions import FileFormatError, InvalidConfigError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh


def to_mesh(mesh: trimesh.Trimesh) -> MeshData:
    return MeshData(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


BOX = to_mesh(trimesh.creation.box())
SPHERE = to_mesh(trimesh.creation.icosphere(3))


def without_faces(mesh: MeshData, count: int) -> MeshData:
    return MeshData(mesh.vertices, mesh.faces[count:])


def test_perfect_solids_have_perfect_scores() -> None:
    for mesh, volume in ((BOX, 1.0), (SPHERE, 4.1526)):
        metrics = QualityAssessor().assess(mesh)
        assert metrics.overall_mesh_quality == pytest.approx(100)
        assert metrics.is_watertight
        assert metrics.topology.genus == 0
        assert metrics.volume == pytest.approx(volume, rel=1e-3)
        assert mesh_quality(mesh) == pytest.approx(1)
        scores = {name for name in vars(metrics) if name.endswith("_score")}
        assert scores | {"overall_mesh_quality"} == set(metrics.reasons)


def test_one_missing_face_bounds_the_overall_score() -> None:
    metrics = QualityAssessor().assess(without_faces(SPHERE, 1))
    assert metrics.mesh_watertight_score < 50
    assert metrics.overall_mesh_quality == metrics.mesh_watertight_score
    assert "holes" in metrics.reasons["overall_mesh_quality"]
    assert metrics.volume is None
    assert metrics.topology.boundary_loops == 1
    assert not is_watertight(without_faces(SPHERE, 1))


def test_seams_are_welded_before_holes_are_counted(tmp_path: Path) -> None:
    split = MeshData(SPHERE.vertices[SPHERE.faces].reshape(-1, 3), np.arange(3840).reshape(-1, 3))
    for name in ("split.glb", "split.stl", "split.ply", "split.obj"):
        metrics = QualityAssessor().assess_mesh_file(export_mesh(split, tmp_path / name))
        assert metrics.is_watertight, name
        assert (metrics.vertex_count, metrics.face_count) == (642, 1280)


def test_torus_has_a_handle() -> None:
    torus = to_mesh(trimesh.creation.torus(1.0, 0.3))
    assert QualityAssessor().assess(torus).topology.genus == 1


def test_two_boxes_at_one_vertex_are_not_manifold() -> None:
    vertices = np.concatenate([BOX.vertices, BOX.vertices + 1])
    both = MeshData(vertices, np.concatenate([BOX.faces, BOX.faces + 8]))
    metrics = QualityAssessor().assess(both)
    assert metrics.topology.nonmanifold_vertices == 1
    assert metrics.topology.nonmanifold_edges == 0
    assert metrics.topology.genus is None
    assert metrics.mesh_manifold_score < 80


def test_faults_of_raw_arrays_are_measured() -> None:
    vertices = np.vstack([BOX.vertices, [[np.nan, 0, 0]]]).astype(np.float32)
    bad = [[0, 1, 99], [0, 1, 8], [2, 2, 3], BOX.faces[0]]
    metrics = QualityAssessor().assess(MeshData(vertices, np.vstack([BOX.faces, bad])))
    assert metrics.mesh_validity_score < 20
    assert "2 point at missing or non-finite" in metrics.reasons["mesh_validity_score"]
    assert "1 are copies" in metrics.reasons["mesh_validity_score"]


def test_a_mesh_of_nothing_has_zero() -> None:
    empty = MeshData(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    point = MeshData(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    for mesh in (empty, point):
        metrics = QualityAssessor().assess(mesh)
        assert metrics.overall_mesh_quality == 0
        assert metrics.game_ready_score == 0
        assert metrics.print_ready_score == 0


def test_target_profiles() -> None:
    dense = to_mesh(trimesh.creation.icosphere(5))
    scores = QualityAssessor("mobile").assess(dense)
    assert scores.game_ready_score == scores.game_ready["mobile"] < scores.game_ready["desktop"]
    assert scores.lod_faces[:2] == [20480, 10240]
    with pytest.raises(InvalidConfigError, match="mobile"):
        QualityAssessor("console")  # type: ignore[arg-type]


def test_uv_of_a_file_is_a_percentage(tmp_path: Path) -> None:
    quad = MeshData(
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        uv_coords=np.array([[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]], np.float32),
        texture=np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    )
    metrics = QualityAssessor().assess_mesh_file(export_mesh(quad, tmp_path / "quad.glb"))
    assert metrics.uv_coverage == pytest.approx(25, rel=0.01)
    assert metrics.uv_overlap == 0
    assert metrics.textures.resolution == 64
    assert uv_overlap(quad) == 0


def test_off_files_load(tmp_path: Path) -> None:
    path = tmp_path / "box.off"
    path.write_text(trimesh.creation.box().export(file_type="off"))
    assert QualityAssessor().assess_mesh_file(path).is_watertight


HOSTILE = {
    "empty.obj": b"",
    "points.obj": b"v 0 0 0\nv 1 0 0\n",
    "noise.glb": bytes(range(256)) * 8,
    "noise.obj": b"\xff\xfe\x00garbage" * 20,
    "huge.stl": b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\0" * 100,
    "short.stl": b"\0" * 80 + struct.pack("<I", 1000) + b"\0" * 100,
    "huge.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 3000000000\nend_header\n",
    "noise.ply": b"plybut not",
    "huge.off": b"OFF\n2000000000 2000000000 0\n0 0 0\n",
    "huge_faces.off": b"OFF\n3 1900000 0\n0 0 0\n",
    "wrong.fbx": b"Kaydara",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(FileFormatError) as caught:
        QualityAssessor().assess_mesh_file(path)
    assert len(caught.value.message) > 20


def glb_with(text: str) -> bytes:
    body = text.encode() + b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(body), len(body), b"JSON")
    return head + body


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"accessors":[{"count":900000000,"componentType":5126,"type":"VEC3"}]}', "promises"),
        ('{"buffers":[{"uri":"/etc/passwd","byteLength":10}]}', "other files"),
        ('{"nodes":[{"children":[1]},{"children":[1]}]}', "two parents"),
        ('{"extensionsRequired":["KHR_draco_mesh_compression"]}', "draco"),
        ('{"accessors":[{"count":1,"componentType":1,"type":"X"}]}', "header"),
    ],
)
def test_hostile_glb_trees_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "hostile.glb"
    path.write_bytes(glb_with(text))
    with pytest.raises(FileFormatError, match=reason):
        QualityAssessor().assess_mesh_file(path)


def test_truncated_glb_is_refused(tmp_path: Path) -> None:
    path = export_mesh(SPHERE, tmp_path / "sphere.glb")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FileFormatError, match="cut short"):
        QualityAssessor().assess_mesh_file(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no file"):
        QualityAssessor().assess_mesh_file(tmp_path / "nothing.obj")


def test_assembled_parts_are_no_defect_but_detached_ones_bound_the_score() -> None:
    def pair(gap: float) -> MeshData:
        vertices = np.concatenate([BOX.vertices, BOX.vertices + np.float32([1 + gap, 0, 0])])
        return MeshData(vertices, np.concatenate([BOX.faces, BOX.faces + 8]))

    near, far = (QualityAssessor().assess(pair(gap)) for gap in (0.001, 0.5))
    assert near.component_score == pytest.approx(100)
    assert far.topology.detached == 1
    assert far.overall_mesh_quality == far.component_score == pytest.approx(40)
    assert "touch nothing" in far.reasons["overall_mesh_quality"]
