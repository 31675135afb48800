"""A mesh against its ground truth: Chamfer distance, F-score, volume IoU, normal consistency.

Distances are taken between points drawn evenly over both surfaces, in parts of the longest side of
the truth's bounding box. Definitions: F-score after Knapitsch et al. 2017 (Tanks and Temples),
normal consistency after Mescheder et al. 2019 (Occupancy Networks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dream_cad.benchmark.aspects.topology import edge_table, measure_topology
from dream_cad.benchmark.welded import Floats, WeldedMesh, weld
from dream_cad.benchmark.xray import occupancy
from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.data import MeshData

THRESHOLDS = (0.01, 0.02, 0.05)
MAX_SAMPLES = 2_000_000
GRID = 96
_MARGIN = 0.02  # the grid reaches this part beyond both meshes


@dataclass(frozen=True)
class ReferenceMetrics:
    """How near a mesh comes to the truth; lengths are parts of the truth's longest side.

    Attributes:
        chamfer: mean of the two mean distances to the nearest point of the other surface.
        chamfer_squared: the same with squared distances.
        hausdorff_95: larger of the two 95th percentiles of those distances.
        f_score: by threshold, harmonic mean of precision and recall, 0..1.
        precision: by threshold, part of the mesh's points that near to the truth.
        recall: by threshold, part of the truth's points that near to the mesh.
        volume_iou: intersection over union of the insides on a grid; None unless both are closed.
        normal_consistency: mean over both directions of the absolute cosine between the normals
            at nearest points, 0..1.
        samples: points drawn on each surface.
    """

    chamfer: float
    chamfer_squared: float
    hausdorff_95: float
    f_score: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    volume_iou: float | None
    normal_consistency: float
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)


def compare_to_reference(
    mesh: MeshData,
    truth: MeshData,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    samples: int = 20_000,
    normalize: bool = True,
    seed: int = 0,
) -> ReferenceMetrics:
    """Compare a mesh with its ground truth.

    Args:
        mesh: what was made.
        truth: what it should be, in the same orientation.
        thresholds: distances of the F-score, positive parts of the truth's longest side.
        samples: points drawn on each surface, 100..2,000,000.
        normalize: centre both bounding boxes and scale their longest sides to one first.
        seed: of the points; the same one gives the same numbers.

    Raises:
        InvalidConfigError: a number is out of range.
        ShapeError: a mesh has no usable face.
    """
    if not 100 <= samples <= MAX_SAMPLES:
        raise InvalidConfigError(f"samples is {samples}; expected 100..{MAX_SAMPLES}.")
    if not thresholds or not all(0 < value < np.inf for value in thresholds):
        raise InvalidConfigError(f"thresholds are {thresholds}; expected positive numbers.")
    found, target = _prepared(mesh, "mesh"), _prepared(truth, "truth")
    scale = 1 / target.size
    found = _placed(found, 1 / found.size if normalize else scale, centered=normalize)
    target = _placed(target, scale, centered=normalize)
    forward, backward, consistency = _nearest(found, target, samples, seed)
    precision = {f"{value:g}": float((forward < value).mean()) for value in thresholds}
    recall = {f"{value:g}": float((backward < value).mean()) for value in thresholds}
    tails = (np.quantile(forward, 0.95), np.quantile(backward, 0.95))
    return ReferenceMetrics(
        chamfer=float(forward.mean() + backward.mean()) / 2,
        chamfer_squared=float((forward**2).mean() + (backward**2).mean()) / 2,
        hausdorff_95=float(max(tails)),
        f_score={key: _harmonic(precision[key], recall[key]) for key in precision},
        precision=precision,
        recall=recall,
        volume_iou=volume_iou(found, target),
        normal_consistency=consistency,
        samples=samples,
    )


def volume_iou(first: WeldedMesh, second: WeldedMesh, grid: int = GRID) -> float | None:
    """Return the intersection over union of two insides on ``grid``³ cells.

    None unless both surfaces are closed; 0 where neither encloses a cell's centre.
    """
    if not all(measure_topology(m, edge_table(m.faces)).is_watertight for m in (first, second)):
        return None
    vertices = np.concatenate([first.vertices, second.vertices])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = float((high - low).max()) * (1 + 2 * _MARGIN)
    corner = (low + high - side) / 2
    a, b = (occupancy(mesh.corners, corner, side, grid) for mesh in (first, second))
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def sample_surface(mesh: WeldedMesh, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw points evenly over a surface.

    Returns:
        (count, 3) positions and (count, 3) unit normals of their faces.
    """
    weight = np.cumsum(mesh.doubled_area)
    # Evenly spaced with one random shift: every face gets its share, so the spread is small.
    at = (np.arange(count) + rng.random()) / count * weight[-1]
    face = np.minimum(np.searchsorted(weight, at, side="right"), len(mesh.faces) - 1)
    u, v = rng.random((2, count, 1))
    is_outside = u + v > 1
    u, v = np.where(is_outside, 1 - u, u), np.where(is_outside, 1 - v, v)
    a, b, c = mesh.corners[face].transpose(1, 0, 2)
    return a + u * (b - a) + v * (c - a), mesh.normals[face]


def _prepared(mesh: MeshData, name: str) -> WeldedMesh:
    welded = weld(mesh.vertices, mesh.faces)
    if not len(welded.faces) or welded.area == 0:
        raise ShapeError(f"The {name} has no usable face; expected a surface.")
    return welded


def _placed(mesh: WeldedMesh, scale: float, *, centered: bool) -> WeldedMesh:
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    middle: NDArray[np.float64] = (low + high) / 2 if centered else np.zeros(3)
    return weld((mesh.vertices - middle) * scale, mesh.faces)


def _nearest(
    found: WeldedMesh, target: WeldedMesh, samples: int, seed: int
) -> tuple[Floats, Floats, float]:
    """Return distances mesh → truth and truth → mesh (S,), and the normal consistency."""
    rng = np.random.default_rng(seed)
    points, normals = sample_surface(found, samples, rng)
    truth, truth_normals = sample_surface(target, samples, rng)
    forward, at_truth = cKDTree(truth).query(points)
    backward, at_found = cKDTree(points).query(truth)
    there = np.abs(np.einsum("nc,nc->n", normals, truth_normals[at_truth])).mean()
    back = np.abs(np.einsum("nc,nc->n", truth_normals, normals[at_found])).mean()
    return forward, backward, float(there + back) / 2


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
