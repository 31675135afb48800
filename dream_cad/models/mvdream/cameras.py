"""Cameras of the views: what MVDream is conditioned on, and LGM's rays."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# OpenGL (y up) to Blender (z up): (x, y, z) -> (x, -z, y).
_BLENDER = torch.tensor(
    [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float32
)


def look_at_origin(positions: Tensor) -> Tensor:
    """Return camera-to-world matrices (F, 4, 4), OpenGL axes, world y up.

    Args:
        positions: (F, 3) of the cameras, which look at the origin.
    """
    back = F.normalize(positions, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=positions.dtype).expand_as(back)
    right = F.normalize(torch.linalg.cross(up, back), dim=-1)
    matrices = torch.eye(4, dtype=positions.dtype).repeat(len(positions), 1, 1)
    matrices[:, :3, 0] = right
    matrices[:, :3, 1] = torch.linalg.cross(back, right)
    matrices[:, :3, 2] = back
    matrices[:, :3, 3] = positions
    return matrices


def orbit(
    num_frames: int,
    elevation_deg: float = 0.0,
    azimuth_start_deg: float = 0.0,
    azimuth_span_deg: float = 360.0,
    radius: float = 1.0,
) -> Tensor:
    """Return camera-to-world matrices (F, 4, 4) around the object, OpenGL, world y up.

    Azimuth 0 is a camera at +z; positive elevations look from above.
    """
    angles = [azimuth_start_deg + azimuth_span_deg * i / num_frames for i in range(num_frames)]
    azimuth = torch.tensor(angles, dtype=torch.float64).deg2rad()
    elevation = math.radians(elevation_deg)
    positions = torch.stack(
        [
            math.cos(elevation) * azimuth.sin(),
            torch.full_like(azimuth, math.sin(elevation)),
            math.cos(elevation) * azimuth.cos(),
        ],
        dim=-1,
    )
    return look_at_origin(radius * positions).float()


def to_blender(cameras: Tensor) -> Tensor:
    """Turn OpenGL camera-to-world matrices (F, 4, 4) into Blender's world (z up)."""
    return _BLENDER.to(cameras) @ cameras


def view_cameras(
    num_frames: int = 4,
    elevation_deg: float = 0.0,
    azimuth_start_deg: float = 0.0,
    azimuth_span_deg: float = 360.0,
    *,
    extra_view: bool = False,
) -> Tensor:
    """Return what the UNet is told about the views, (F, 16): Blender frame, radius 1.

    View 1 of the four at azimuth 0 shows the object's front. ``extra_view`` appends a row of
    zeros for the picture of an image prompt.
    """
    cameras = orbit(num_frames, elevation_deg, azimuth_start_deg, azimuth_span_deg)
    flat = to_blender(cameras).reshape(num_frames, 16)
    return torch.cat([flat, torch.zeros(1, 16)]) if extra_view else flat


def normalize_cameras(cameras: Tensor) -> Tensor:
    """Scale the translations of camera-to-world matrices (F, 16) or (F, 4, 4) to length 1.

    Returns:
        (F, 16).
    """
    matrices = cameras.reshape(-1, 4, 4).clone()
    offset = matrices[:, :3, 3]
    matrices[:, :3, 3] = offset / (offset.norm(dim=1, keepdim=True) + 1e-8)
    return matrices.reshape(-1, 16)


def plucker_rays(camera: Tensor, size: int, fovy_deg: float) -> Tensor:
    """Return the rays of a square picture as Plücker coordinates.

    Args:
        camera: (4, 4) camera-to-world, OpenGL.
        size: S, pixels a side.
        fovy_deg: field of view in degrees.

    Returns:
        (6, S, S) float32: moment (origin x direction), then unit direction.
    """
    focal = 0.5 * size / math.tan(0.5 * math.radians(fovy_deg))
    centre = (torch.arange(size, dtype=torch.float32) + 0.5 - 0.5 * size) / focal
    y, x = torch.meshgrid(-centre, centre, indexing="ij")
    directions = torch.stack([x, y, -torch.ones_like(x)], dim=-1) @ camera[:3, :3].T
    directions = F.normalize(directions, dim=-1)
    moments = torch.linalg.cross(camera[:3, 3].expand_as(directions), directions)
    return torch.cat([moments, directions], dim=-1).permute(2, 0, 1)
