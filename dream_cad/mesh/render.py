"""Pictures of meshes with no display and no GPU: a numpy rasteriser with soft studio light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.color import linear_to_srgb, sample_texture, srgb_to_linear
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import corner_normals
from dream_cad.mesh.raster import NO_FACE, barycentric, rasterize, seen_faces

FIRST_AZIMUTH_DEG = 35.0  # a three-quarter view shows front, side and top
_FIELD_OF_VIEW_DEG = 30.0
_SUPERSAMPLING = 2
_MARGIN = 0.92  # part of the picture that the object may fill
_MAX_SIZE = 4096
_MAX_VIEWS = 64
# Views drawn at once: a small mesh costs calls of numpy, not pixels; a large one costs memory.
_FACES_AT_ONCE = 50_000
_PIXELS_AT_ONCE = 3_000_000
_BACKGROUND = np.array([246, 246, 248], dtype=np.float32)
_CLAY = np.array([190, 188, 184], dtype=np.uint8)

# Directions in the camera frame (x right, y up, z towards the camera).
_KEY = np.array([-0.45, 0.65, 0.62])
_FILL = np.array([0.75, 0.1, 0.55])
_CREASE_DEG = 40.0  # corners sharper than this are shaded flat, so boxes look like boxes
_KEY_STRENGTH, _FILL_STRENGTH, _AMBIENT = 0.75, 0.25, 0.28


def render_turntable(
    mesh: MeshData, *, views: int = 4, size: int = 384, elevation_deg: float = 20.0
) -> NDArray[np.uint8]:
    """Render the object from ``views`` equally spaced sides, beginning at a three-quarter view.

    Args:
        mesh: in the exported frame (+Y up, front +Z); any position and scale.
        views: pictures side by side, 1..64.
        size: height and width of each in pixels, 16..4096.
        elevation_deg: height of the camera above the horizon, -90..90.

    Returns:
        (size, views * size, 3) uint8 sRGB on a light neutral background.

    Raises:
        InvalidConfigError: a number is out of range.
        ShapeError: the mesh is inconsistent. A mesh with no faces gives the bare background.
    """
    if not 1 <= views <= _MAX_VIEWS:
        raise InvalidConfigError(f"views is {views}; expected 1..{_MAX_VIEWS}.")
    azimuths = [FIRST_AZIMUTH_DEG + 360.0 * k / views for k in range(views)]
    pictures = _render(mesh, azimuths, size=size, elevation_deg=elevation_deg)
    return np.concatenate([_on_background(picture) for picture in pictures], axis=1)


def render_view(
    mesh: MeshData, *, size: int, azimuth_deg: float, elevation_deg: float
) -> NDArray[np.uint8]:
    """Render one view.

    Args:
        mesh: as for ``render_turntable``.
        size: height and width in pixels, 16..4096.
        azimuth_deg: 0 sees the front (camera on +Z), 90 the side at +X.
        elevation_deg: height of the camera above the horizon, -90..90.

    Returns:
        (size, size, 4) uint8 sRGB with straight alpha, transparent where nothing is.

    Raises:
        InvalidConfigError: a number is out of range.
        ShapeError: the mesh is inconsistent.
    """
    return _render(mesh, [azimuth_deg], size=size, elevation_deg=elevation_deg)[0]


def _render(
    mesh: MeshData, azimuths: list[float], *, size: int, elevation_deg: float
) -> list[NDArray[np.uint8]]:
    check_mesh(mesh, allow_empty=True)
    if not 16 <= size <= _MAX_SIZE:
        raise InvalidConfigError(f"size is {size} pixels; expected 16..{_MAX_SIZE}.")
    if not -90 <= elevation_deg <= 90 or not all(math.isfinite(a) for a in azimuths):
        raise InvalidConfigError(
            f"The view is azimuth {azimuths}, elevation {elevation_deg} degrees; "
            "expected finite angles and an elevation of -90..90."
        )
    if len(mesh.faces) == 0:
        return [np.zeros((size, size, 4), dtype=np.uint8) for _ in azimuths]
    rotations = [_camera_rotation(azimuth, elevation_deg) for azimuth in azimuths]
    projected = [_project(mesh.vertices, rotation) for rotation in rotations]
    extent = max(float(np.abs(position).max()) for position, _ in projected)
    normals = corner_normals(mesh.vertices, mesh.faces, _CREASE_DEG)
    views = [
        _View(rotation, position * (_MARGIN / extent), depth)
        for rotation, (position, depth) in zip(rotations, projected, strict=True)
    ]
    return [
        picture
        for part in _groups(len(views), len(mesh.faces), size)
        for picture in _pictures(mesh, views[part], normals, size)
    ]


@dataclass(frozen=True)
class _View:
    """A camera, and where the vertices are for it: (V, 2) in -1..1 with y up, (V,) depths."""

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    depth: NDArray[np.float64]


def _groups(views: int, faces: int, size: int) -> list[slice]:
    """Divide the views into groups that are drawn at once: small pictures of small meshes."""
    pixels = (size * _SUPERSAMPLING) ** 2
    together = max(1, min(_FACES_AT_ONCE // faces, _PIXELS_AT_ONCE // pixels))
    return [slice(begin, begin + together) for begin in range(0, views, together)]


def _camera_rotation(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """Return (3, 3) world -> camera: rows right, up, and back (from the object to the camera)."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    sin_a, cos_a = math.sin(azimuth), math.cos(azimuth)
    sin_e, cos_e = math.sin(elevation), math.cos(elevation)
    return np.array(
        [
            [cos_a, 0.0, -sin_a],
            [-sin_e * sin_a, cos_e, -sin_e * cos_a],
            [cos_e * sin_a, sin_e, cos_e * cos_a],
        ]
    )


