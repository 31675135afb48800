"""The six cameras of Hunyuan3D-Paint (spec section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DISTANCE = 1.45
ORTHO_SCALE = 1.2
NEAR, FAR = 0.1, 100.0

_FIRST_LABELS = {-20: 0, 0: 12, 20: 24}
_POLE_LABELS = {-90: 36, 90: 40}


class PaintCamera(NamedTuple):
    """A direction to look from, in degrees, and what its view counts in the blend."""

    elevation: int
    azimuth: int
    weight: float

    @property
    def label(self) -> int:
        """Number under which the networks know the camera."""
        return camera_label(self.elevation, self.azimuth)


CAMERAS = (
    PaintCamera(0, 0, 1.0),
    PaintCamera(0, 90, 0.1),
    PaintCamera(0, 180, 0.5),
    PaintCamera(0, 270, 0.1),
    PaintCamera(90, 0, 0.05),
    PaintCamera(-90, 180, 0.05),
)


@dataclass(frozen=True)
class CameraMatrices:
    """World to camera and camera to clip, both (4, 4) float32, for column vectors."""

    view: NDArray[np.float32]
    projection: NDArray[np.float32]


def camera_label(elevation: int, azimuth: int) -> int:
    """Return the label of a camera: 0..43.

    Args:
        elevation: -90, -20, 0, 20 or 90 degrees.
        azimuth: degrees, a multiple of 30; of 90 at the poles.

    Raises:
        ValueError: there is no label for this camera.
    """
    k = (azimuth // 30 + 9) % 12
    if elevation in _FIRST_LABELS:
        return k + _FIRST_LABELS[elevation]
    if elevation in _POLE_LABELS:
        return k // 3 + _POLE_LABELS[elevation]
    raise ValueError(f"elevation is {elevation}; expected -90, -20, 0, 20 or 90")


def view_matrix(
    elevation: float,
    azimuth: float,
    *,
    distance: float = DISTANCE,
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float32]:
    """Return the matrix (4, 4) from render axes to a camera that looks at ``center``.

    The camera stays at ``distance`` from the origin, whatever it looks at.

    At the poles the cross product with the up axis is tiny; in float64 it still points the right
    way, because the cosine of 90 degrees is not exactly 0 there.
    """
    e, a = np.radians(-elevation), np.radians(azimuth + 90)
    direction = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    target = np.asarray(center, dtype=np.float64)
    eye = distance * direction
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(right, forward), -forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    return matrix.astype(np.float32)


def orthographic(
    scale: float = ORTHO_SCALE, near: float = NEAR, far: float = FAR
) -> NDArray[np.float32]:
    """Return the projection (4, 4) of a box of side ``scale``."""
    depth = far - near
    matrix = np.diag([2 / scale, 2 / scale, -2 / depth, 1.0])
    matrix[2, 3] = -(far + near) / depth
    return matrix.astype(np.float32)


def camera_matrices(camera: PaintCamera) -> CameraMatrices:
    """Return the matrices that the maps and the back projection share."""
    return CameraMatrices(view_matrix(camera.elevation, camera.azimuth), orthographic())
