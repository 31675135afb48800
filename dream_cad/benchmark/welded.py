"""Raw mesh arrays made safe to measure: faults counted, then vertices welded by position.

Exporters split vertices at UV seams and an stl shares none, so every measure of connection is
taken after welding. Nothing is repaired beyond that: holes, folds and copies stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.cleanup import WELD_TOLERANCE
from dream_cad.mesh.normals import position_groups

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Doubled area below this part of the squared longest side counts as no area: float32's rounding.
_MIN_RELATIVE_AREA = 1e-12


@dataclass(frozen=True)
class WeldedMesh:
    """Triangles over distinct positions, and what had to be left out.

    Attributes:
        vertices: (V, 3) float64, distinct positions that faces use.
        faces: (F, 3) int64, without out-of-range, non-finite and collapsed faces.
        source: (F,) int64, the row of each face in the raw mesh.
        raw_vertices: vertices given.
        raw_faces: faces given.
        nonfinite_vertices: vertices with NaN or infinite coordinates.
        unusable_faces: faces that point outside the vertices or at non-finite ones.
        collapsed_faces: faces that name one position twice.
    """

    vertices: Floats
    faces: Ints
    source: Ints
    raw_vertices: int
    raw_faces: int
    nonfinite_vertices: int
    unusable_faces: int
    collapsed_faces: int

    @cached_property
    def corners(self) -> Floats:
        """(F, 3, 3) corner positions."""
        return self.vertices[self.faces]

    @cached_property
    def cross(self) -> Floats:
        """(F, 3) normals with the length of twice the area."""
        a, b, c = self.corners.transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    @cached_property
    def doubled_area(self) -> Floats:
        """(F,) twice the area."""
        length: Floats = np.sqrt(np.einsum("fc,fc->f", self.cross, self.cross))
        return length

    @cached_property
    def normals(self) -> Floats:
        """(F, 3) unit normals, zero where a face has no area."""
        length = self.doubled_area[:, None]
        return np.divide(self.cross, length, out=np.zeros_like(self.cross), where=length > 0)

    @property
    def area(self) -> float:
        """Surface in squared file units."""
        return float(self.doubled_area.sum()) / 2

    @property
    def volume(self) -> float:
        """Signed volume (divergence theorem); meaningful where the mesh is closed."""
        if not len(self.faces):
            return 0.0
        a, b, c = (self.corners - self.vertices.mean(axis=0)).transpose(1, 0, 2)
        return float(np.einsum("fc,fc->", a, np.cross(b, c))) / 6

    @cached_property
    def extents(self) -> Floats:
        """(3,) sides of the bounding box; zero for an empty mesh."""
        if not len(self.vertices):
            return np.zeros(3)
        sides: Floats = np.ptp(self.vertices, axis=0)
        return sides

    @property
    def size(self) -> float:
        """Longest side of the bounding box."""
        return float(self.extents.max())

    @cached_property
    def is_flat(self) -> NDArray[np.bool_]:
        """(F,) whether a face has no area for its size: its corners lie on a line."""
        return self.doubled_area <= _MIN_RELATIVE_AREA * self.size**2

    @cached_property
    def duplicate_faces(self) -> int:
        """Faces over the same three positions as an earlier one, in either winding."""
        if not len(self.faces):
            return 0
        ordered = np.sort(self.faces, axis=1)
        return len(ordered) - int(position_groups(ordered.astype(np.float64)).max()) - 1


def weld(
    vertices: NDArray[np.floating[Any]],
    faces: NDArray[np.integer[Any]],
    tolerance: float = WELD_TOLERANCE,
) -> WeldedMesh:
    """Count the faults of a raw mesh and weld what is left.

    Args:
        vertices: (V, 3) float, NaN and infinities allowed.
        faces: (F, 3) integer, any values.
        tolerance: positions in one cell of this part of the longest side become one vertex.
    """
    positions = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
    triangles = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    is_finite = np.asarray(np.isfinite(positions).all(axis=1))
    in_range = ((triangles >= 0) & (triangles < len(positions))).all(axis=1)
    usable = np.flatnonzero(in_range)
    usable = usable[is_finite[triangles[usable]].all(axis=1)]
    used = _used(triangles[usable], len(positions))
    group, kept = _group(positions[used], tolerance)
    number = np.zeros(len(positions), dtype=np.int64)
    number[used] = group
    welded = number[triangles[usable]]
    a, b, c = welded.T
    is_whole = (a != b) & (b != c) & (c != a)
    return _drop_unused(
        WeldedMesh(
            vertices=positions[used][kept],
            faces=welded[is_whole],
            source=usable[is_whole],
            raw_vertices=len(positions),
            raw_faces=len(triangles),
            nonfinite_vertices=int((~is_finite).sum()),
            unusable_faces=len(triangles) - len(usable),
            collapsed_faces=int((~is_whole).sum()),
        )
    )


def _group(positions: Floats, tolerance: float) -> tuple[Ints, Ints]:
    """Return the (N,) welded number of each position and the rows (V,) that stand for them."""
    if not len(positions):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low = positions.min(axis=0)
    step = float((positions.max(axis=0) - low).max()) * tolerance
    keys = np.rint((positions - low) / step) if step > 0 else positions
    group = position_groups(keys).astype(np.int64)
    first = np.zeros(int(group.max()) + 1, dtype=np.int64)
    first[group[::-1]] = np.arange(len(group) - 1, -1, -1)  # the last write is the first row
    return group, first


def _used(faces: Ints, vertices: int) -> Ints:
    """Return the sorted numbers of the vertices that faces use, without sorting the faces."""
    is_used = np.zeros(vertices, dtype=bool)
    is_used[faces.ravel()] = True
    return np.flatnonzero(is_used)


def _drop_unused(mesh: WeldedMesh) -> WeldedMesh:
    """Leave out positions that only collapsed faces used."""
    used = _used(mesh.faces, len(mesh.vertices))
    if len(used) == len(mesh.vertices):
        return mesh
    number = np.zeros(len(mesh.vertices), dtype=np.int64)
    number[used] = np.arange(len(used))
    values = {**vars(mesh), "vertices": mesh.vertices[used], "faces": number[mesh.faces]}
    return WeldedMesh(**values)
