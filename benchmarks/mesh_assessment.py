"""Mesh assessment: agreement with other libraries, seconds for 200,000 faces, cost of measuring.

``python -m benchmarks.mesh_assessment`` writes results/mesh_assessment.json. MeshLab is compared
where the development-only package pymeshlab is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import trimesh
from skimage.measure import marching_cubes

from benchmarks.environment import describe_machine, summarize, write_result
from dream_cad.benchmark import QualityAssessor
from dream_cad.benchmark.aspects.topology import edge_table, measure_topology
from dream_cad.benchmark.measurement import Measurement
from dream_cad.benchmark.welded import WeldedMesh, weld
from dream_cad.mesh.data import MeshData
from dream_cad.models.profile import StageClock, profiled_stages
from jobs.nano.catalogue import CATEGORIES, make_item
from jobs.nano.truth import truth_mesh

LIMIT_S = 5.0
OVERHEAD_LIMIT = 0.01
_RELATIVE = 1e-6

Damage = Callable[[trimesh.Trimesh, np.random.Generator], trimesh.Trimesh]


def made_meshes() -> dict[str, trimesh.Trimesh]:
    """Solids of known form, and the procedural objects of the nano world."""
    make = trimesh.creation
    found = {
        "box": make.box((1, 2, 3)),
        "icosphere": make.icosphere(3),
        "torus": make.torus(1.0, 0.3),
        "cylinder": make.cylinder(0.5, 2.0),
        "capsule": make.capsule(1.0, 0.4),
        "annulus": make.annulus(0.3, 0.6, 1.0),
        "cone": make.cone(0.5, 1.0),
    }
    for seed, name in enumerate(CATEGORIES):
        mesh = truth_mesh(make_item(seed, category=name), resolution=48)
        found[name] = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return found


def _holes(mesh: trimesh.Trimesh, rng: np.random.Generator) -> trimesh.Trimesh:
    keep = np.sort(rng.permutation(len(mesh.faces))[max(2, len(mesh.faces) // 50) :])
    return trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False)


def _floaters(mesh: trimesh.Trimesh, rng: np.random.Generator) -> trimesh.Trimesh:
    crumbs = [trimesh.creation.box((0.01, 0.01, 0.01)) for _ in range(3)]
    for crumb in crumbs:
        crumb.apply_translation(mesh.bounds[1] + rng.uniform(0.1, 0.5, 3))
    return cast(trimesh.Trimesh, trimesh.util.concatenate([mesh, *crumbs]))


def _fins(mesh: trimesh.Trimesh, rng: np.random.Generator) -> trimesh.Trimesh:
    """Two faces more at one edge: it branches."""
    a, b, c = mesh.vertices[mesh.faces[0]]
    tip = (a + b + c) / 3 + 0.2 * np.cross(b - a, c - a) / np.linalg.norm(np.cross(b - a, c - a))
    count = len(mesh.vertices)
    first, second = mesh.faces[0][:2]
    more = [[first, second, count], [second, first, count]]
    return trimesh.Trimesh(
        np.vstack([mesh.vertices, tip]), np.vstack([mesh.faces, more]), process=False
    )


def _split(mesh: trimesh.Trimesh, rng: np.random.Generator) -> trimesh.Trimesh:
    """No shared vertices, as in an stl: welding must undo it."""
    corners = mesh.vertices[mesh.faces].reshape(-1, 3)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)


DAMAGES: dict[str, Damage] = {
    "whole": lambda mesh, rng: mesh,
    "holes": _holes,
    "floaters": _floaters,
    "fins": _fins,
    "split": _split,
}


def judge_by_trimesh(mesh: trimesh.Trimesh) -> dict[str, Any]:
    """The same questions asked of trimesh, on the welded mesh."""
    edges = Counter(map(tuple, mesh.edges_sorted.tolist()))
    closed = bool(mesh.is_watertight)
    parts = trimesh.graph.connected_components(
        mesh.edges_unique, nodes=np.unique(mesh.faces), engine="scipy"
    )
    return {
        "watertight": closed,
        "edge_manifold": max(edges.values()) <= 2,
        "components": len(parts),
        "area": float(mesh.area),
        "volume": float(mesh.volume) if closed else None,
    }


def judge_by_us(mesh: WeldedMesh) -> dict[str, Any]:
    """Our answers."""
    topology = measure_topology(mesh, edge_table(mesh.faces))
    return {
        "watertight": topology.is_watertight,
        "edge_manifold": topology.nonmanifold_edges == 0,
        "components": topology.components,
        "area": mesh.area,
        "volume": mesh.volume if topology.is_watertight else None,
    }


def judge_by_meshlab(mesh: WeldedMesh) -> dict[str, Any]:
    """MeshLab's answers; its components join over edges, ours over vertices."""
    import pymeshlab

    scene = pymeshlab.MeshSet()
    scene.add_mesh(pymeshlab.Mesh(mesh.vertices, mesh.faces.astype(np.int32)))
    topology = scene.get_topological_measures()
    geometry = scene.get_geometric_measures()
    is_manifold = topology["non_two_manifold_edges"] == 0
    closed = is_manifold and topology["boundary_edges"] == 0
    return {
        "watertight": closed,
        "edge_manifold": is_manifold,
        "components": topology["connected_components_number"],
        "area": geometry["surface_area"],
        "volume": geometry.get("mesh_volume") if closed else None,
    }


