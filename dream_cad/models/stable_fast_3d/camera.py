"""The camera that pictures are taken to come from (spec section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CAMERA_NUMBERS = 25


def camera_pose(distance: float) -> Tensor:
    """Return the camera-to-world matrix (4, 4): on +x, looking at the origin, z up."""
    return torch.tensor(
        [[0.0, 0.0, 1.0, distance], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0, 0, 0, 1.0]]
    )


def intrinsics(fovy_deg: float, size: int) -> Tensor:
    """Return the pinhole matrix (3, 3) in pixels of a square picture."""
    focal = 0.5 * size / math.tan(math.radians(fovy_deg) / 2)
    return torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])


def normalised_intrinsics(matrix: Tensor, size: int) -> Tensor:
    """Return the pinhole matrix in units of the picture's side."""
    return matrix / torch.tensor([[size], [size], [1.0]])


def camera_vector(fovy_deg: float, distance: float, size: int) -> Tensor:
    """Return the 25 numbers that describe the camera, float32."""
    inner = normalised_intrinsics(intrinsics(fovy_deg, size), size)
    return torch.cat((camera_pose(distance).flatten(), inner.flatten()))


class CameraEmbedder(nn.Module):
    """One linear layer on the camera's numbers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(CAMERA_NUMBERS, channels)

    def forward(self, camera: Tensor) -> Tensor:
        """Map (..., 25) to (..., channels)."""
        out: Tensor = self.linear(camera.to(self.linear.weight))
        return out
