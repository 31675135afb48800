"""UV unwrapping by projection on the six sides of a box (Stable Fast 3D spec, section 10.3).

Faces are drawn on the side they look at. Where two overlap, the hidden one moves to a second,
smaller layer of that side, and what still overlaps there to single cells of its own. The steps
are functions of their own because the numeric cases check each of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.tangents import published_tangents, unit_vectors
from dream_cad.mesh.unwrap import UvAtlas
from dream_cad.mesh.uv_overlap import overlapping_pairs

SIDES = 6
LEFTOVER = 12  # the block of single cells, after six sides and six second layers
MAX_PADDING = 0.25
# What torch.randn(3, 2) gives after manual_seed(0): the low-rank PCA starts from it, and the signs
# of the axes follow from it.
_PCA_START = torch.tensor(
    [[1.540996075, -0.293428898], [-2.178789377, 0.568431258], [-1.084522367, -1.398595452]]
)
_PCA_ROUNDS = 2
_MIN_NORM = 1e-12
# Which coordinates, with which signs, are u and v on the sides +x -x +y -y +z -z.
_U_AXIS = np.array([1, 1, 0, 0, 0, 0])
_V_AXIS = np.array([2, 2, 2, 2, 1, 1])
_V_SIGN = np.array([-1, -1, -1, -1, 1, -1])
_MIN_LAYER_EXTENT = 0.5
_CELL_FILL = 1.5


def box_project_unwrap(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    normals: NDArray[np.float32],
    *,
    island_padding: float = 0.02,
) -> UvAtlas:
    """Unwrap a mesh as Stable Fast 3D does; about a third of the atlas is used.

    Args:
        vertices: (V, 3) float32, any frame.
        faces: (F, 3) int32.
        normals: (V, 3) float32 unit; a face lies on the side its normals point to, so that
            inward ones work as well.
        island_padding: free rim of each side's square, as a part of the square, 0..0.25.

    Returns:
        An atlas of 3F vertices, one per corner. Triangles of different faces share no area,
        those smaller than 5e-8 of a side's square excepted.

    Raises:
        InvalidConfigError: the padding is out of range.
        ShapeError: the mesh is empty or inconsistent.
    """
    if not 0 <= island_padding <= MAX_PADDING:
        raise InvalidConfigError(
            f"island_padding is {island_padding}; expected 0..{MAX_PADDING} of a side."
        )
    check_mesh(MeshData(vertices, faces))
    if normals.shape != vertices.shape:
        raise ShapeError(f"Normals have shape {normals.shape}; expected {vertices.shape}.")
    positions, directions = align(vertices, normals)
    side, face_uvs = project_on_box(positions, directions, faces)
    face_uvs = rotate_sides(positions, directions, faces, face_uvs, side)
    layer = assign_layers(positions, faces, face_uvs, side)
    placed = place(face_uvs, layer, island_padding=island_padding)
    return split_corners(faces, placed)


def align(
    vertices: NDArray[np.float32], normals: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn a mesh so that its principal axes come nearest to the box's (step a).

    The matrix may be a reflection. Returns positions and normals, (V, 3) float32.
    """
    points = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32))
    directions = torch.from_numpy(np.ascontiguousarray(normals, dtype=np.float32))
    rotation = _box_axes(points)
    return (points @ rotation.T).numpy(), (directions @ rotation.T).numpy()


def _box_axes(points: Tensor) -> Tensor:
    """Return (3, 3): row c is the principal axis that becomes coordinate c."""
    main, second = _principal_axes(points)
    second = normalize(second - (second @ main) * main, dim=0)
    axes = [main, second, normalize(torch.linalg.cross(main, second), dim=0)]
    chosen = [int(axis.abs().argmax()) for axis in axes]
    if len(set(chosen)) < 3:
        chosen[2] = ({0, 1, 2} - set(chosen[:2])).pop()
    if len(set(chosen)) < 3:
        chosen[1] = ({0, 1, 2} - {chosen[0], chosen[2]}).pop()
    rotation = torch.empty(3, 3)
    rotation[chosen] = torch.stack(axes)
    return rotation


