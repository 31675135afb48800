"""QualityAssessor: every score of a mesh, with its reason (formulas: docs/quality.md)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.benchmark.aspects.game_ready import (
    BUDGETS,
    GameInput,
    TargetProfile,
    advise_lods,
    score_game_readiness,
)
from dream_cad.benchmark.aspects.intersections import (
    Intersections,
    find_intersections,
    score_intersections,
)
from dream_cad.benchmark.aspects.printing import (
    Printability,
    measure_printability,
    score_printability,
)
from dream_cad.benchmark.aspects.shape import (
    Shape,
    measure_shape,
    score_smoothness,
    score_triangles,
)
from dream_cad.benchmark.aspects.textures import Textures, measure_textures, score_textures
from dream_cad.benchmark.aspects.thickness import Thickness, measure_thickness, score_thickness
from dream_cad.benchmark.aspects.topology import (
    Topology,
    edge_table,
    measure_topology,
    score_components,
    score_manifold,
    score_validity,
    score_watertight,
)
from dream_cad.benchmark.aspects.uv import UvLayout, coverage_and_overlap, measure_uv, score_uv
from dream_cad.benchmark.mesh_files import RawMesh, from_mesh_data, read_mesh_file
from dream_cad.benchmark.scores import Score, geometric_mean
from dream_cad.benchmark.welded import WeldedMesh, weld
from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData

# What makes a mesh unusable elsewhere; with fragments, what the overall score never exceeds.
CRITICAL = ("mesh_validity_score", "mesh_manifold_score", "mesh_watertight_score")
BOUNDING = (*CRITICAL, "component_score")
_THREADS = 2  # beside the caller's; more would only add to the memory
OVERALL_WEIGHTS = {
    "mesh_validity_score": 2.0,
    "mesh_manifold_score": 2.0,
    "mesh_watertight_score": 2.0,
    "self_intersection_score": 1.0,
    "component_score": 1.0,
    "smoothness_score": 1.0,
    "triangle_quality_score": 1.0,
}


@dataclass(frozen=True)
class QualityMetrics:
    """Scores (0..100, higher is better) and measures of one mesh.

    Attributes:
        mesh_validity_score: finite positions, indices in range, no degenerate or double faces.
        mesh_manifold_score: no branching edges or vertices, one winding.
        mesh_watertight_score: 100 closed, below 50 otherwise.
        self_intersection_score: faces that cross no others.
        component_score: no floating crumbs.
        smoothness_score: no bumpiness.
        triangle_quality_score: no slivers.
        thickness_score: walls of at least 1 % of the longest side.
        uv_score: layout; 0 without UV.
        texture_score: base colour texture; 0 without one.
        overall_mesh_quality: weighted geometric mean of the first seven, at most the smallest of
            validity, manifold, watertight and component score.
        game_ready_score: readiness for ``target_profile``.
        print_ready_score: readiness for 3D printing.
        vertex_count: distinct positions that faces use, after welding.
        face_count: triangles as stored.
        stored_vertex_count: vertices as stored, split at seams.
        is_watertight: every edge has exactly two faces.
        surface_area: in squared file units.
        volume: signed, in cubed file units; None unless watertight.
        uv_coverage: percent of the texture that triangles use.
        uv_overlap: percent of that used by two or more.
        draw_calls: parts with a material of their own.
        target_profile: whose budget ``game_ready_score`` uses.
        game_ready: the score for every profile.
        lod_faces: advised faces of the levels of detail, the mesh itself first.
        reasons: one sentence for each score.
        topology, shape, uv, textures, print: the measures behind the scores.
        thickness: smallest (1st percentile) and median wall, parts of the longest side.
    """

    mesh_validity_score: float
    mesh_manifold_score: float
    mesh_watertight_score: float
    self_intersection_score: float
    component_score: float
    smoothness_score: float
    triangle_quality_score: float
    thickness_score: float
    uv_score: float
    texture_score: float
    overall_mesh_quality: float
    game_ready_score: float
    print_ready_score: float
    vertex_count: int
    face_count: int
    stored_vertex_count: int
    is_watertight: bool
    surface_area: float
    volume: float | None
    uv_coverage: float
    uv_overlap: float
    draw_calls: int
    target_profile: TargetProfile
    game_ready: dict[str, float]
    lod_faces: list[int]
    topology: Topology
    shape: Shape
    uv: UvLayout | None
    textures: Textures
    print: Printability
    thickness: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)


class QualityAssessor:
    """Measures meshes.

    Args:
        target_profile: whose budget ``game_ready_score`` uses: mobile, desktop, hero or print.

    Raises:
        InvalidConfigError: unknown profile.
    """

    def __init__(self, target_profile: TargetProfile = "desktop") -> None:
        if target_profile not in BUDGETS:
            raise InvalidConfigError(
                f"target_profile is {target_profile!r}; expected one of {', '.join(BUDGETS)}."
            )
        self.target_profile: TargetProfile = target_profile

    def assess_mesh_file(self, file_path: Path | str) -> QualityMetrics:
        """Assess an obj, ply, stl, glb or off file, by whatever tool it was written.

        Raises:
            StorageError: the file cannot be read.
            FileFormatError: it is damaged, over a limit, or no triangle mesh.
        """
        return self._assess(read_mesh_file(Path(file_path)))

    def assess(self, mesh: MeshData) -> QualityMetrics:
        """Assess a mesh in memory; NaN and wrong indices are measured, not refused."""
        return self._assess(from_mesh_data(mesh))

    def _assess(self, raw: RawMesh) -> QualityMetrics:
        mesh = weld(raw.vertices, raw.faces)
        edges = edge_table(mesh.faces)
        _ = mesh.normals, mesh.is_flat  # before the threads, which would each work them out
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy lets go of the interpreter's lock
            crossing = pool.submit(find_intersections, mesh)
            layout = None if raw.uv is None else pool.submit(measure_uv, mesh, raw.uv, raw.faces)
            walls = pool.submit(measure_thickness, mesh)
            topology, shape = measure_topology(mesh, edges), measure_shape(mesh, edges)
            thickness, intersections = walls.result(), crossing.result()
            uv = None if layout is None else layout.result()
        textures = measure_textures(mesh, raw.texture, raw.maps, _face_colors(raw, mesh))
        scores = _geometry_scores(mesh, topology, shape, intersections)
        scores["thickness_score"] = score_thickness(thickness)
        scores["uv_score"], scores["texture_score"] = score_uv(uv), score_textures(textures)
        printed = measure_printability(mesh, thickness, is_watertight=topology.is_watertight)
        closed = min(scores[name].value for name in CRITICAL)
        scores["print_ready_score"] = score_printability(
            printed, closed, scores["self_intersection_score"].value
        )
        games = _game_scores(raw, scores)
        scores["game_ready_score"] = games[self.target_profile]
        scores["overall_mesh_quality"] = overall_score(scores)
        return QualityMetrics(
            **{name: score.value for name, score in scores.items()},
            vertex_count=len(mesh.vertices),
            face_count=mesh.raw_faces,
            stored_vertex_count=mesh.raw_vertices,
            is_watertight=topology.is_watertight,
            surface_area=mesh.area,
            volume=mesh.volume if topology.is_watertight else None,
            uv_coverage=100 * uv.coverage if uv else 0.0,
            uv_overlap=100 * uv.overlap if uv else 0.0,
            draw_calls=raw.draw_calls,
            target_profile=self.target_profile,
            game_ready={name: score.value for name, score in games.items()},
            lod_faces=advise_lods(mesh.raw_faces),
            topology=topology,
            shape=shape,
            uv=uv,
            textures=textures,
            print=printed,
            thickness=_walls(thickness),
            reasons={name: score.reason for name, score in scores.items()},
        )


def is_watertight(mesh: MeshData) -> bool:
    """Tell whether every edge of the welded mesh has exactly two faces; a cheap single check."""
    welded = weld(mesh.vertices, mesh.faces)
    return measure_topology(welded, edge_table(welded.faces)).is_watertight


def mesh_quality(mesh: MeshData) -> float:
    """Return the overall quality as 0..1, without UV, textures and thickness."""
    welded = weld(mesh.vertices, mesh.faces)
    edges = edge_table(welded.faces)
    topology, shape = measure_topology(welded, edges), measure_shape(welded, edges)
    return (
        overall_score(_geometry_scores(welded, topology, shape, find_intersections(welded))).value
        / 100
    )


def uv_overlap(mesh: MeshData) -> float:
    """Return the part 0..1 of the used texture that two or more triangles share; 0 without UV."""
    if mesh.uv_coords is None:
        return 0.0
    return coverage_and_overlap(np.asarray(mesh.uv_coords, np.float64)[mesh.faces])[1]


def overall_score(scores: dict[str, Score]) -> Score:
    """Join the geometry scores; the critical ones bound the result."""
    values = {name: scores[name].value for name in OVERALL_WEIGHTS}
    mean = geometric_mean(values, OVERALL_WEIGHTS)
    worst = min(BOUNDING, key=lambda name: values[name])
    if values[worst] < mean:
        return Score(values[worst], f"Bounded by {worst}: {scores[worst].reason}")
    weakest = min(values, key=lambda name: values[name])
    return Score(mean, f"Weakest part {weakest} ({values[weakest]:.0f}): {scores[weakest].reason}")


def _geometry_scores(
    mesh: WeldedMesh, topology: Topology, shape: Shape, intersections: Intersections
) -> dict[str, Score]:
    return {
        "mesh_validity_score": score_validity(mesh),
        "mesh_manifold_score": score_manifold(topology, len(mesh.vertices)),
        "mesh_watertight_score": score_watertight(topology),
        "self_intersection_score": score_intersections(intersections),
        "component_score": score_components(topology),
        "smoothness_score": score_smoothness(shape),
        "triangle_quality_score": score_triangles(shape, len(mesh.faces)),
    }


def _game_scores(raw: RawMesh, scores: dict[str, Score]) -> dict[TargetProfile, Score]:
    surface = min(scores["mesh_validity_score"].value, scores["mesh_manifold_score"].value)
    given = GameInput(
        faces=len(raw.faces),
        draw_calls=raw.draw_calls,
        texture_resolution=0 if raw.texture is None else min(raw.texture.shape[:2]),
        has_vertex_colors=raw.vertex_colors is not None,
        surface_score=surface,
        uv_score=scores["uv_score"].value,
        texture_score=scores["texture_score"].value,
    )
    return {profile: score_game_readiness(given, profile) for profile in BUDGETS}


def _face_colors(raw: RawMesh, mesh: WeldedMesh) -> NDArray[np.floating[Any]] | None:
    """Return (F, 3) 0..255 colour in the middle of each welded face, or None."""
    rows = raw.faces[mesh.source]
    if not len(rows):
        return None
    if raw.texture is not None and raw.uv is not None:
        middle = np.nan_to_num(raw.uv[rows].mean(axis=1), posinf=0.0, neginf=0.0)
        return np.asarray(sample_texture(raw.texture, middle), dtype=np.float64)
    if raw.vertex_colors is not None:
        colors: NDArray[np.float64] = raw.vertex_colors[rows].mean(axis=1)
        return colors
    return None


def _walls(thickness: Thickness) -> dict[str, float | None]:
    return {"minimum": thickness.minimum, "median": thickness.median}