def _project(
    vertices: NDArray[np.float32], rotation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (V, 2) positions on the image plane, y up, and (V,) distances along the axis."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centred = vertices.astype(np.float64) - (low.astype(np.float64) + high) / 2
    radius = float(np.linalg.norm(centred, axis=1).max()) or 1.0
    camera = centred @ rotation.T
    distance = radius / math.sin(math.radians(_FIELD_OF_VIEW_DEG) / 2)
    depth = distance - camera[:, 2]
    # The margin divides by the extent: keep it above zero for a mesh that is one point.
    return camera[:, :2] / depth[:, None] + np.finfo(np.float64).tiny, depth


def _pictures(
    mesh: MeshData, views: list[_View], normals: NDArray[np.float32], size: int
) -> list[NDArray[np.uint8]]:
    """Rasterise views side by side at twice the size, shade, average down. Returns RGBA."""
    fine = size * _SUPERSAMPLING
    width, faces = fine * len(views), len(mesh.faces)
    flip_y = np.array([1.0, -1.0])
    screen = np.concatenate(
        [
            ((view.position * flip_y + [1 + 2 * column, 1]) * (fine / 2))[mesh.faces]
            for column, view in enumerate(views)
        ]
    )
    corner_depth = np.concatenate([view.depth[mesh.faces] for view in views])
    drawn = rasterize(screen, corner_depth, width=width, height=fine).ravel()
    seen = np.flatnonzero(drawn != NO_FACE)
    drawn = drawn[seen]
    centres = np.stack([seen % width, seen // width], axis=1).astype(np.float64) + 0.5
    weights = barycentric(screen, corner_depth, drawn, centres).astype(np.float32)
    light = _lighting(weights, *_camera_normals(screen, drawn, normals, views))
    albedo = _albedo(mesh, drawn % faces, weights)
    color = srgb_to_linear(albedo.astype(np.float32) / 255) * light[:, None]
    layer = np.zeros((fine * width, 4), dtype=np.float32)
    layer[seen, :3], layer[seen, 3] = np.minimum(color, 1), 1
    picture = _downsample(layer.reshape(fine, width, 4))
    return np.split(picture, len(views), axis=1)


def _albedo(
    mesh: MeshData, face: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.floating[Any]] | NDArray[np.uint8]:
    """Return (P, 3) sRGB 0..255 of the seen points."""
    if mesh.texture is not None and mesh.uv_coords is not None:
        return sample_texture(mesh.texture, _at_corners(mesh.uv_coords, mesh, face, weights))
    if mesh.vertex_colors is not None:
        return _at_corners(mesh.vertex_colors, mesh, face, weights)
    return np.broadcast_to(_CLAY, (len(face), 3))


def _at_corners(
    values: NDArray[Any], mesh: MeshData, face: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.floating[Any]]:
    return _mixed(weights, *(values[mesh.faces[:, k]][face] for k in range(3)))


def _camera_normals(
    screen: NDArray[np.float64],
    drawn: NDArray[np.int64],
    normals: NDArray[np.float32],
    views: list[_View],
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return (U, 3, 3) corner normals of the faces that are seen, towards the camera, and (P,).

    The second says which of them each pixel shows.
    """
    used, index = seen_faces(drawn, len(screen))
    view_of, face = np.divmod(used, len(normals))
    rotations = np.stack([view.rotation for view in views]).astype(np.float32)
    turned = np.einsum("uij,ukj->uki", rotations[view_of], normals[face])
    corners = screen[used]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # With y down a front face turns clockwise; the inside of an open mesh is lit from inside.
    is_back = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] > 0
    turned[is_back] *= -1
    return turned, index


def _lighting(
    weights: NDArray[np.float32], normals: NDArray[np.float32], index: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return (P,) brightness from a key and a fill light, both fixed to the camera."""
    normal = _mixed(weights, *(np.ascontiguousarray(normals[:, k])[index] for k in range(3)))
    length = np.sqrt(np.einsum("pc,pc->p", normal, normal))
    light = np.full(len(normal), _AMBIENT, dtype=np.float32)
    for direction, strength in ((_KEY, _KEY_STRENGTH), (_FILL, _FILL_STRENGTH)):
        unit = (direction / np.linalg.norm(direction)).astype(np.float32)
        cosine = (normal @ unit) / np.maximum(length, 1e-12)
        # A wrapped cosine: soft terminator, as from a large lamp.
        light += strength * np.maximum((cosine + 0.25) / 1.25, 0)
    return light


def _mixed(
    weights: NDArray[np.float32], *corners: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Return (P, C): the corners' values (P, C) each, by weights (P, 3)."""
    first, second, third = (weights[:, k, None] * corner for k, corner in enumerate(corners))
    return first + second + third


def _downsample(layer: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Average linear light weighted by coverage, then encode. (n, n, 4) -> (n/2, n/2, 4) uint8."""
    rows = layer[0::2] + layer[1::2]
    mean = (rows[:, 0::2] + rows[:, 1::2]) / _SUPERSAMPLING**2
    alpha = mean[..., 3:]
    straight = np.divide(mean[..., :3], alpha, out=np.zeros_like(mean[..., :3]), where=alpha > 0)
    joined = np.concatenate([linear_to_srgb(straight), alpha], axis=-1)
    encoded: NDArray[np.uint8] = np.rint(joined * 255).astype(np.uint8)
    return encoded


def _on_background(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = picture[..., 3:].astype(np.float32) / 255
    mixed = picture[..., :3] * alpha + _BACKGROUND * (1 - alpha)
    opaque: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return opaque
