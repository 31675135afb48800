"""What each texel of a UV layout shows: a face and a place on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.raster import covered_pixels, edge_functions
from dream_cad.mesh.unwrap import check_texture_size

# Viewers look colours up at the centres of texels. Stable Fast 3D bakes at their upper left
# corners (spec, section 11): half a texel off, and needed to compare with it.
SamplePoint = Literal["center", "corner"]
_SHIFT: dict[SamplePoint, float] = {"center": 0.0, "corner": 0.5}


@dataclass(frozen=True)
class TexelMap:
    """The texels that show the surface, and where on it they lie.

    Attributes:
        size: T, texels a side.
        index: (P,) int64 ascending, ``row * T + column`` of the covered texels; row 0 is v = 1.
        corners: (P, 3) int32, the vertices of the face that each shows.
        weights: (P, 3) float32 barycentric, in [0, 1].
        face: (P,) int32 the face's number.
    """

    size: int
    index: NDArray[np.int64]
    corners: NDArray[np.int32]
    weights: NDArray[np.float32]
    face: NDArray[np.int32]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(T, T) bool, True at covered texels."""
        covered = np.zeros(self.size**2, dtype=bool)
        covered[self.index] = True
        return covered.reshape(self.size, self.size)

    def interpolate(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return attributes (P, C) at the covered texels from those of the vertices (V, C)."""
        mixed = self.weights[:, :1] * values[self.corners[:, 0]]
        for corner in (1, 2):
            mixed += self.weights[:, corner, None] * values[self.corners[:, corner]]
        return mixed.astype(np.float32, copy=False)

    def to_image(self, values: NDArray[Any], background: Any = 0) -> NDArray[Any]:
        """Lay values (P, C) of the covered texels into an image (T, T, C) of their dtype."""
        image = np.empty((self.size**2, values.shape[1]), dtype=values.dtype)
        image[:] = background
        image[self.index] = values
        return image.reshape(self.size, self.size, -1)


def rasterize_texels(
    faces: NDArray[np.int32],
    uvs: NDArray[np.float32],
    *,
    texture_size: int,
    sample_at: SamplePoint = "center",
) -> TexelMap:
    """Find the face under every texel.

    Args:
        faces: (F, 3) int32.
        uvs: (V, 2) in [0, 1], v up.
        texture_size: T, texels a side.
        sample_at: "center", or "corner" for the published rule that texel (row r, column c) shows
            uv = (c / T, 1 - r / T).

    Returns:
        The covered texels; rims count as inside. Where faces overlap, the last one wins.

    Raises:
        InvalidConfigError: the size is out of range.
        ShapeError: the faces name vertices without UV.
    """
    check_texture_size(texture_size, 0)
    if len(faces) and int(faces.max()) >= len(uvs):
        raise ShapeError(f"Faces name vertex {int(faces.max())}; there are {len(uvs)} UV pairs.")
    screen = texel_space(uvs, texture_size, sample_at)[faces]
    shown = np.full(texture_size**2, -1, dtype=np.int32)
    for face, pixel in covered_pixels(screen, width=texture_size, height=texture_size):
        shown[pixel] = face
    index = np.flatnonzero(shown >= 0)
    seen = shown[index]
    weights = _weights(screen, seen, index, texture_size)
    return TexelMap(texture_size, index, faces[seen], weights, seen)


def count_overlaps(
    faces: NDArray[np.int32], uvs: NDArray[np.float32], *, texture_size: int
) -> tuple[int, int]:
    """Count texels whose centre lies properly inside several faces, and covered texels.

    Centres nearer than a thousandth of a texel to a face's rim belong to no face here, so that
    neighbours on a shared edge do not count.

    Returns:
        (texels in two or more faces, texels in one or more).
    """
    screen = texel_space(uvs, texture_size, "center")[faces]
    hits = np.zeros(texture_size**2, dtype=np.int32)
    edges = edge_functions(screen)
    length = np.linalg.norm(edges[..., :2], axis=2)
    for face, pixel in covered_pixels(screen, width=texture_size, height=texture_size):
        centre = np.stack(
            [pixel % texture_size, pixel // texture_size, np.full(len(pixel), 0.5)], 1
        )
        centre[:, :2] += 0.5
        centre[:, 2] = 1.0
        distance = np.abs(np.einsum("pec,pc->pe", edges[face], centre))
        is_inside = (distance > _RIM * length[face]).all(axis=1)
        hits += np.bincount(pixel[is_inside], minlength=len(hits)).astype(np.int32)
    return int((hits > 1).sum()), int((hits > 0).sum())


_RIM = 1e-3


def texel_space(
    uvs: NDArray[np.floating[Any]], texture_size: int, sample_at: SamplePoint
) -> NDArray[np.float64]:
    """Return (V, 2) columns and rows whose integers plus one half are the sample points."""
    shift = _SHIFT[sample_at]
    wide = uvs.astype(np.float64)
    return np.stack([wide[:, 0] * texture_size, (1 - wide[:, 1]) * texture_size], axis=1) + shift


def _weights(
    screen: NDArray[np.float64], face: NDArray[np.int32], index: NDArray[np.intp], size: int
) -> NDArray[np.float32]:
    edges = edge_functions(screen)
    edges /= np.where((area := edges[:, :, 2].sum(axis=1)) != 0, area, 1.0)[:, None, None]
    x, y = (index % size + 0.5)[:, None], (index // size + 0.5)[:, None]
    chosen = edges[face]
    weights = np.clip(chosen[..., 0] * x + chosen[..., 1] * y + chosen[..., 2], 0, 1)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)
