"""Textures of meshes made from Gaussians: every texel takes the colour of the splats there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.packed_unwrap import packed_unwrap
from dream_cad.mesh.texels import rasterize_texels

ColorAt = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Colours (P, 3) in [0, 1] at points (P, 3)."""

_DILATION_TEXELS = 2


def dilate_nearest(
    image: NDArray[np.floating[Any]], mask: NDArray[np.bool_], distance: float = _DILATION_TEXELS
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Give texels near the islands the colour of the nearest filled texel.

    Args:
        image: (H, W, C).
        mask: (H, W), the filled texels.
        distance: how far colour grows, in texels.

    Returns:
        The wider image and mask.

    Raises:
        ShapeError: image and mask differ in size, or nothing is filled.
    """
    if image.shape[:2] != mask.shape or not mask.any():
        raise ShapeError(
            f"Image {image.shape} and mask {mask.shape} are not (H, W, C) and (H, W), "
            "or the mask is empty."
        )
    far, (row, column) = ndimage.distance_transform_edt(~mask, return_indices=True)
    grown = far <= distance
    wider = image.copy()
    wider[grown] = image[row[grown], column[grown]]
    return wider, grown


def texture_from_colors(mesh: MeshData, color_at: ColorAt, texture_size: int) -> MeshData:
    """Unwrap a mesh and fill its texture.

    Args:
        mesh: in the frame of ``color_at``.
        color_at: colours of points on the surface.
        texture_size: T, texels a side.

    Returns:
        The mesh with vertices split at seams, uv_coords (v up) and texture (T, T, 3) uint8, and
        no vertex colours.

    Raises:
        GenerationError: the islands do not fit into the texture.
    """
    padding = max(2, texture_size // 256)
    atlas = packed_unwrap(mesh.vertices, mesh.faces, texture_size=texture_size, padding=padding)
    vertices = mesh.vertices[atlas.vmapping]
    texels = rasterize_texels(atlas.faces, atlas.uvs, texture_size=texture_size)
    image = texels.to_image(color_at(texels.interpolate(vertices)))
    image, _ = dilate_nearest(image, texels.mask, max(_DILATION_TEXELS, padding))
    return replace(
        mesh,
        vertices=vertices,
        faces=atlas.faces,
        uv_coords=atlas.uvs,
        vertex_colors=None,
        texture=np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8),
    )
