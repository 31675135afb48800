"""UV layouts, by drawing their triangles into a grid and by their singular values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dream_cad.benchmark.scores import PERFECT, Score, decay, geometric_mean
from dream_cad.benchmark.welded import Floats, Ints, WeldedMesh
from dream_cad.benchmark.xray import count_crossings, cross_rays
from dream_cad.mesh.normals import position_groups

GRID = 1536
PADDING_GRID = 512
_IN_BOUNDS = 1e-4
_MIN_UV_AREA = 1e-14
_WEIGHTS = {"overlap": 3.0, "coverage": 1.0, "stretch": 1.0, "bounds": 2.0, "padding": 0.5}


@dataclass(frozen=True)
class UvLayout:
    """A layout in the unit square.

    Attributes:
        coverage: part of the square under at least one triangle, 0..1.
        overlap: part of the covered area under two or more, 0..1.
        stretch: area-weighted mean of ``4 / (s² + t² + 1/s² + 1/t²)`` for the singular values s, t
            of the map (symmetric Dirichlet energy, inverted), scaled so that both areas agree:
            1 is isometric, 0 collapsed.
        out_of_bounds: part of the surface whose UV leaves the square.
        flipped: part of the surface with mirrored UV (no defect by itself).
        islands: connected pieces.
        padding: smallest gap between islands in texels of a 1024 texture, within one; None for one
            island.
        texel_density: median texels of a 1024 texture along the longest side of the object.
        density_spread: 95th over 5th percentile of that density over the surface.
    """

    coverage: float
    overlap: float
    stretch: float
    out_of_bounds: float
    flipped: float
    islands: int
    padding: float | None
    texel_density: float
    density_spread: float


def measure_uv(mesh: WeldedMesh, uv: NDArray[np.floating], faces: NDArray[np.integer]) -> UvLayout:
    """Measure the layout of the usable faces.

    Args:
        mesh: the welded mesh.
        uv: (V, 2) float of the raw mesh; NaN counts as out of bounds.
        faces: (F, 3) integer of the raw mesh.
    """
    rows = np.asarray(faces)[mesh.source]
    corners = np.asarray(uv, dtype=np.float64)[rows]
    is_finite = np.asarray(np.isfinite(corners).all(axis=(1, 2)))
    corners = np.where(is_finite[:, None, None], corners, 2.0)
    area = mesh.doubled_area / max(float(mesh.doubled_area.sum()), 1e-300)
    inside = np.asarray(((corners >= -_IN_BOUNDS) & (corners <= 1 + _IN_BOUNDS)).all(axis=(1, 2)))
    coverage, overlap = coverage_and_overlap(corners)
    label, islands = _islands(mesh, corners)
    quality, density = _distortion(mesh, corners)
    quantiles = _weighted_quantiles(density, area, (0.05, 0.5, 0.95))
    return UvLayout(
        coverage=coverage,
        overlap=overlap,
        stretch=float((quality * area).sum()),
        out_of_bounds=float(area[~inside].sum()),
        flipped=float(area[_signed_area(corners) < 0].sum()),
        islands=islands,
        padding=None if islands < 2 else _padding(corners, label),
        texel_density=float(quantiles[1]) * 1024 * mesh.size,
        density_spread=float(quantiles[2] / quantiles[0]) if quantiles[0] > 0 else float("inf"),
    )


def coverage_and_overlap(corners: Floats, grid: int = GRID) -> tuple[float, float]:
    """Return the covered part of the unit square, and the part of that covered twice or more.

    Args:
        corners: (F, 3, 2) float64.
        grid: sample points a side.
    """
    count = count_crossings(_lift(corners), 2, np.zeros(3), 1.0, grid)
    covered = int((count > 0).sum())
    return covered / grid**2, float((count > 1).sum()) / covered if covered else 0.0


def score_uv(layout: UvLayout | None) -> Score:
    """Score a layout: the geometric mean of five parts, 0 without UV.

    Overlap ``100 (1 - o) / (1 + 10 o)`` (weight 3), bounds ``100 (1 - b) / (1 + 5 b)`` (2),
    coverage ``100 min(1, c / 0.6)`` (1), stretch ``100 min(1, s / 0.8)`` (1) and padding
    ``100 min(1, (p + 1) / 5)`` for p texels of a 1024 texture (1/2).
    """
    if layout is None:
        return Score(0.0, "No UV coordinates.")
    padding = 4.0 if layout.padding is None else layout.padding
    parts = {
        "overlap": PERFECT * (1 - layout.overlap) * decay(layout.overlap, 0.1),
        "bounds": PERFECT * max(1 - layout.out_of_bounds, 0) * decay(layout.out_of_bounds, 0.2),
        "coverage": PERFECT * min(1.0, layout.coverage / 0.6),
        "stretch": PERFECT * min(1.0, layout.stretch / 0.8),
        "padding": PERFECT * min(1.0, (padding + 1) / 5),
    }
    gap = "one island" if layout.padding is None else f"smallest gap {layout.padding:.1f} texels"
    reason = (
        f"Coverage {layout.coverage:.1%}, overlap {layout.overlap:.1%} of it, isometry "
        f"{layout.stretch:.2f} of 1, {layout.out_of_bounds:.1%} out of bounds, "
        f"{layout.islands} islands, {gap}."
    )
    return Score(geometric_mean(parts, _WEIGHTS), reason)


def _lift(corners: Floats) -> Floats:
    return np.concatenate([corners, np.zeros((len(corners), 3, 1))], axis=2)


def _signed_area(corners: Floats) -> Floats:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area: Floats = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return area


def _islands(mesh: WeldedMesh, corners: Floats) -> tuple[Ints, int]:
    """Return the island (F,) of each face; faces join where position and UV both agree."""
    if not len(mesh.faces):
        return np.zeros(0, dtype=np.int64), 0
    keys = np.concatenate([mesh.faces[..., None], np.rint(corners * 2**20)], axis=2)
    group = position_groups(keys.reshape(-1, 3)).reshape(-1, 3)
    size = int(group.max()) + 1
    start, end = group[:, :2].ravel(), group[:, 1:].ravel()
    graph = coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(size, size))
    count, label = connected_components(graph, directed=False)
    return label[group[:, 0]].astype(np.int64), int(count)


def _distortion(mesh: WeldedMesh, corners: Floats) -> tuple[Floats, Floats]:
    """Return isometry (F,) in 0..1 and the UV length a unit of length (F,)."""
    a, b, c = mesh.corners.transpose(1, 0, 2)
    first, second = b - a, c - a
    length = np.maximum(np.linalg.norm(first, axis=1), 1e-300)
    x = np.einsum("fc,fc->f", second, first) / length
    y = mesh.doubled_area / length
    du, dv = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    uv_area = np.abs(_signed_area(corners))
    usable = ~mesh.is_flat & (uv_area > _MIN_UV_AREA)
    along = du / length[:, None]
    across = (dv - along * x[:, None]) / np.where(y > 0, y, 1)[:, None]
    scale = float(uv_area.sum()) / max(mesh.area, 1e-300)
    squares = (along**2 + across**2).sum(axis=1) / max(scale, 1e-300)  # s² + t²
    product = (2 * uv_area / np.where(usable, mesh.doubled_area, 1)) / max(scale, 1e-300)  # s t
    energy = squares * (1 + 1 / np.where(usable, product, 1) ** 2)
    quality = np.where(usable, 4 / np.maximum(energy, 4), 0.0)
    density = np.sqrt(np.where(usable, product * scale, 0.0))
    return quality, density


def _weighted_quantiles(values: Floats, weights: Floats, at: tuple[float, ...]) -> Floats:
    if not len(values):
        return np.zeros(len(at))
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    index = np.searchsorted(total, np.array(at) * total[-1])
    found: Floats = values[order][np.minimum(index, len(values) - 1)]
    return found


def _padding(corners: Floats, label: Ints) -> float:
    """Return the smallest gap between islands in texels of a 1024 texture."""
    hits = cross_rays(_lift(corners), 2, np.zeros(3), 1.0, PADDING_GRID)
    texels = np.full(PADDING_GRID**2, -1, dtype=np.int64)
    texels[hits.ray] = label[hits.face]
    owner = texels.reshape(PADDING_GRID, PADDING_GRID)
    if (owner < 0).all():
        return 0.0
    distance, nearest = distance_transform_edt(owner < 0, return_indices=True)
    territory = owner[nearest[0], nearest[1]]
    gaps = []
    for axis in (0, 1):
        low = [slice(None), slice(None)]
        high = [slice(None), slice(None)]
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        border = territory[tuple(low)] != territory[tuple(high)]
        gaps.append((distance[tuple(low)] + distance[tuple(high)])[border])
    found = np.concatenate(gaps)
    return float(found.min()) * 1024 / PADDING_GRID if len(found) else 0.0
