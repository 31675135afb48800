"""Solids made of a few primitives: signed distance, colour and normals, compiled with numba.

Frame: z up, front towards +x. A solid is a list of primitives applied in order; additive ones
are united (minimum of distances), carving ones are subtracted (maximum with the negative).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float32]


class Kind(IntEnum):
    """Primitive shapes; their parameters in ``Primitive.size``."""

    BOX = 0  # half extents x, y, z, rounding radius
    CONE = 1  # bottom radius, top radius, half height along local z, unused
    ELLIPSOID = 2  # radii x, y, z, unused
    TORUS = 3  # ring radius, tube radius, unused, unused


@dataclass(frozen=True)
class Primitive:
    """One shape: where it stands, how it is turned, and which colour slot it takes.

    Attributes:
        kind: shape.
        center: (3,) position of the local origin.
        size: (4,) shape parameters, see Kind.
        rotation: (3, 3) local-to-object rotation.
        slot: colour slot (0 main colour, 1 second colour, 2 dark accent, 3 brown accent).
        carve: subtract instead of add.
    """

    kind: Kind
    center: tuple[float, float, float]
    size: tuple[float, float, float, float]
    rotation: NDArray[np.float64]
    slot: int = 0
    carve: bool = False

    def moved(self, shift: tuple[float, float, float]) -> Primitive:
        """Return a copy translated by ``shift``."""
        x, y, z = self.center
        return replace(self, center=(x + shift[0], y + shift[1], z + shift[2]))


def rotation(axis: str, degrees: float) -> NDArray[np.float64]:
    """Return the (3, 3) rotation about a coordinate axis, counter-clockwise seen from its tip."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


_IDENTITY = np.eye(3)


def box(
    center: tuple[float, float, float],
    full_size: tuple[float, float, float],
    *,
    slot: int = 0,
    turn: NDArray[np.float64] = _IDENTITY,
    rounding: float = 0.02,
    carve: bool = False,
) -> Primitive:
    """Make a box from its centre and full edge lengths."""
    x, y, z = (0.5 * edge for edge in full_size)
    radius = min(rounding, 0.4 * min(x, y, z))
    return Primitive(Kind.BOX, center, (x, y, z, radius), turn, slot, carve)


def cone(
    center: tuple[float, float, float],
    bottom_radius: float,
    top_radius: float,
    height: float,
    *,
    slot: int = 0,
    turn: NDArray[np.float64] = _IDENTITY,
    carve: bool = False,
) -> Primitive:
    """Make a capped cone (a cylinder when the radii are equal) along its local z axis."""
    size = (bottom_radius, top_radius, 0.5 * height, 0.0)
    return Primitive(Kind.CONE, center, size, turn, slot, carve)


def ellipsoid(
    center: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    slot: int = 0,
    turn: NDArray[np.float64] = _IDENTITY,
    carve: bool = False,
) -> Primitive:
    """Make an ellipsoid from its centre and radii."""
    return Primitive(Kind.ELLIPSOID, center, (*radii, 0.0), turn, slot, carve)


def torus(
    center: tuple[float, float, float],
    ring_radius: float,
    tube_radius: float,
    *,
    slot: int = 0,
    turn: NDArray[np.float64] = _IDENTITY,
) -> Primitive:
    """Make a torus whose axis is its local z."""
    return Primitive(Kind.TORUS, center, (ring_radius, tube_radius, 0.0, 0.0), turn, slot)


