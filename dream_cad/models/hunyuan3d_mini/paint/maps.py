"""A mesh in the renderer's axes, and the normal and position maps of its views (spec 5, 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.models.hunyuan3d_mini.paint.cameras import CameraMatrices
from dream_cad.models.hunyuan3d_mini.paint.rasterize import (
    Fragments,
    interpolate,
    rasterize,
    vertex_normals,
)

DIAMETER = 1.15

# Where all that is seen lies at one depth, rounding must not be stretched to edges.
_FLAT = 1e-3


@dataclass(frozen=True)
class RenderMesh:
    """A mesh in render axes: mirrored, centred, within a ball of diameter 1.15.

    Attributes:
        positions: (V, 3) float32.
        faces: (F, 3) int64.
        uvs: (V, 2) float32, v running down.
    """

    positions: Tensor
    faces: Tensor
    uvs: Tensor


@dataclass(frozen=True)
class RenderedView:
    """A mesh seen by one camera.

    Attributes:
        fragments: which face each pixel shows.
        camera_positions: (V, 3) float32 vertices in camera axes.
    """

    fragments: Fragments
    camera_positions: Tensor


def render_mesh(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    uvs: NDArray[np.float32],
    *,
    diameter: float = DIAMETER,
    device: torch.device | str = "cpu",
) -> RenderMesh:
    """Bring a mesh (y up, front +z, v up) into render axes; this mirrors it."""
    x, y, z = np.asarray(vertices, dtype=np.float32).T
    positions = np.stack([-x, z, -y], axis=1)
    middle = (positions.max(axis=0) + positions.min(axis=0)) / 2
    positions -= middle
    reach = np.linalg.norm(positions, axis=1).max()
    positions *= np.float32(diameter / (2 * reach))
    down = np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1).astype(np.float32)
    return RenderMesh(
        torch.from_numpy(positions.astype(np.float32)).to(device),
        torch.from_numpy(faces.astype(np.int64)).to(device),
        torch.from_numpy(down).to(device),
    )


def render_view(mesh: RenderMesh, camera: CameraMatrices, size: int) -> RenderedView:
    """Rasterise one view of size x size pixels."""
    device = mesh.positions.device
    ones = torch.ones((len(mesh.positions), 1), device=device)
    seen = torch.cat([mesh.positions, ones], dim=1) @ torch.from_numpy(camera.view.T).to(device)
    clip = seen @ torch.from_numpy(camera.projection.T).to(device)
    return RenderedView(rasterize(clip, mesh.faces, size, size), seen[:, :3])


def normal_map(mesh: RenderMesh, view: RenderedView) -> Tensor:
    """Return (S, S, 3) normals in render axes as (n + 1) / 2, background 1."""
    normals = vertex_normals(mesh.positions, mesh.faces)
    return _on_white((interpolate(view.fragments, mesh.faces, normals) + 1) / 2, view)


def position_map(mesh: RenderMesh, view: RenderedView, *, diameter: float = DIAMETER) -> Tensor:
    """Return (S, S, 3) positions in render axes as 0.5 - p / diameter, background 1."""
    values = 0.5 - mesh.positions / diameter
    return _on_white(interpolate(view.fragments, mesh.faces, values), view)


def depth_map(mesh: RenderMesh, view: RenderedView) -> Tensor:
    """Return (S, S) camera depth from 0 (farthest seen) to 1 (nearest); 0 where no face is."""
    depth = interpolate(view.fragments, mesh.faces, view.camera_positions[:, 2:])[..., 0]
    covered = view.fragments.covered
    if not covered.any():
        return depth
    low, high = depth[covered].min(), depth[covered].max()
    return torch.where(covered, (depth - low) / (high - low).clamp(min=_FLAT), 0)


def as_uint8(values: Tensor) -> NDArray[np.uint8]:
    """Return values in [0, 1] as 0..255, cut off and not rounded."""
    return (values * 255).clamp(0, 255).to(torch.uint8).cpu().numpy()


def resize(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize (S, S, 3) to size x size as PIL does by default: bicubic, antialiased."""
    return np.asarray(Image.fromarray(picture).resize((size, size)))


def _on_white(values: Tensor, view: RenderedView) -> Tensor:
    return torch.where(view.fragments.covered[..., None], values, 1.0)