def _principal_axes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first two axes as ``torch.pca_lowrank`` does after ``manual_seed(0)``.

    That function draws from the global generator; this one starts from what it would draw.
    """
    centred = points - points.mean(dim=0, keepdim=True)
    basis = torch.linalg.qr(centred @ _PCA_START).Q
    for _ in range(_PCA_ROUNDS):
        basis = torch.linalg.qr(centred.T @ basis).Q
        basis = torch.linalg.qr(centred @ basis).Q
    axes = torch.linalg.svd(basis.T @ centred, full_matrices=False).Vh
    return axes[0], axes[1]


def project_on_box(
    positions: NDArray[np.float32], normals: NDArray[np.float32], faces: NDArray[np.int32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Draw each face on the side of the box that it looks at (step b).

    Returns:
        The sides (F,), 0..5 for +x -x +y -y +z -z, and the corners' UV (F, 3, 2) in [0, 1].
    """
    points = positions.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    cube = (2 * (points - low) / np.where(high > low, high - low, 1.0) - 1)[faces]
    facing = unit_vectors(normals[faces].sum(axis=1))
    side = np.argmax(np.stack([facing, -facing], axis=2).reshape(-1, SIDES), axis=1)
    face = np.arange(len(faces))[:, None]
    corner = np.arange(3)[None]
    u = cube[face, corner, _U_AXIS[side][:, None]]
    v = cube[face, corner, _V_AXIS[side][:, None]] * _V_SIGN[side][:, None]
    depth = np.abs(cube[face, corner, (side // 2)[:, None]]).max(axis=0)
    scale = np.where(depth > 0, depth, 1.0)[:, None]
    return side, np.clip((np.stack([u, v], axis=2) / scale + 1) / 2, 0, 1)


def rotate_sides(
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    faces: NDArray[np.int32],
    face_uvs: NDArray[np.float64],
    side: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Turn each side so that u runs around the up axis, and fill the unit square (step c)."""
    actual = _mean_by_side(published_tangents(positions, faces, face_uvs, normals)[faces], side)
    expected = _mean_by_side(_expected_tangents(positions, normals)[faces], side)
    angle = np.arctan2(
        actual[:, 0] * expected[:, 1] - actual[:, 1] * expected[:, 0],
        np.einsum("sc,sc->s", actual, expected),
    )
    cosine, sine = np.cos(angle)[side, None], np.sin(angle)[side, None]
    u, v = np.moveaxis(2 * face_uvs - 1, 2, 0)
    turned = np.stack([cosine * u - sine * v, sine * u + cosine * v], axis=2)
    low, high = _range_by_group(turned.reshape(len(faces), -1), side, SIDES)
    extent = np.where(high > low, high - low, 1.0)
    scaled: NDArray[np.float64] = (turned - low[side, None, None]) / extent[side, None, None]
    return scaled


def _expected_tangents(
    positions: NDArray[np.float32], normals: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return directions around z on the surface, over their norm with p = -1 (spec, 10.3 c)."""
    around = np.stack([-positions[:, 1], positions[:, 0], np.zeros(len(positions))], axis=1)
    # In float32 as published: that norm turns the rounding of small components into large factors.
    tangent = np.cross(normals, np.cross(around.astype(np.float32), normals))
    with np.errstate(divide="ignore", over="ignore"):
        norm = 1 / (1 / np.abs(tangent)).sum(axis=1, keepdims=True)
    scaled: NDArray[np.float64] = tangent.astype(np.float64) / np.maximum(norm, _MIN_NORM)
    return scaled


def _mean_by_side(values: NDArray[np.floating[Any]], side: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return (6, 3) means over faces and corners of ``values`` (F, 3, 3)."""
    summed = values.sum(axis=1, dtype=np.float64)
    columns = [np.bincount(side, column, minlength=SIDES) for column in summed.T]
    count = np.maximum(np.bincount(side, minlength=SIDES), 1) * 3
    means: NDArray[np.float64] = np.stack(columns, axis=1) / count[:, None]
    return means


def _range_by_group(
    values: NDArray[np.float64], group: NDArray[np.intp], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and largest number (count,) in the rows (N, C) of each group."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, group, values.min(axis=1))
    np.maximum.at(high, group, values.max(axis=1))
    is_empty = low > high
    low[is_empty], high[is_empty] = 0.0, 1.0
    return low, high


def assign_layers(
    positions: NDArray[np.floating[Any]],
    faces: NDArray[np.int32],
    face_uvs: NDArray[np.floating[Any]],
    side: NDArray[np.integer[Any]],
) -> NDArray[np.intp]:
    """Move faces that lie behind others of their side to further layers (step d).

    Returns:
        (F,) 0..5 the sides, 6..11 their second layers, 12 the leftovers.
    """
    layer = side.astype(np.intp)
    centroid = positions[faces].mean(axis=1)
    for candidates in (np.arange(len(faces)), None):
        chosen = np.flatnonzero(layer >= SIDES) if candidates is None else candidates
        pairs = chosen[overlapping_pairs(face_uvs[chosen], layer[chosen])]
        hidden = np.unique(_hidden_of_pairs(pairs, layer, centroid))
        layer[hidden] = np.minimum(layer[hidden] + SIDES, LEFTOVER)
    return layer


def _hidden_of_pairs(
    pairs: NDArray[np.intp], layer: NDArray[np.intp], centroid: NDArray[np.floating[Any]]
) -> NDArray[np.intp]:
    first, second = pairs.T
    group = layer[first]
    axis = (group % SIDES) // 2
    ahead = centroid[first, axis] - centroid[second, axis]
    is_first = np.where(group % 2 == 0, ahead > 0, ahead < 0)
    hidden: NDArray[np.intp] = np.where(is_first, first, second)
    return hidden


def place(
    face_uvs: NDArray[np.floating[Any]],
    layer: NDArray[np.integer[Any]],
    *,
    island_padding: float,
) -> NDArray[np.float64]:
    """Lay the layers side by side in the atlas (step e).

    Args:
        face_uvs: (F, 3, 2) in [0, 1], each side in its own unit square.
        layer: (F,) from ``assign_layers``.
        island_padding: e of the spec.

    Returns:
        (F, 3, 2) in [0, 1].
    """
    uvs = np.array(face_uvs, dtype=np.float64)
    index = np.asarray(layer, dtype=np.intp)
    second = np.flatnonzero((index >= SIDES) & (index < LEFTOVER))
    uvs[second] = _fill_squares(uvs[second], index[second])
    uvs = np.clip(uvs * (1 - 2 * island_padding) + island_padding, 0, 1)
    rest = index == LEFTOVER
    uvs[rest] = _place_in_cells(uvs[rest], island_padding)
    number = np.arange(LEFTOVER + 1)
    is_side, is_rest = number < SIDES, number == LEFTOVER
    divisor_u = np.where(is_side, 3, np.where(is_rest, 2, 6))
    divisor_v = np.where(is_side | is_rest, 3, 6)
    offset_u = np.where(is_rest, 1 / 2, number % 3 / np.where(is_side, 3, 6))
    below = number % SIDES // 3
    offset_v = np.where(is_side, below / 3, np.where(is_rest, 2 / 3, 2 / 3 + below / 6))
    divisor = np.stack([divisor_u, divisor_v], axis=1)[index][:, None]
    offset = np.stack([offset_u, offset_v], axis=1)[index][:, None]
    placed: NDArray[np.float64] = uvs / divisor + offset
    return placed


def _fill_squares(uvs: NDArray[np.float64], index: NDArray[np.intp]) -> NDArray[np.float64]:
    filled = np.empty_like(uvs)
    for axis in range(2):
        low, high = _range_by_group(uvs[..., axis], index, LEFTOVER)
        extent = np.maximum(high - low, _MIN_LAYER_EXTENT)
        filled[..., axis] = (uvs[..., axis] - low[index, None]) / extent[index, None]
    return filled


def _place_in_cells(uvs: NDArray[np.float64], padding: float) -> NDArray[np.float64]:
    """Give each triangle (M, 3, 2) a cell of its own in the unit square."""
    count = len(uvs)
    if count == 0:
        return uvs
    columns = int(np.ceil(0.5 * np.sqrt(6 * count)))
    rows = int(np.ceil(count / columns))
    grid = np.array([columns, rows], dtype=np.float64)
    low, high = uvs.min(axis=1, keepdims=True), uvs.max(axis=1, keepdims=True)
    cells = (uvs - low) / np.maximum(high - low, _CELL_FILL * min(1 / columns, 1 / rows))
    # The published rim eats the whole cell from 100 columns on; ours at most half of it.
    rim = np.minimum(padding * grid / 2, 0.5)
    cells = np.clip(cells * (1 - rim) + rim / 2, 0, 1) / grid
    number = np.arange(count)
    corner = np.stack([number % columns / columns, number // columns / rows], axis=1)
    placed = (cells + corner[:, None]) * (1 - padding) + padding / 2
    return np.asarray(np.clip(placed, 0, 1))


def split_corners(faces: NDArray[np.int32], face_uvs: NDArray[np.floating[Any]]) -> UvAtlas:
    """Give every corner its own vertex (step f): 3F vertices with UV (F, 3, 2)."""
    return UvAtlas(
        vmapping=faces.ravel().astype(np.int64),
        faces=np.arange(faces.size, dtype=np.int32).reshape(faces.shape),
        uvs=face_uvs.reshape(-1, 2).astype(np.float32),
    )