@dataclass(frozen=True)
class Solid:
    """Packed primitives, ready for the compiled functions.

    Attributes:
        kinds: (K,) int32; to_local: (K, 3, 3); centers: (K, 3); sizes: (K, 4);
        colors: (K, 3) linear-free sRGB in [0, 1]; carve: (K,) bool.
    """

    kinds: NDArray[np.int32]
    to_local: Float
    centers: Float
    sizes: Float
    colors: Float
    carve: NDArray[np.bool_]

    @classmethod
    def pack(cls, primitives: list[Primitive], palette: Float) -> Solid:
        """Pack primitives with the (S, 3) colours of the slots."""
        return cls(
            kinds=np.array([p.kind for p in primitives], np.int32),
            to_local=np.array([p.rotation.T for p in primitives], np.float32),
            centers=np.array([p.center for p in primitives], np.float32),
            sizes=np.array([p.size for p in primitives], np.float32),
            colors=np.array([palette[p.slot] for p in primitives], np.float32),
            carve=np.array([p.carve for p in primitives], np.bool_),
        )

    def normalized(self) -> Solid:
        """Return the solid centred with its largest side equal to one."""
        axis = np.linspace(-1.6, 1.6, 41, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        near = grid[self.distance(grid) < 0.07]
        low, high = _tight_bounds(self, near)
        scale = np.float32(1.0 / (high - low).max())
        center = 0.5 * (low + high)
        return replace(self, centers=(self.centers - center) * scale, sizes=self.sizes * scale)

    def distance(self, points: Float) -> Float:
        """Return the signed distance (negative inside) at (P, 3) points, (P,) float32."""
        values: Float = _distance_at(
            points, self.kinds, self.to_local, self.centers, self.sizes, self.carve
        )
        return values

    def color(self, points: Float) -> Float:
        """Return the colour of the nearest part at (P, 3) points, (P, 3) in [0, 1]."""
        part = _part_at(points, self.kinds, self.to_local, self.centers, self.sizes, self.carve)
        values: Float = self.colors[part]
        return values

    def project(self, points: Float, steps: int = 4) -> Float:
        """Move (P, 3) points onto the surface by Newton steps along the numeric gradient."""
        moved = points.copy()
        for _ in range(steps):
            distance, gradient = self.distance_and_gradient(moved)
            moved -= distance[:, None] * gradient
        return moved

    def distance_and_gradient(self, points: Float, step: float = 1e-3) -> tuple[Float, Float]:
        """Return the distance (P,) and its unit gradient (P, 3) by forward differences."""
        distance = self.distance(points)
        shifts = np.eye(3, dtype=np.float32) * np.float32(step)
        gradient = np.stack([self.distance(points + shift) - distance for shift in shifts], -1)
        norm = np.linalg.norm(gradient, axis=-1, keepdims=True)
        return distance, gradient / np.maximum(norm, 1e-9)


def _tight_bounds(solid: Solid, near: Float) -> tuple[Float, Float]:
    surface = solid.project(near)
    on_surface = np.abs(solid.distance(surface)) < 2e-3
    surface = surface[on_surface]
    return surface.min(0), surface.max(0)


@njit(cache=True, fastmath=True)
def primitive_distance(kind, x, y, z, size):  # type: ignore[no-untyped-def]
    """Signed distance of one primitive at local coordinates (exact but for ellipsoids)."""
    if kind == 0:
        r = size[3]
        qx, qy, qz = abs(x) - size[0] + r, abs(y) - size[1] + r, abs(z) - size[2] + r
        ox, oy, oz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
        return np.sqrt(ox * ox + oy * oy + oz * oz) + min(max(qx, max(qy, qz)), 0.0) - r
    if kind == 1:
        q = np.sqrt(x * x + y * y)
        r1, r2, h = size[0], size[1], size[2]
        cap_x = q - min(q, r1 if z < 0.0 else r2)
        cap_y = abs(z) - h
        kx, ky = r2 - r1, 2.0 * h
        t = ((r2 - q) * kx + (h - z) * ky) / (kx * kx + ky * ky)
        t = min(max(t, 0.0), 1.0)
        side_x, side_y = q - r2 + kx * t, z - h + ky * t
        sign = -1.0 if (side_x < 0.0 and cap_y < 0.0) else 1.0
        nearest = min(cap_x * cap_x + cap_y * cap_y, side_x * side_x + side_y * side_y)
        return sign * np.sqrt(nearest)
    if kind == 2:
        ax, ay, az = x / size[0], y / size[1], z / size[2]
        k0 = np.sqrt(ax * ax + ay * ay + az * az)
        bx, by, bz = ax / size[0], ay / size[1], az / size[2]
        k1 = np.sqrt(bx * bx + by * by + bz * bz)
        if k1 < 1e-9:
            return -min(size[0], min(size[1], size[2]))
        return k0 * (k0 - 1.0) / k1
    q = np.sqrt(x * x + y * y) - size[0]
    return np.sqrt(q * q + z * z) - size[1]


@njit(cache=True, fastmath=True)
def _bounding_radius(kind, size):  # type: ignore[no-untyped-def]
    if kind == 0:
        return np.sqrt(size[0] * size[0] + size[1] * size[1] + size[2] * size[2])
    if kind == 1:
        return np.sqrt(max(size[0], size[1]) ** 2 + size[2] * size[2])
    if kind == 2:
        return max(size[0], max(size[1], size[2]))
    return size[0] + size[1]


@njit(cache=True, fastmath=True)
def solid_distance(px, py, pz, kinds, to_local, centers, sizes, carve):  # type: ignore[no-untyped-def]
    """Signed distance of the whole solid at one point, and the index of the deciding part."""
    distance = 1e9
    part = 0
    for k in range(kinds.shape[0]):
        dx, dy, dz = px - centers[k, 0], py - centers[k, 1], pz - centers[k, 2]
        reach = distance + _bounding_radius(kinds[k], sizes[k])
        if not carve[k] and dx * dx + dy * dy + dz * dz > reach * reach and reach > 0.0:
            continue  # the whole primitive is farther away than the nearest one so far
        m = to_local[k]
        x = m[0, 0] * dx + m[0, 1] * dy + m[0, 2] * dz
        y = m[1, 0] * dx + m[1, 1] * dy + m[1, 2] * dz
        z = m[2, 0] * dx + m[2, 1] * dy + m[2, 2] * dz
        d = primitive_distance(kinds[k], x, y, z, sizes[k])
        if carve[k]:
            if -d > distance:
                distance = -d
                part = k
        elif d < distance:
            distance = d
            part = k
    return distance, part


@njit(cache=True, fastmath=True)
def _distance_at(points, kinds, to_local, centers, sizes, carve):  # type: ignore[no-untyped-def]
    out = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        out[i] = solid_distance(
            points[i, 0], points[i, 1], points[i, 2], kinds, to_local, centers, sizes, carve
        )[0]
    return out


@njit(cache=True, fastmath=True)
def _part_at(points, kinds, to_local, centers, sizes, carve):  # type: ignore[no-untyped-def]
    out = np.empty(points.shape[0], np.int64)
    for i in range(points.shape[0]):
        out[i] = solid_distance(
            points[i, 0], points[i, 1], points[i, 2], kinds, to_local, centers, sizes, carve
        )[1]
    return out
