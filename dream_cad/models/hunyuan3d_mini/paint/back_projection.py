"""Views of a mesh onto its texture, and their blend (spec sections 11 and 12)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dream_cad.models.hunyuan3d_mini.paint.maps import (
    RenderedView,
    RenderMesh,
    as_uint8,
    depth_map,
)
from dream_cad.models.hunyuan3d_mini.paint.rasterize import interpolate, vertex_normals

STEEPEST_DEGREES = 75.0
COSINE_POWER = 4
MOST_PAINTED = 0.99

_CANNY = (30, 80)
_KERNEL_OF_512 = 2
_NO_WEIGHT = 1e-8


@dataclass(frozen=True)
class ProjectedView:
    """What one view puts on the texture.

    Attributes:
        texture: (T, T, 3) float32, 0 where nothing was seen.
        cosine: (T, T) float32, how squarely the surface was seen; 0 where it was not, or too
            steeply.
    """

    texture: Tensor
    cosine: Tensor


def depth_edges(mesh: RenderMesh, view: RenderedView) -> NDArray[np.uint8]:
    """Return (S, S) edges of the depth image, 0 or 255."""
    return np.asarray(cv2.Canny(as_uint8(depth_map(mesh, view)), *_CANNY), dtype=np.uint8)


def back_project(
    mesh: RenderMesh, view: RenderedView, image: Tensor, texture_size: int
) -> ProjectedView:
    """Splat a view's image onto the texture.

    Pixels near the outline and near edges of depth are left out. Steep ones keep their part in the
    colour of a texel, but have no cosine.

    Args:
        mesh: what the view shows.
        view: as rendered at the image's size.
        image: (S, S, 3) float32.
        texture_size: side of the texture.
    """
    normals = vertex_normals(view.camera_positions, mesh.faces)
    normal = interpolate(view.fragments, mesh.faces, normals)
    # The axes are mirrored, so normals of what is seen point away from the camera.
    cosine = -functional.normalize(normal, dim=2, eps=1e-8)[..., 2]
    cosine[cosine < math.cos(math.radians(STEEPEST_DEGREES))] = 0
    valid = _usable(mesh, view)
    uv = interpolate(view.fragments, mesh.faces, mesh.uvs)[valid]
    values = torch.cat([image[valid], cosine[valid][:, None]], dim=1)
    put = splat(uv.flip(1), values, texture_size, texture_size)
    return ProjectedView(put[..., :3], put[..., 3])


def splat(places: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """Spread samples over the four texels around each, and divide by the summed weight.

    Args:
        places: (N, 2) row and column in [0, 1], from the first texel's centre to the last's.
        values: (N, C).
        height: rows.
        width: columns.

    Returns:
        (height, width, C), 0 where no sample is near.
    """
    last = torch.tensor([height - 1, width - 1], device=places.device)
    exact = places * last
    low = torch.minimum(exact.floor().long().clamp(min=0), last)
    part = exact - low
    sums = values.new_zeros((height * width, values.shape[1]))
    weights = values.new_zeros(height * width)
    for down in (0, 1):
        for right in (0, 1):
            corner = torch.minimum(low + torch.tensor([down, right], device=low.device), last)
            share = (part[:, 0] if down else 1 - part[:, 0]) * (
                part[:, 1] if right else 1 - part[:, 1]
            )
            texel = corner[:, 0] * width + corner[:, 1]
            weights.index_add_(0, texel, share)
            sums.index_add_(0, texel, share[:, None] * values)
    some = weights > 0
    sums[some] /= weights[some, None]
    return sums.view(height, width, -1)


def blend(views: Iterable[ProjectedView], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mix views by their weight and the fourth power of their cosine, in their order.

    A view that adds less than 1 % new texels is left out.

    Returns:
        (T, T, 3) float32 texture and (T, T) bool, where something was painted.
    """
    total = trust = torch.zeros(())
    for number, (view, weight) in enumerate(zip(views, weights, strict=True)):
        own = weight * view.cosine**COSINE_POWER
        if number == 0:
            total, trust = torch.zeros_like(view.texture), torch.zeros_like(own)
        seen = own > 0
        painted = (seen & (trust > 0)).sum() / seen.sum().clamp(min=1)
        if painted > MOST_PAINTED:
            continue
        total += view.texture * own[..., None]
        trust += own
    return total / trust.clamp(min=_NO_WEIGHT)[..., None], trust > _NO_WEIGHT


def _usable(mesh: RenderMesh, view: RenderedView) -> Tensor:
    """(S, S) bool: covered, and neither an empty pixel nor an edge of depth within the kernel."""
    covered = view.fragments.covered
    edges = torch.from_numpy(depth_edges(mesh, view) > 0).to(covered.device)
    radius = int(_KERNEL_OF_512 / 512 * len(covered))
    return covered & ~_grow(~covered | edges, radius)


def _grow(mask: Tensor, radius: int) -> Tensor:
    """Grow a mask (H, W) by a square kernel; nothing comes from outside."""
    side = 2 * radius + 1
    grown = mask.float()[None, None]
    grown = functional.max_pool2d(grown, (side, 1), 1, (radius, 0))
    return functional.max_pool2d(grown, (1, side), 1, (0, radius))[0, 0] > 0
