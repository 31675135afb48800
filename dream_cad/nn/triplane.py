"""Triplanes: three feature planes xy, xz and yz that together describe a volume."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.exceptions import ShapeError

# Coordinates of the planes; the first runs along W, the second along H (TripoSR spec, section 7).
PLANE_AXES: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2))


def planes_to_tokens(planes: Tensor) -> Tensor:
    """Reshape planes (B, 3, C, H, W) to channel-first tokens (B, C, 3 * H * W), plane-major."""
    return planes.transpose(1, 2).flatten(2)


def tokens_to_planes(tokens: Tensor, plane_size: int) -> Tensor:
    """Reshape tokens (B, C, 3 * p * p) to planes (B, 3, C, p, p)."""
    batch, channels, _ = tokens.shape
    return tokens.view(batch, channels, 3, plane_size, plane_size).transpose(1, 2)


def sample_triplane(planes: Tensor, points: Tensor, *, align_corners: bool = False) -> Tensor:
    """Sample three feature planes bilinearly at 3D points and concatenate the results.

    Args:
        planes: (B, 3, C, H, W) float; planes ordered xy, xz, yz (TripoSR spec, "field query").
        points: (B, P, 3) in units of the half box: the planes cover [-1, 1]. Outside, and for
            half a texel inside the border, features blend with zero.
        align_corners: the outer texels' centres, instead of their rims, lie at -1 and 1; features
            then drop to zero beyond the border only.

    Returns:
        (B, P, 3 * C) in the dtype of ``planes``, plane-major.

    Raises:
        ShapeError: if ``planes`` is not (B, 3, C, H, W) or batch sizes differ.
    """
    if planes.ndim != 5 or planes.shape[1] != 3 or points.shape[:1] != planes.shape[:1]:
        raise ShapeError(
            f"Planes {tuple(planes.shape)} and points {tuple(points.shape)} do not fit: "
            "(B, 3, C, H, W) and (B, P, 3) were expected."
        )
    batch, _, channels, height, width = planes.shape
    grid = torch.stack([points[..., axes] for axes in PLANE_AXES], dim=1)
    sampled = F.grid_sample(
        planes.reshape(batch * 3, channels, height, width),
        grid.reshape(batch * 3, 1, -1, 2).to(planes.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=align_corners,
    )
    return sampled.view(batch, 3 * channels, -1).transpose(1, 2)
