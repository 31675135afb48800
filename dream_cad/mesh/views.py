"""Pinhole views of the world, as renderers and bakers share them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError, ShapeError

MAX_VIEW_SIZE = 4096
_MIN_DEPTH = 1e-6


@dataclass(frozen=True)
class View:
    """A square pinhole camera.

    Attributes:
        world_to_camera: (4, 4) float64, OpenCV axes: x right, y down, z forward.
        fov_deg: full angle of view, the same along both axes.
    """

    world_to_camera: NDArray[np.float64]
    fov_deg: float

    def __post_init__(self) -> None:
        if self.world_to_camera.shape != (4, 4) or not np.isfinite(self.world_to_camera).all():
            raise ShapeError(
                f"The camera has shape {self.world_to_camera.shape}; (4, 4) of finite numbers "
                "was expected."
            )
        if not 0 < self.fov_deg < 180:
            raise InvalidConfigError(f"fov_deg is {self.fov_deg}; expected more than 0, below 180.")

    @property
    def tangent(self) -> float:
        """Half the side of the picture at distance 1."""
        return math.tan(math.radians(self.fov_deg) / 2)

    @property
    def eye(self) -> NDArray[np.float64]:
        """(3,) position of the camera in the world."""
        position: NDArray[np.float64] = (
            -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]
        )
        return position

    def to_camera(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return points (..., 3) of the world in the camera's axes."""
        turned: NDArray[np.float64] = points.astype(np.float64) @ self.world_to_camera[:3, :3].T
        return turned + self.world_to_camera[:3, 3]

    def project(
        self, points: NDArray[np.floating[Any]], size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Project points (..., 3) of the world.

        Args:
            points: in the world.
            size: pixels a side of the picture.

        Returns:
            (..., 2) places in pixels, x to the right and y down, whose centres lie at whole
            numbers plus one half; and (...) distances along the axis, negative behind the camera
            (the places of these mean nothing).
        """
        at = self.to_camera(points)
        depth = at[..., 2]
        safe = np.where(depth > _MIN_DEPTH, depth, 1.0)[..., None]
        return (at[..., :2] / (safe * self.tangent) + 1) * (size / 2), depth

    def rays(self, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the eye (3,) and directions (S, S, 3) through the pixels, camera z being 1."""
        steps = ((np.arange(size) + 0.5) * 2 / size - 1) * self.tangent
        x, y = np.meshgrid(steps, steps)
        local = np.stack([x, y, np.ones_like(x)], axis=-1)
        return self.eye, local @ self.world_to_camera[:3, :3]


def look_at(
    eye: NDArray[np.floating[Any]], up: tuple[float, float, float] = (0.0, 0.0, 1.0)
) -> NDArray[np.float64]:
    """Return the world-to-camera matrix (4, 4) of a camera at ``eye`` that looks at the origin.

    Raises:
        ShapeError: the eye is at the origin, or exactly above or below it.
    """
    forward = -eye.astype(np.float64)
    right = np.cross(forward, np.asarray(up))
    if np.linalg.norm(right) == 0:
        raise ShapeError(f"The camera at {eye.tolist()} has no direction, or looks along its up.")
    forward /= np.linalg.norm(forward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    matrix[:3, 3] = -matrix[:3, :3] @ eye.astype(np.float64)
    return matrix
