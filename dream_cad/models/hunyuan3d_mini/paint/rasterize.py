"""Which face each pixel shows (spec section 7): the same code on a CPU and on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Depth is compared in steps of 2^-18, so that equal depth goes to the face with the lower number.
_DEPTH_STEPS = 262_144
_FACE_RANGE = 2**31 - 1
_EMPTY = torch.iinfo(torch.int64).max

# Pixels that are tested together: about 150 bytes each.
_CHUNK = 1_500_000


@dataclass(frozen=True)
class Fragments:
    """What each pixel shows.

    Attributes:
        face: (H, W) int32, number of the face from 1 on; 0 where there is none.
        weights: (H, W, 3) float32 barycentric coordinates; 0 where there is no face.
    """

    face: Tensor
    weights: Tensor

    @property
    def covered(self) -> Tensor:
        """(H, W) bool."""
        return self.face > 0


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int) -> Fragments:
    """Find the nearest face of every pixel.

    Pixel 0 lies exactly at clip -1, the last one at +1; rows run along growing y. Both windings
    count, edges belong to all their faces.

    Args:
        clip: (V, 4) float32, with w > 0 for what is seen.
        faces: (F, 3) int64, on the same device.
        height: rows.
        width: columns.
    """
    screen = _to_screen(clip, height, width)
    corners = screen[faces]
    nearest = torch.full((height * width,), _EMPTY, dtype=torch.int64, device=clip.device)
    for rows in _chunks(_box_sizes(corners, height, width).prod(dim=1)):
        _draw(corners, rows, nearest, height, width)
    winner = torch.where(nearest == _EMPTY, 0, nearest % _FACE_RANGE)
    pixel = torch.nonzero(winner).flatten()
    face = winner[pixel] - 1
    weights = torch.zeros((height * width, 3), dtype=torch.float32, device=clip.device)
    plain = _barycentric(corners[face], _centres(pixel % width), _centres(pixel // width))
    scaled = plain / clip[faces[face], 3]
    weights[pixel] = scaled / scaled.sum(dim=1, keepdim=True)
    return Fragments(winner.int().view(height, width), weights.view(height, width, 3))


def interpolate(fragments: Fragments, faces: Tensor, values: Tensor) -> Tensor:
    """Spread values (V, C) of the vertices over the pixels: (H, W, C), 0 where no face is."""
    height, width = fragments.face.shape
    out = values.new_zeros((height, width, values.shape[1]))
    covered = fragments.covered
    corners = values[faces[fragments.face[covered].long() - 1]]
    out[covered] = (fragments.weights[covered][..., None] * corners).sum(dim=1)
    return out


def vertex_normals(positions: Tensor, faces: Tensor) -> Tensor:
    """Return (V, 3) normalised sums of the unit normals of each vertex's faces."""
    a, b, c = positions[faces].unbind(dim=1)
    unit = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    total = torch.zeros_like(positions)
    total.index_add_(0, faces.flatten(), unit.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(total, dim=1)


def _to_screen(clip: Tensor, height: int, width: int) -> Tensor:
    x = (clip[:, 0] / clip[:, 3] * 0.5 + 0.5) * (width - 1) + 0.5
    y = (clip[:, 1] / clip[:, 3] * 0.5 + 0.5) * (height - 1) + 0.5
    z = clip[:, 2] / clip[:, 3] * 0.49999 + 0.5
    return torch.stack([x, y, z], dim=1)


def _box(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """First pixel and pixel after the last, (F, 2) int64 as x, y, of each face's box."""
    size = torch.tensor([width, height], device=corners.device)
    flat = corners[..., :2]
    low = flat.amin(dim=1).trunc().clamp(min=0)
    high = (flat.amax(dim=1) + 1).ceil()
    return low.clamp(max=size).long(), torch.minimum(high, size).clamp(min=0).long()


def _box_sizes(corners: Tensor, height: int, width: int) -> Tensor:
    low, high = _box(corners, height, width)
    return (high - low).clamp(min=0)


def _chunks(counts: Tensor) -> Iterator[Tensor]:
    """Split the faces that touch the image into runs of about ``_CHUNK`` pixels."""
    touching = torch.nonzero(counts).flatten()
    ends = counts[touching].cumsum(0)
    runs = ends // _CHUNK
    sizes = torch.unique_consecutive(runs, return_counts=True)[1]
    yield from torch.split(touching, sizes.tolist())


def _draw(corners: Tensor, rows: Tensor, nearest: Tensor, height: int, width: int) -> None:
    """Test the boxes of some faces and keep the nearest key of every pixel."""
    low, _ = _box(corners[rows], height, width)
    sizes = _box_sizes(corners[rows], height, width)
    counts = sizes.prod(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
    place = torch.arange(len(owner), device=rows.device) - (counts.cumsum(0) - counts)[owner]
    column = low[owner, 0] + place % sizes[owner, 0]
    row = low[owner, 1] + place // sizes[owner, 0]
    face = rows[owner]
    triangle = corners[face]
    weights = _barycentric(triangle, _centres(column), _centres(row))
    depth = (weights * triangle[..., 2]).sum(dim=1)
    # Faces without area give NaN or infinity, which no comparison lets through.
    inside = ((weights >= 0) & (weights <= 1)).all(dim=1) & (depth >= 0)
    key = (depth[inside] * _DEPTH_STEPS).long() * _FACE_RANGE + face[inside] + 1
    pixel = row[inside] * width + column[inside]
    nearest.scatter_reduce_(0, pixel, key, "amin")


def _centres(pixels: Tensor) -> Tensor:
    return pixels.float() + 0.5


def _barycentric(triangle: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(N, 3) weights of points in triangles (N, 3, 2 or more), by signed areas."""
    a, b, c = triangle[..., :2].unbind(dim=1)
    point = torch.stack([x, y], dim=1)
    area = _signed_area(a, b, c)
    second = _signed_area(a, point, c) / area
    third = _signed_area(a, b, point) / area
    return torch.stack([1 - second - third, second, third], dim=1)


def _signed_area(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]) - (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])
