"""Textures from fields: which point of the surface each texel shows, and its colour.

The rules are those of TripoSR's baking (its spec, section 10): first a border is drawn around every
triangle, so that bilinear look-ups at seams find colour, then the triangles on top. Later
primitives win over earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError, ShapeError
from dream_cad.mesh.raster import NO_FACE, barycentric, rasterize
from dream_cad.mesh.tangents import encode_tangent_space
from dream_cad.mesh.texels import TexelMap
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
    weights = barycentric(screen, depth, primitive, centres.astype(np.float64))
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

    Raises:
        GenerationError: a colour is NaN or infinite.
    """
    texture = np.zeros(positions.shape, dtype=np.uint8)
    points = positions[coverage]
    colors = np.empty(points.shape, dtype=np.uint8)
    for start in range(0, len(points), _POINTS_PER_QUERY):
        part = slice(start, start + _POINTS_PER_QUERY)
        values = color_at(points[part])
        if not np.isfinite(values).all():
            raise GenerationError(
                "The field gave colours that are not finite; expected numbers from 0 to 1.",
                hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
            )
        colors[part] = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    texture[coverage] = colors
    return texture


def bake_normal_map(
    texels: TexelMap,
    directions: NDArray[np.floating[Any]],
    normals: NDArray[np.floating[Any]],
    tangents: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Lay wanted normals into a map in tangent space.

    Args:
        texels: where the layout shows the surface.
        directions: (P, 3) wanted normals at the covered texels, any length.
        normals: (V, 3) of the vertices, as the exported file has them.
        tangents: (V, 3) or (V, 4) of the vertices, from ``vertex_tangents`` for glTF.

    Returns:
        (T, T, 3) float32 in [0, 1]; zero where nothing is covered, as ``dilate`` wants it.

    Raises:
        ShapeError: the directions are not finite or not one per covered texel.
    """
    if directions.shape != (len(texels.index), 3) or not np.isfinite(directions).all():
        raise ShapeError(
            f"Directions have shape {directions.shape}; expected ({len(texels.index)}, 3) finite."
        )
    encoded = encode_tangent_space(
        directions, texels.interpolate(normals), _signed(texels, tangents)
    )
    return texels.to_image(encoded)


def _signed(texels: TexelMap, tangents: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Interpolate tangents; the sign is that of the island, hence of any corner."""
    mixed = texels.interpolate(tangents)
    if tangents.shape[1] == 4:
        mixed[:, 3] = tangents[texels.corners[:, 0], 3]
    return mixed


def _border_strips(corners: NDArray[np.float64], half_width: float) -> NDArray[np.float64]:
    """Return (F, 12, 2): both sides of both ends of the three edges of faces (F, 3, 2)."""
    end = np.roll(corners, -1, axis=1)
    along = end - corners
    length = np.linalg.norm(along, axis=2, keepdims=True)
    along = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    side = np.stack([-along[..., 1], along[..., 0]], axis=-1) * half_width
    quads = np.stack([corners + side, corners - side, end + side, end - side], axis=2)
    return quads.reshape(len(corners), 12, 2)