def agreement(judges: dict[str, Callable[[trimesh.Trimesh, WeldedMesh], dict[str, Any]]]) -> Any:
    """Compare the answers over the corpus: agreeing meshes by judge and question."""
    rng = np.random.default_rng(0)
    count, equal, differing = 0, {name: Counter[str]() for name in judges}, []
    for name, mesh in made_meshes().items():
        for damage, apply in DAMAGES.items():
            raw = apply(mesh, rng)
            welded = weld(raw.vertices, raw.faces)
            ours = judge_by_us(welded)
            count += 1
            for judge, ask in judges.items():
                same = {k: _is_same(ours[k], v) for k, v in ask(raw, welded).items()}
                equal[judge].update(key for key, value in same.items() if value)
                differing += [f"{judge} {name} {damage} {k}" for k, v in same.items() if not v]
    return {"meshes": count, "agreeing": equal, "differing": differing}


def _is_same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= _RELATIVE * max(abs(ours), 1e-9) * 10
    return bool(ours == theirs)


def large_meshes(faces: int = 200_000) -> dict[str, MeshData]:
    """A bumpy solid of about ``faces`` faces, bare and with boxes unwrapped over the texture."""
    side = round((faces / 5.4) ** 0.5)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    field = (
        0.75 - np.sqrt(x**2 + y**2 + z**2) - 0.06 * np.sin(9 * x) * np.sin(8 * y) * np.sin(7 * z)
    )
    vertices, triangles, _, _ = marching_cubes(field, 0.0)
    bare = MeshData((vertices / side - 0.5).astype(np.float32), triangles.astype(np.int32))
    return {"bare": bare, "with UV": _with_uv(bare)}


