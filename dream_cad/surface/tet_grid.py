"""A grid of nearly regular tetrahedra on the unit cube (Stable Fast 3D spec, section 9.1).

Tiles of the A15 lattice are laid over the cube. Tetrahedra that stick out of it are cut at the
cube's sides by moving their outer vertex halfway in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.surface.tet_tile import EDGE, NODES, ORIGIN, TETS

MIN_RESOLUTION, MAX_RESOLUTION = 8, 256
# Lattice coordinates start at ORIGIN and may reach one beyond a tile; codes count half units.
_SHIFT = 1 - ORIGIN
_HALVES = 2


@dataclass(frozen=True)
class TetGrid:
    """Vertices (V, 3) float32 in [0, 1], tetrahedra (T, 4) int32 of positive volume.

    Attributes:
        resolution: lattice units a side.
    """

    resolution: int
    vertices: NDArray[np.float32]
    tets: NDArray[np.int32]


@lru_cache(maxsize=2)
def tet_grid(resolution: int) -> TetGrid:
    """Return the grid of a resolution: 535,882 vertices and 2,971,452 tetrahedra at 160.

    Args:
        resolution: a multiple of four from 8 to 256.

    Raises:
        InvalidConfigError: it is not.
    """
    if resolution % EDGE or not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise InvalidConfigError(
            f"The resolution of the tetrahedral grid is {resolution}; a multiple of {EDGE} from "
            f"{MIN_RESOLUTION} to {MAX_RESOLUTION} was expected."
        )
    lattice = _Lattice(resolution)
    codes = _tile_codes(lattice)
    codes = codes[lattice.is_inside(codes).any(axis=1)]
    codes = _cut(codes, lattice)
    rank, order = _number_by_first_use(codes, lattice)
    vertices = lattice.half_units(order).astype(np.float32) / np.float32(_HALVES * resolution)
    tets = rank[codes]
    for array in (vertices, tets):
        array.setflags(write=False)  # shared by everyone who asks for this resolution
    return TetGrid(resolution, vertices, tets)


@dataclass(frozen=True)
class _Lattice:
    """Points as single numbers: their coordinates in half lattice units, as digits."""

    resolution: int

    @property
    def base(self) -> int:
        return _HALVES * (self.resolution + 2 * _SHIFT) + 1

    def encode(self, half_units: NDArray[np.int32]) -> NDArray[np.int32]:
        shifted = half_units + np.int32(_HALVES * _SHIFT)
        code = (shifted[..., 0] * self.base + shifted[..., 1]) * self.base + shifted[..., 2]
        packed: NDArray[np.int32] = code.astype(np.int32, copy=False)
        return packed

    def half_units(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        rest, z = np.divmod(codes, np.int32(self.base))
        x, y = np.divmod(rest, np.int32(self.base))
        return np.stack([x, y, z], axis=-1) - np.int32(_HALVES * _SHIFT)

    def is_inside(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether points lie strictly inside the cube."""
        inside = np.ones(codes.shape, dtype=bool)
        rest = codes
        for _ in range(3):
            rest, digit = np.divmod(rest, np.int32(self.base))
            half = digit - _HALVES * _SHIFT
            inside &= (half > 0) & (half < _HALVES * self.resolution)
        return inside

    def is_outside(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether points lie beyond the cube's sides."""
        half = self.half_units(codes)
        beyond = (half < 0) | (half > _HALVES * self.resolution)
        return np.asarray(beyond.any(axis=-1))


def _tile_codes(lattice: _Lattice) -> NDArray[np.int32]:
    """Return the points (T, 4) of all tetrahedra, tiles with z outermost and x innermost."""
    tile = lattice.encode((_HALVES * (NODES + ORIGIN)).astype(np.int32))[TETS]
    starts = np.arange(lattice.resolution // EDGE + 1, dtype=np.int32) * (_HALVES * EDGE)
    z, y, x = np.meshgrid(starts, starts, starts, indexing="ij")
    shift = ((x * lattice.base + y) * lattice.base + z).astype(np.int32)
    codes: NDArray[np.int32] = (shift.reshape(-1, 1, 1) + tile).reshape(-1, 4)
    return codes


def _number_by_first_use(
    codes: NDArray[np.int32], lattice: _Lattice
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the number of each code (-1 where unused), and the codes by number."""
    flat = codes.ravel()
    first = np.full(lattice.base**3, -1, dtype=np.int32)
    # Of several writes to one place the last one stays: backwards, that is the first use.
    first[flat[::-1]] = np.arange(len(flat) - 1, -1, -1, dtype=np.int32)
    is_first = first[flat] == np.arange(len(flat), dtype=np.int32)
    order = flat[is_first]
    first[order] = np.arange(len(order), dtype=np.int32)
    return first, order


def _cut(codes: NDArray[np.int32], lattice: _Lattice) -> NDArray[np.int32]:
    """Move outer vertices of (T, 4) onto the cube's sides; the vertices' order is the rule's."""
    number, _ = _number_by_first_use(codes, lattice)
    outside = lattice.is_outside(codes)
    sticking = np.flatnonzero(outside.any(axis=1))
    tets, out = codes[sticking], outside[sticking]
    inner = lattice.is_inside(tets)
    outer_code, inner_code = tets[out], tets[inner]
    middle = lattice.encode((lattice.half_units(outer_code) + lattice.half_units(inner_code)) // 2)
    pair = tets[~(out | inner)].reshape(-1, 2)
    swapped = number[pair[:, 0]] < number[pair[:, 1]]
    pair[swapped] = pair[swapped, ::-1]
    new = np.column_stack([middle, pair, inner_code])
    points = lattice.half_units(new).astype(np.int64)
    sides = points[:, 1:] - points[:, :1]
    volume = np.einsum("tc,tc->t", np.cross(sides[:, 0], sides[:, 1]), sides[:, 2])
    new[volume < 0] = new[volume < 0][:, [1, 0, 2, 3]]
    cut = codes.copy()
    cut[sticking] = new
    return cut
