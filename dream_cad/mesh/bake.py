"""Textures from fields: which point of the surface each texel shows, and its colour.

The rules are those of TripoSR's baking (its spec, section 10): first a border is drawn around every
triangle, so that bilinear look-ups at seams find colour, then the triangles on top. Later
primitives win over earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.raster import NO_FACE, barycentric, rasterize
from dream_cad.mesh.unwrap import check_texture_size

# Corners of a face at the 12 points of its border strip, two a point: along three edges and round.
_STRIP_CORNERS = np.repeat([0, 1, 1, 2, 2, 0], 2)
_STRIP_TRIANGLES = np.arange(10)[:, None] + np.arange(3)
_POINTS_PER_QUERY = 65_536


def rasterize_positions(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    uvs: NDArray[np.float32],
    *,
    texture_size: int,
    padding: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw the surface into its texture, each texel holding the point that it shows.

    Args:
        vertices: (V', 3) positions of the atlas' vertices, any frame.
        faces: (F, 3) int32.
        uvs: (V', 2) in [0, 1].
        texture_size: T, texels a side.
        padding: width of the border in texels; half of it lies outside each edge.

    Returns:
        positions (T, T, 3) float32, zero where nothing is, and coverage (T, T) bool. Row 0 is
        v = 0.

    Raises:
        InvalidConfigError: a size is out of range.
        ShapeError: vertices and UV coordinates differ in number.
    """
    check_texture_size(texture_size, padding)
    if len(uvs) != len(vertices):
        raise ShapeError(f"{len(uvs)} UV coordinates for {len(vertices)} vertices.")
    corners = uvs[faces].astype(np.float64) * texture_size
    strips = _border_strips(corners, padding / 2)
    strip_points = vertices[faces][:, _STRIP_CORNERS]
    screen = np.concatenate([strips[:, _STRIP_TRIANGLES].reshape(-1, 3, 2), corners])
    points = np.concatenate([strip_points[:, _STRIP_TRIANGLES].reshape(-1, 3, 3), vertices[faces]])
    # The later a primitive, the nearer: whole numbers, which float32 holds exactly to 2^24.
    order = np.arange(len(screen), 0, -1, dtype=np.float64)
    depth = np.repeat(order[:, None], 3, axis=1)
    drawn = rasterize(screen, depth, width=texture_size, height=texture_size).ravel()
    covered = np.flatnonzero(drawn != NO_FACE)
    primitive = drawn[covered]
    centres = np.stack([covered % texture_size, covered // texture_size], axis=1) + 0.5
    weights = barycentric(screen[primitive], depth[primitive], centres.astype(np.float64))
    positions = np.zeros((texture_size**2, 3), dtype=np.float32)
    positions[covered] = np.einsum("pk,pkc->pc", weights, points[primitive])
    coverage = (drawn != NO_FACE).reshape(texture_size, texture_size)
    return positions.reshape(texture_size, texture_size, 3), coverage


def bake_texture(
    color_at: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    positions: NDArray[np.float32],
    coverage: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Colour the covered texels.

    Args:
        color_at: gives colours (P, 3) in [0, 1] at points (P, 3) float32; called in parts.
        positions: (T, T, 3) from ``rasterize_positions``.
        coverage: (T, T) bool.

    Returns:
        (T, T, 3) uint8, truncated as the published code does; zero where nothing is covered.
    """
    texture = np.zeros(positions.shape, dtype=np.uint8)
    points = positions[coverage]
    colors = np.empty(points.shape, dtype=np.uint8)
    for start in range(0, len(points), _POINTS_PER_QUERY):
        part = slice(start, start + _POINTS_PER_QUERY)
        colors[part] = (np.clip(color_at(points[part]), 0, 1) * 255).astype(np.uint8)
    texture[coverage] = colors
    return texture


def _border_strips(corners: NDArray[np.float64], half_width: float) -> NDArray[np.float64]:
    """Return (F, 12, 2): both sides of both ends of the three edges of faces (F, 3, 2)."""
    end = np.roll(corners, -1, axis=1)
    along = end - corners
    length = np.linalg.norm(along, axis=2, keepdims=True)
    along = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    side = np.stack([-along[..., 1], along[..., 0]], axis=-1) * half_width
    quads = np.stack([corners + side, corners - side, end + side, end - side], axis=2)
    return quads.reshape(len(corners), 12, 2)
