"""Fill what no view has seen: over the mesh, then over the texels (spec section 13)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_RADIUS = 3
_NEAREST = 1e-4


@dataclass(frozen=True)
class TexturedFaces:
    """A mesh and its UVs, each with its own index; the same one where the mesh is split.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int.
        uvs: (T, 2) float32, v up.
        uv_faces: (F, 3) int.
    """

    vertices: Floats
    faces: NDArray[np.int32]
    uvs: Floats
    uv_faces: NDArray[np.int32]


def diffuse_over_mesh(
    texture: Floats, mask: NDArray[np.bool_], mesh: TexturedFaces
) -> tuple[Floats, NDArray[np.bool_]]:
    """Give vertices without colour the mean of their neighbours, and their texels that colour.

    Nothing crosses a seam of a split mesh.

    Args:
        texture: (H, W, 3) float32.
        mask: (H, W), where the texture is painted.
        mesh: v up.

    Returns:
        The texture and the mask with the texels of the new vertices.
    """
    height, width = mask.shape
    column = np.rint(mesh.uvs[:, 0] * (width - 1)).astype(np.int64)[mesh.uv_faces].ravel()
    row = np.rint((1 - mesh.uvs[:, 1]) * (height - 1)).astype(np.int64)[mesh.uv_faces].ravel()
    corners = mesh.faces.ravel().astype(np.int64)
    painted = mask[row, column]
    colors = np.zeros((len(mesh.vertices), 3), dtype=np.float64)
    is_colored = np.zeros(len(mesh.vertices), dtype=np.bool_)
    colors[corners[painted]] = texture[row[painted], column[painted]]
    is_colored[corners[painted]] = True
    ends = np.roll(mesh.faces, -1, axis=1).ravel().astype(np.int64)
    order = np.argsort(corners, kind="stable")
    starts = np.searchsorted(corners[order], np.arange(len(mesh.vertices) + 1))
    _diffuse(
        corners[~painted],
        starts,
        ends[order],
        mesh.vertices.astype(np.float64),
        colors,
        is_colored,
    )
    known = is_colored[corners]
    filled, grown = texture.copy(), mask.copy()
    filled[row[known], column[known]] = colors[corners[known]]
    grown[row[known], column[known]] = True
    return filled, grown


def fill_texels(texture: Floats, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill every texel outside the mask (Navier-Stokes); returns (H, W, 3) uint8, cut off."""
    pixels = (texture * 255).clip(0, 255).astype(np.uint8)
    holes = (~mask).astype(np.uint8) * 255
    filled = cv2.inpaint(pixels, holes, _RADIUS, cv2.INPAINT_NS)
    return np.asarray(filled, dtype=np.uint8)


@numba.njit(cache=True)
def _diffuse(
    wanted: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    vertices: NDArray[np.float64],
    colors: NDArray[np.float64],
    is_colored: NDArray[np.bool_],
) -> None:
    """Colour the wanted vertices in place, in order, until nothing changes for two rounds."""
    counter, last = 2, 0
    while counter > 0:
        left = 0
        for vertex in wanted:
            total, weights = np.zeros(3), 0.0
            for edge in range(starts[vertex], starts[vertex + 1]):
                other = ends[edge]
                if not is_colored[other]:
                    continue
                distance = np.sqrt(((vertices[vertex] - vertices[other]) ** 2).sum())
                weight = 1.0 / max(distance, _NEAREST) ** 2
                total += weight * colors[other]
                weights += weight
            if weights > 0.0:
                colors[vertex] = total / weights
                is_colored[vertex] = True
            else:
                left += 1
        counter = counter - 1 if left == last else counter + 1
        last = left
