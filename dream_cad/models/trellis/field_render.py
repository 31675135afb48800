"""Pictures of radiance fields (spec, section 11b), by our own ray marcher.

Every ray visits the voxels it crosses near to far, all rays one voxel at a time: the k-th voxels
of all rays are one batch, so that rays that are opaque already cost nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.ragged import count_up
from dream_cad.mesh.views import MAX_VIEW_SIZE, View
from dream_cad.models.trellis.representations import SH_0, RadianceField

_MAX_ALPHA = 0.999
_MIN_TRANSMITTANCE = 1e-3
_RAYS_PER_BAND = 65_536
_SAMPLES_PER_BATCH = 65_536

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class FieldPicture:
    """What a camera sees.

    Attributes:
        image: (3, S, S) float32 in [0, 1] on black.
        alpha: (S, S) float32.
        depth: (S, S) float32, distances along the axis, weighted and summed.
        percent_depth: (S, S) float32, where half of the light is gone; 0 where it never is.
    """

    image: NDArray[np.float32]
    alpha: NDArray[np.float32]
    depth: NDArray[np.float32]
    percent_depth: NDArray[np.float32]


@dataclass(frozen=True)
class _Crossings:
    """Rays and the voxels they cross, near to far for each ray.

    Attributes:
        ray: (Q,) int64.
        voxel: (Q,) int64.
        near: (Q,) where the ray enters, in world units along it.
        far: (Q,) where it leaves.
        layer: (Q,) which crossing of the ray it is, from 0.
    """

    ray: Tensor
    voxel: Tensor
    near: Tensor
    far: Tensor
    layer: Tensor


@dataclass(frozen=True)
class _Rays:
    """Rays of a band of the picture and what they have gathered.

    Attributes:
        origin: (3,) in [0, 1] coordinates.
        direction: (P, 3) of length 1.
        jitter: (P,) in [0, 1).
        gathered: (P, 4) RGB and depth along the ray.
        left: (P,) transmittance.
        half: (P,) depth where it fell below one half, else 0.
    """

    origin: Tensor
    direction: Tensor
    jitter: Tensor
    gathered: Tensor
    left: Tensor
    half: Tensor


def render_field(
    field: RadianceField,
    view: View,
    *,
    size: int,
    jitter: NDArray[np.float32] | None = None,
    supersampling: int = 1,
) -> FieldPicture:
    """Render a radiance field where its tensors are.

    Args:
        field: the field.
        view: the camera, outside the world's cube.
        size: S, pixels a side.
        jitter: (S', S') offsets of the samples in [0, 1), S' being size * supersampling; by
            default one fixed pattern, so that pictures repeat.
        supersampling: rays along each axis of a pixel; the published previews use 4.

    Raises:
        InvalidConfigError: a size is out of range.
        ShapeError: the jitter does not fit.
    """
    fine = size * supersampling
    if size < 1 or not 1 <= supersampling <= 8 or fine > MAX_VIEW_SIZE:
        raise InvalidConfigError(
            f"size is {size} with {supersampling} rays a side of a pixel; expected 1..8 rays and "
            f"{MAX_VIEW_SIZE} in all."
        )
    if jitter is None:
        jitter = np.random.default_rng(0).random((fine, fine), np.float32)
    if jitter.shape != (fine, fine):
        raise ShapeError(f"The jitter is {jitter.shape}; expected {(fine, fine)}.")
    rows = max(_RAYS_PER_BAND // fine, 1)
    bands = [
        _render_band(field, view, fine, jitter, slice(start, min(start + rows, fine)))
        for start in range(0, fine, rows)
    ]
    picture = torch.cat(bands, dim=1)
    if supersampling > 1:
        picture = F.interpolate(picture[None], (size, size), mode="bilinear", antialias=True)[0]
    image, alpha, depth, half = (p.contiguous().numpy() for p in torch.split(picture, [3, 1, 1, 1]))
    return FieldPicture(image, alpha[0], depth[0], half[0])


def _render_band(
    field: RadianceField, view: View, size: int, jitter: NDArray[np.float32], rows: slice
) -> Tensor:
    """Return (6, rows, S): RGB, alpha, depth and percent depth."""
    device = field.trivec.device
    origin, directions = view.rays(size)
    directions = directions[rows].reshape(-1, 3)
    length = np.linalg.norm(directions, axis=1)
    directions /= length[:, None]
    crossings = _crossings(field, view, size, rows, directions)
    count = len(directions)
    rays = _Rays(
        torch.from_numpy((origin + 0.5).astype(np.float32)).to(device),
        torch.from_numpy(directions.astype(np.float32)).to(device),
        torch.from_numpy(np.ascontiguousarray(jitter[rows]).reshape(-1)).to(device),
        torch.zeros(count, 4, device=device),
        torch.ones(count, device=device),
        torch.zeros(count, device=device),
    )
    for chosen in _layers(crossings, rays.left):
        _march(field, rays, crossings, chosen)
    scale = torch.from_numpy(length.astype(np.float32))
    gathered, left, half = rays.gathered.cpu(), rays.left.cpu(), rays.half.cpu()
    depths = torch.stack((gathered[:, 3] / scale, half / scale), dim=1)
    stacked = torch.cat((gathered[:, :3], 1 - left[:, None], depths), dim=1)
    return stacked.T.reshape(6, -1, size)


def _crossings(
    field: RadianceField, view: View, size: int, rows: slice, directions: Doubles
) -> _Crossings:
    """Find the voxels that the rays of a band cross."""
    side = 2.0 ** -field.depth[:, 0].double().cpu().numpy()
    centre = field.position.double().cpu().numpy() - 0.5
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places, depth = view.project(centre[:, None] + corners * side[:, None, None], size)
    low = np.ceil(places.min(axis=1).clip(-1, size + 1) - 0.5).astype(np.int64)
    high = np.floor(places.max(axis=1).clip(-1, size + 1) - 0.5).astype(np.int64)
    low = np.maximum(low, [0, rows.start])
    high = np.minimum(high, [size - 1, rows.stop - 1])
    across = np.maximum(high - low + 1, 0)
    counts = np.where((depth > 0).all(axis=1), across.prod(axis=1), 0)
    voxel = np.repeat(np.arange(len(centre)), counts)
    within = count_up(counts)
    width = across[voxel, 0]
    row = low[voxel, 1] - rows.start + within // width
    ray = row * size + low[voxel, 0] + within % width
    near, far = _slabs(view.eye, directions[ray], centre[voxel], side[voxel])
    hit = np.flatnonzero(far > np.maximum(near, 0))
    order = hit[np.lexsort((near[hit], ray[hit]))]
    ray = ray[order]
    layer = count_up(np.bincount(ray, minlength=len(directions)).astype(np.intp))
    device = field.trivec.device
    arrays = (ray, voxel[order], near[order], far[order], layer)
    return _Crossings(*(torch.from_numpy(array).to(device) for array in arrays))


def _slabs(
    origin: Doubles, directions: Doubles, centre: Doubles, side: Doubles
) -> tuple[Doubles, Doubles]:
    """Return where rays (Q, 3) enter and leave cubes (Q, 3); leaving first where they miss."""
    tiny = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    middle, reach = (centre - origin) / tiny, (side / 2)[:, None] / np.abs(tiny)
    return (middle - reach).max(axis=1), (middle + reach).min(axis=1)


def _layers(crossings: _Crossings, left: Tensor) -> Iterator[Tensor]:
    """Yield the k-th crossings of the rays that still have light, k after k, in batches."""
    order = crossings.layer.argsort(stable=True)
    counts = torch.bincount(crossings.layer).tolist()
    for whole in torch.split(order, counts) if counts else ():
        layer = whole[left[crossings.ray[whole]] >= _MIN_TRANSMITTANCE]
        # of like length together: less padding
        span = crossings.far[layer] - crossings.near[layer]
        yield from torch.split(layer[span.argsort()], _SAMPLES_PER_BATCH // 16)


def _march(field: RadianceField, rays: _Rays, crossings: _Crossings, chosen: Tensor) -> None:
    """Add what rays meet in one voxel each."""
    ray, voxel = crossings.ray[chosen], crossings.voxel[chosen]
    resolution = field.trivec.shape[-1]
    scale = 2.0 ** field.depth[voxel, 0].double()
    step = 0.5 / resolution / scale
    jitter = rays.jitter[ray].double()
    first = torch.ceil(crossings.near[chosen] / step - jitter)
    counts = torch.ceil(crossings.far[chosen] / step - jitter) - first
    samples = int(counts.max()) if len(counts) else 0
    if samples < 1:
        return
    number = torch.arange(samples, device=step.device)
    along = (first[:, None] + number + jitter[:, None]) * step[:, None]
    distance = along.float()
    points = rays.origin + distance[..., None] * rays.direction[ray][:, None]
    corner = field.position[voxel] * scale[:, None].float() - 0.5
    local = points * scale[:, None, None].float() - corner[:, None]
    density, color = evaluate_voxels(field, voxel, local)
    alpha = (1 - torch.exp(-density * step[:, None].float())).clamp(max=_MAX_ALPHA)
    alpha = alpha * (number < counts[:, None])
    after = (1 - alpha).cumprod(dim=1) * rays.left[ray][:, None]
    before = torch.cat((rays.left[ray][:, None], after[:, :-1]), dim=1)
    is_lit = before >= _MIN_TRANSMITTANCE
    weights = (before - after) * is_lit
    seen = torch.cat((color, distance[..., None]), dim=2)
    rays.gathered[ray] += torch.bmm(weights[:, None], seen)[:, 0]
    crossed = (before >= 0.5) & (after < 0.5)
    rays.half[ray] += (distance * crossed).sum(dim=1)
    # where the light ran out on the way, what was left at that sample stays
    rays.left[ray] = torch.where(is_lit, after, 1.0).amin(dim=1)


def evaluate_voxels(field: RadianceField, voxel: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate the field inside voxels.

    Args:
        field: the field.
        voxel: (P,) int64 rows of the field.
        local: (P, S, 3) places within each voxel, in [0, 1].

    Returns:
        Density (P, S) per world unit and colour (P, S, 3) in [0, 1].
    """
    resolution = field.trivec.shape[-1]
    place = local * resolution - 0.5
    index = place.floor().clamp(0, max(resolution - 2, 0)).long()
    share = place - index
    vectors = field.trivec[voxel]
    product = torch.ones((), device=local.device)
    for axis in range(3):
        hats = local.new_zeros(*local.shape[:2], resolution)
        hats.scatter_(2, index[..., axis, None], 1 - share[..., axis, None])
        hats.scatter_(2, index[..., axis, None] + 1, share[..., axis, None])
        product = product * torch.bmm(hats, vectors[:, :, axis].transpose(1, 2))
    heads = torch.cat((field.density[voxel, :, None], SH_0 * field.features_dc[voxel, :, 0]), dim=2)
    summed = torch.bmm(product, heads)
    density = F.softplus(summed[..., 0], threshold=10.0)
    return density, torch.sigmoid(summed[..., 1:])
