"""Where a view looks into a texture: UV and footprint of every pixel that shows the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.raster import NO_FACE, edge_functions, rasterize
from dream_cad.mesh.views import View

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class ViewTexels:
    """The pixels of one view that show the mesh.

    Attributes:
        pixel: (P,) int64, ``row * size + column``, ascending.
        uv: (P, 2) float32, v up.
        footprint: (P,) float32 longest extent of the pixel in UV units: times the texture's side
            it is the width in texels that the pixel averages over.
    """

    pixel: NDArray[np.int64]
    uv: NDArray[np.float32]
    footprint: NDArray[np.float32]

    def select(self, mask: NDArray[Any]) -> ViewTexels:
        """Return some of the pixels (P,)."""
        return ViewTexels(self.pixel[mask], self.uv[mask], self.footprint[mask])


def look_into_texture(mesh: MeshData, view: View, size: int) -> ViewTexels:
    """Find the texels that a view of ``size`` pixels a side shows.

    Args:
        mesh: with uv_coords; faces that reach behind the camera are left out.
        view: the camera, in the mesh's frame.
        size: pixels a side.

    Raises:
        ShapeError: the mesh has no UV.
    """
    uvs = mesh.uv_coords
    if uvs is None:
        raise ShapeError("The mesh has no UV coordinates; unwrap it first.")
    places, depth = view.project(mesh.vertices, size)
    screen, distance = places[mesh.faces], depth[mesh.faces]
    shown = rasterize(screen, distance, width=size, height=size).ravel()
    pixel = np.flatnonzero(shown != NO_FACE)
    face = shown[pixel]
    centre = np.asarray(np.stack([pixel % size, pixel // size], axis=1) + 0.5, np.float64)
    # planes over the picture: 1 / z of each corner's share, (F, corner, x y 1)
    planes = edge_functions(screen)
    planes /= np.where((area := planes[:, :, 2].sum(axis=1)) != 0, area, 1.0)[:, None, None]
    planes /= distance[:, :, None]
    corners = np.asarray(uvs[mesh.faces[face]], np.float64)
    uv, slope = _perspective(planes[face], corners, centre)
    return ViewTexels(pixel, uv.astype(np.float32), _major_axis(slope).astype(np.float32))


def _perspective(planes: Doubles, corners: Doubles, centre: Doubles) -> tuple[Doubles, Doubles]:
    """Return UV (P, 2) and its slopes (P, 2 of UV, 2 of the picture) at pixel centres."""
    share = planes[..., 0] * centre[:, :1] + planes[..., 1] * centre[:, 1:] + planes[..., 2]
    total = share.sum(axis=1)[:, None]
    uv = np.einsum("pk,pkc->pc", share, corners) / total
    rise = np.einsum("pkd,pkc->pcd", planes[..., :2], corners)
    total_rise = planes[..., :2].sum(axis=1)
    return uv, (rise - uv[:, :, None] * total_rise[:, None]) / total[:, :, None]


def _major_axis(slope: Doubles) -> Doubles:
    """Return the longer axis (P,) of the ellipses that slopes (P, 2, 2) map circles to."""
    u, v = slope[:, 0], slope[:, 1]
    across, down = u[:, 0] ** 2 + v[:, 0] ** 2, u[:, 1] ** 2 + v[:, 1] ** 2
    mixed = u[:, 0] * u[:, 1] + v[:, 0] * v[:, 1]
    squared = (across + down) / 2 + np.sqrt(((across - down) / 2) ** 2 + mixed**2)
    axis: Doubles = np.sqrt(squared)
    return axis
