"""Sphere-traced pictures of procedural solids, framed as TripoSR's pre-processing frames photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jobs.nano.primitives import Solid, solid_distance

BACKGROUND = 127
"""Grey of empty pixels: what compositing on 0.5 and truncating gives (TripoSR spec, section 2)."""

FOREGROUND_RATIO = 0.85
_DISTANCE = 2.2
_TAN_HALF_FOV = 0.38


@dataclass(frozen=True)
class Camera:
    """Orbit camera looking at the origin; angles in degrees, azimuth 0 on +x, z up."""

    azimuth_deg: float
    elevation_deg: float

    def basis(self) -> NDArray[np.float32]:
        """Return (4, 3): position, right, up, forward."""
        azimuth, elevation = np.deg2rad([self.azimuth_deg, self.elevation_deg])
        out = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return np.stack([_DISTANCE * out, right, np.cross(out, right), -out]).astype(np.float32)


@dataclass(frozen=True)
class SeenSurface:
    """What four rays a pixel meet.

    Attributes:
        hit: (2S, 2S) bool, rays that meet the solid; the other arrays are of those R rays.
        normals: (R, 3) outward units.
        directions: (R, 3) units from the camera.
        colors: (R, 3) sRGB of the parts met.
    """

    hit: NDArray[np.bool_]
    normals: NDArray[np.float32]
    directions: NDArray[np.float32]
    colors: NDArray[np.float32]

    def picture(self, shaded: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Average the (R, 3) shades of the rays to (S, S, 4): colour on BACKGROUND, coverage."""
        side = len(self.hit)
        samples = np.zeros((side, side, 4), np.float32)
        samples[self.hit, :3] = shaded
        samples[self.hit, 3] = 1.0
        pixels = samples.reshape(side // 2, 2, side // 2, 2, 4).mean(axis=(1, 3))
        alpha = pixels[..., 3:]
        color = pixels[..., :3] + (1.0 - alpha) * (BACKGROUND / 255.0)
        return (np.concatenate([color, alpha], -1) * 255.0 + 0.5).astype(np.uint8)


def see_solid(solid: Solid, camera: Camera, *, size: int = 128) -> SeenSurface:
    """Trace a solid, its silhouette filling ``FOREGROUND_RATIO`` of ``size`` pixels."""
    basis = camera.basis()
    arrays = (solid.kinds, solid.to_local, solid.centers, solid.sizes, solid.carve)
    traced = _trace(2 * size, _window_of_silhouette(basis, arrays), basis, *arrays)
    hit = traced[..., 6] >= 0
    rays = traced[hit]
    return SeenSurface(hit, rays[:, :3], rays[:, 3:6], solid.colors[rays[:, 6].astype(np.intp)])


def render_solid(
    solid: Solid, camera: Camera, *, size: int = 128, gloss: float = 0.0, light_deg: float = -40.0
) -> NDArray[np.uint8]:
    """Render a solid, its silhouette filling ``FOREGROUND_RATIO`` of the picture.

    Args:
        solid: normalised solid.
        camera: view.
        size: pixels of the square picture; four rays a pixel.
        gloss: strength of the highlight, 0 to 1.
        light_deg: azimuth of the light relative to the camera.

    Returns:
        (size, size, 4) uint8: colour on BACKGROUND, and the coverage as alpha.
    """
    return shade_plainly(see_solid(solid, camera, size=size), camera, gloss, light_deg)


def shade_plainly(
    seen: SeenSurface, camera: Camera, gloss: float, light_deg: float
) -> NDArray[np.uint8]:
    """Shade as ``render_solid`` does: much ambient light, one light, one highlight."""
    light = _light_direction(camera, light_deg)
    diffuse = np.maximum(seen.normals @ light, 0.0)
    facing = np.maximum(-np.einsum("rc,rc->r", seen.normals, seen.directions), 0.0)
    half = light - seen.directions
    cosine = np.einsum("rc,rc->r", seen.normals, half) / np.linalg.norm(half, axis=1)
    glint = np.maximum(cosine, 0.0) ** 24 * gloss
    shade = 0.60 + 0.32 * diffuse + 0.08 * facing
    return seen.picture(np.minimum(seen.colors * shade[:, None] + glint[:, None], 1.0))


def _light_direction(camera: Camera, light_deg: float) -> NDArray[np.float32]:
    azimuth = np.deg2rad(camera.azimuth_deg + light_deg)
    light = np.array([np.cos(azimuth) * 0.6, np.sin(azimuth) * 0.6, 0.8], np.float32)
    return light / np.linalg.norm(light)


def _window_of_silhouette(
    basis: NDArray[np.float32], arrays: tuple[NDArray[np.generic], ...]
) -> NDArray[np.float32]:
    """Return (3,) centre u, centre v and half size of the square that frames the silhouette."""
    size = 48
    wide = np.array([0.0, 0.0, 1.15 * _TAN_HALF_FOV], np.float32)
    hit = _trace(size, wide, basis, *arrays)[..., 6] >= 0
    rows, columns = np.nonzero(hit)
    if len(rows) == 0:
        return wide
    pixel = 2.0 * wide[2] / size
    left, right = columns.min() * pixel - wide[2], (columns.max() + 1) * pixel - wide[2]
    top, bottom = wide[2] - rows.min() * pixel, wide[2] - (rows.max() + 1) * pixel
    half = 0.5 * max(right - left, top - bottom) / FOREGROUND_RATIO
    return np.array([0.5 * (left + right), 0.5 * (top + bottom), half], np.float32)


@njit(cache=True)
def _slab(origin, direction):  # type: ignore[no-untyped-def]
    """Return the distances at which a ray enters and leaves the slab [-0.505, 0.505]."""
    if abs(direction) < 1e-7:
        direction = 1e-7
    first = (-0.505 - origin) / direction
    second = (0.505 - origin) / direction
    return min(first, second), max(first, second)


@njit(cache=True, fastmath=True)
def _trace(size, window, basis, kinds, to_local, centers, sizes, carve):  # type: ignore[no-untyped-def]
    """Return (size, size, 7): normal, ray direction and the index of the part met, -1 for none."""
    seen = np.full((size, size, 7), -1.0, np.float32)
    ex, ey, ez = basis[0, 0], basis[0, 1], basis[0, 2]
    e = 1.5e-3
    for row in range(size):
        v = window[1] + window[2] * (1.0 - 2.0 * (row + 0.5) / size)
        for column in range(size):
            u = window[0] + window[2] * (2.0 * (column + 0.5) / size - 1.0)
            dx = basis[3, 0] + u * basis[1, 0] + v * basis[2, 0]
            dy = basis[3, 1] + u * basis[1, 1] + v * basis[2, 1]
            dz = basis[3, 2] + u * basis[1, 2] + v * basis[2, 2]
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            dx, dy, dz = dx / length, dy / length, dz / length
            near_x, far_x = _slab(ex, dx)
            near_y, far_y = _slab(ey, dy)
            near_z, far_z = _slab(ez, dz)
            t = max(near_x, max(near_y, near_z))
            end = min(far_x, min(far_y, far_z))
            if t >= end:
                continue
            hit = False
            part = 0
            d = x = y = z = 0.0
            for _ in range(60):
                x, y, z = ex + t * dx, ey + t * dy, ez + t * dz
                d, part = solid_distance(x, y, z, kinds, to_local, centers, sizes, carve)
                if d < 2e-3:
                    hit = True
                    break
                t += d
                if t > end:
                    break
            if not hit:
                continue
            nx = solid_distance(x + e, y, z, kinds, to_local, centers, sizes, carve)[0] - d
            ny = solid_distance(x, y + e, z, kinds, to_local, centers, sizes, carve)[0] - d
            nz = solid_distance(x, y, z + e, kinds, to_local, centers, sizes, carve)[0] - d
            norm = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            pixel = seen[row, column]
            pixel[0], pixel[1], pixel[2] = nx / norm, ny / norm, nz / norm
            pixel[3], pixel[4], pixel[5] = dx, dy, dz
            pixel[6] = part
    return seen
