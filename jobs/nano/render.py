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
    basis = camera.basis()
    arrays = (solid.kinds, solid.to_local, solid.centers, solid.sizes, solid.carve)
    window = _window_of_silhouette(basis, arrays)
    light = _light_direction(camera, light_deg)
    samples = _trace(2 * size, window, basis, light, gloss, solid.colors, *arrays)
    pixels = samples.reshape(size, 2, size, 2, 4).mean(axis=(1, 3))
    alpha = pixels[..., 3:]
    color = pixels[..., :3] + (1.0 - alpha) * (BACKGROUND / 255.0)
    return (np.concatenate([color, alpha], -1) * 255.0 + 0.5).astype(np.uint8)


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
    black = np.zeros((arrays[0].shape[0], 3), np.float32)
    up = np.array([0.0, 0.0, 1.0], np.float32)
    hit = _trace(size, wide, basis, up, 0.0, black, *arrays)[..., 3] > 0
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
def _trace(size, window, basis, light, gloss, colors, kinds, to_local, centers, sizes, carve):  # type: ignore[no-untyped-def]
    image = np.zeros((size, size, 4), np.float32)
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
            nx, ny, nz = nx / norm, ny / norm, nz / norm
            diffuse = max(nx * light[0] + ny * light[1] + nz * light[2], 0.0)
            facing = -(nx * dx + ny * dy + nz * dz)
            shade = 0.60 + 0.32 * diffuse + 0.08 * max(facing, 0.0)
            hx, hy, hz = light[0] - dx, light[1] - dy, light[2] - dz
            half = np.sqrt(hx * hx + hy * hy + hz * hz)
            glint = max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** 24 * gloss
            for c in range(3):
                image[row, column, c] = min(colors[part, c] * shade + glint, 1.0)
            image[row, column, 3] = 1.0
    return image