def _with_uv(mesh: MeshData) -> MeshData:
    """Project each face along its main direction into one of six tiles."""
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normal).argmax(axis=1)
    tile = 2 * axis + (np.take_along_axis(normal, axis[:, None], 1)[:, 0] > 0)
    rows = np.arange(len(corners))[:, None]
    plane = np.stack([(axis + 1) % 3, (axis + 2) % 3], axis=1)
    flat = np.stack([corners[rows, np.arange(3), plane[:, [k]]] for k in (0, 1)], axis=2) + 0.5
    scale = np.array([1 / 3, 1 / 2])
    origin = np.stack([tile % 3, tile // 3], axis=1)[:, None] * scale
    uv = (origin + (0.02 + 0.96 * flat) * scale).reshape(-1, 2)
    faces = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    texture = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    return MeshData(corners.reshape(-1, 3), faces, uv_coords=uv.astype(np.float32), texture=texture)


def speed(runs: int) -> dict[str, Any]:
    """Seconds of an assessment, wall and CPU."""
    found = {}
    assessor = QualityAssessor()
    for name, mesh in large_meshes().items():
        assessor.assess(mesh)
        wall, cpu = [], []
        for _ in range(runs):
            start, begun = time.perf_counter(), time.process_time()
            assessor.assess(mesh)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - begun)
        found[name] = {"faces": len(mesh.faces), "wall": summarize(wall), "cpu": summarize(cpu)}
    return found


def overhead(pairs: int) -> dict[str, Any]:
    """What measuring adds to runs of several lengths, and to each stage within them.

    Every pair does the same work bare and measured, in an order that alternates; the CPU seconds
    of the whole process count, so what the sampling thread takes is in them, and what other
    programs take is not. Opening and closing a measurement is stated apart (``fixed_cpu_s``).
    """
    idle = [_idle_cost(seconds) for seconds in (0.0, 2.0)]
    clock_s = _stage_clock_cost()
    return {
        "runs": {f"{loops} products": _compare_runs(loops, pairs) for loops in (80, 400)},
        "stage_clock_s": clock_s,
        "shortest_stage_within_limit_s": clock_s / OVERHEAD_LIMIT,
        "fixed_cpu_s": round(idle[0], 5),
        "sampler_cpu_share": round((idle[1] - idle[0]) / 2.0, 5),
    }


def _compare_runs(loops: int, pairs: int) -> dict[str, Any]:
    """CPU seconds of ``loops`` staged matrix products, bare and measured, and their ratio."""
    data = np.random.default_rng(0).random((400, 400))
    product = np.empty_like(data)
    clock = StageClock()

    def work() -> float:
        start = time.process_time()
        for _ in range(loops):
            with clock.stage("product"):
                np.matmul(data, data, out=product)
        return time.process_time() - start

    def measured_work() -> float:
        with Measurement(), profiled_stages():
            return work()

    work()
    bare: list[float] = []
    measured: list[float] = []
    for pair in range(pairs):
        first = [(bare, work), (measured, measured_work)]
        for seconds, run in first if pair % 2 else reversed(first):
            seconds.append(run())
    ratios = np.array(measured) / np.array(bare)
    draws = np.random.default_rng(0).choice(ratios, (2000, pairs))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {
        "pairs": pairs,
        "bare": summarize(bare),
        "measured": summarize(measured),
        "median_ratio": round(float(np.median(ratios)), 4),
        "median_ratio_95": [round(float(low), 4), round(float(high), 4)],
        "is_within_limit": bool(high <= 1 + OVERHEAD_LIMIT),
    }


def _stage_clock_cost(entries: int = 20_000) -> float:
    """Seconds that timing one stage takes, while stages are profiled."""
    clock = StageClock()
    with profiled_stages():
        start = time.perf_counter()
        for _ in range(entries):
            with clock.stage("empty"):
                pass
        return round((time.perf_counter() - start) / entries, 8)


def _idle_cost(seconds: float) -> float:
    start = time.process_time()
    with Measurement():
        time.sleep(seconds)
    return time.process_time() - start


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    judges: dict[str, Callable[[trimesh.Trimesh, WeldedMesh], dict[str, Any]]] = {
        "trimesh": lambda raw, _: judge_by_trimesh(
            trimesh.Trimesh(raw.vertices, raw.faces, process=True)
        )
    }
    if importlib.util.find_spec("pymeshlab") is not None:
        judges["meshlab"] = lambda _, welded: judge_by_meshlab(welded)
    result = {
        "what": "mesh assessment: agreement, seconds, cost of measuring",
        "machine": describe_machine(),
        "limit_s": LIMIT_S,
        "overhead_limit": OVERHEAD_LIMIT,
        "agreement": agreement(judges),
        "assessment_200k": speed(arguments.runs),
        "overhead": overhead(8 * arguments.runs),
    }
    print(write_result("mesh_assessment", result))


if __name__ == "__main__":
    main()
