"""Pictures of Gaussians, fast: each tile of the picture blends the Gaussians that reach it.

The same pictures as ``dream_cad.splats.rasterise`` but for rounding. Tiles with about as many
Gaussians are blended together as padded batches: the exponents are one small matrix product (a
polynomial of the place within the tile), transmittance one running product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.views import MAX_VIEW_SIZE, View
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    PLAIN_FILTER,
    ProjectedSplats,
    ScreenFilter,
    project,
)
from dream_cad.splats.rasterise import SplatPicture

_TILE = 8
# Pixels times Gaussians that are blended at once: the arrays stay in a core's cache.
_TERMS_PER_BATCH = 1 << 18
_BLOCK = 128  # Gaussians of a tile, near to far, between looks at whether light is left
_CHANNELS = 4
_HIDDEN = -1e4  # logarithm of an opacity that rounds to zero


@dataclass(frozen=True)
class _Tiles:
    """Which Gaussians reach which tile.

    Attributes:
        number: (T,) tiles that any reaches, ``row * side + column``.
        first: (T,) where each tile's Gaussians begin in ``splats``.
        count: (T,) how many.
        splats: (Q,) ranks by depth, near to far in each tile.
        side: tiles along an edge of the picture.
    """

    number: Tensor
    first: Tensor
    count: Tensor
    splats: Tensor
    side: int


def draw(
    cloud: GaussianCloud,
    view: View,
    *,
    size: int,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    screen_filter: ScreenFilter = PLAIN_FILTER,
    device: str | torch.device = "cpu",
) -> SplatPicture:
    """Draw a cloud.

    Args:
        cloud: the Gaussians.
        view: the camera.
        size: S, pixels a side.
        background: RGB in [0, 1].
        screen_filter: how Gaussians are widened and cut; its tiles are multiples of 8 pixels.
        device: where to compute.

    Returns:
        The picture; equals ``rasterise`` within float32's rounding.

    Raises:
        InvalidConfigError: a size is out of range.
    """
    if not 1 <= size <= MAX_VIEW_SIZE or (screen_filter.tile or _TILE) % _TILE:
        raise InvalidConfigError(
            f"size is {size} and the filter's tile {screen_filter.tile}; expected 1.."
            f"{MAX_VIEW_SIZE} pixels and a multiple of {_TILE}."
        )
    seen = project(cloud, view, size, screen_filter, device=device)
    tiles = _assign(seen, size)
    blended = _blend_tiles(seen, tiles)
    wide = tiles.side * _TILE
    picture = blended.new_zeros(tiles.side**2, _TILE, _TILE, _CHANNELS + 1)
    picture[tiles.number] = blended.reshape(-1, _TILE, _TILE, _CHANNELS + 1)
    picture = picture.reshape(tiles.side, tiles.side, _TILE, _TILE, -1).transpose(1, 2)
    picture = picture.reshape(wide, wide, -1)[:size, :size].cpu()
    left = 1 - picture[..., 4:]
    image = (picture[..., :3] + left * torch.tensor(background)).clamp(0, 1)
    return SplatPicture(
        image.permute(2, 0, 1).contiguous().numpy(),
        picture[..., 4].contiguous().numpy(),
        picture[..., 3].contiguous().numpy(),
        seen.radii.cpu().numpy(),
    )


def _assign(seen: ProjectedSplats, size: int) -> _Tiles:
    """List the tiles where a Gaussian is at least as opaque as is drawn."""
    side = -(-size // _TILE)
    reach = (2 * (seen.opacity / MIN_ALPHA).clamp(min=1).log()).sqrt()
    extent = reach[:, None] * seen.covariance.diagonal(dim1=1, dim2=2).sqrt()
    low = torch.maximum(seen.low, (seen.mean - extent).clamp(-1, size).ceil().long())
    high = torch.minimum(seen.high - 1, (seen.mean + extent).clamp(-1, size - 1).floor().long())
    drawn = ((low <= high).all(dim=1) & (seen.opacity >= MIN_ALPHA)).nonzero()[:, 0]
    low, high = low[drawn] // _TILE, high[drawn] // _TILE
    across = high - low + 1
    counts = across.prod(dim=1)
    number = torch.arange(len(drawn), device=drawn.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    within = torch.arange(len(number), device=drawn.device) - before[number]
    width = across[number, 0]
    row = low[number, 1] + torch.div(within, width, rounding_mode="floor")
    tile = (row * side + low[number, 0] + within % width).int()
    tile, order = tile.sort(stable=True)
    found, count = torch.unique_consecutive(tile, return_counts=True)
    return _Tiles(found.long(), count.cumsum(0) - count, count, drawn[number[order]], side)


def _blend_tiles(seen: ProjectedSplats, tiles: _Tiles) -> Tensor:
    """Return (T, pixels, RGB, depth and alpha) of the tiles."""
    shapes, values = _tables(seen)
    out = shapes.new_zeros(len(tiles.number), _TILE**2, _CHANNELS + 1)
    basis = _basis(shapes.device)
    centre = torch.stack((tiles.number % tiles.side, tiles.number // tiles.side), dim=1)
    centre = (centre * _TILE + (_TILE - 1) / 2).float()
    for chosen, splats in _batches(tiles, padding=len(seen.mean)):
        left = out.new_ones(len(chosen), _TILE**2, 1)
        while len(chosen) and splats.shape[1]:
            rows, splats = splats[:, :_BLOCK], splats[:, _BLOCK:]
            coefficients = _polynomials(shapes[rows], centre[chosen])
            alpha = torch.matmul(basis, coefficients).exp_().clamp_(max=MAX_ALPHA)
            alpha = F.threshold(alpha, MIN_ALPHA, 0.0, inplace=True)
            blended, left = _composite(alpha, values[rows], left)
            out[chosen] += blended
            # Tiles where no pixel has light left are done, however many lie behind.
            lit = (left >= MIN_TRANSMITTANCE).any(dim=1)[:, 0]
            chosen, splats, left = chosen[lit], splats[lit], left[lit]
    return out


def _composite(alpha: Tensor, values: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Blend (B, P, K) opacities of values (B, K, C) near to far, from a light (B, P, 1).

    Returns:
        (B, P, C), and the light behind.
    """
    left = alpha.neg_().add_(1).cumprod(dim=2).mul_(light)
    # What a Gaussian takes away of the light is its weight; the one that would leave too little is
    # not drawn any more, nor those behind it.
    weights = torch.cat((light, left[..., :-1]), dim=2).sub_(left)
    weights.mul_(left >= MIN_TRANSMITTANCE)
    return torch.bmm(weights, values), left[..., -1:]


def _tables(seen: ProjectedSplats) -> tuple[Tensor, Tensor]:
    """Return (M + 1, 6) shapes and (M + 1, 5) values; the last row is never visible.

    A shape is the mean, the inverse covariance as -a/2, -b, -d/2, and the opacity's logarithm.
    """
    a, b, d = seen.covariance[:, 0, 0], seen.covariance[:, 0, 1], seen.covariance[:, 1, 1]
    determinant = a * d - b * b
    halved = (-0.5 * d / determinant, b / determinant, -0.5 * a / determinant)
    columns = (*seen.mean.unbind(1), *halved, seen.opacity.clamp(min=1e-12).log())
    shapes = F.pad(torch.stack(columns, dim=1), (0, 0, 0, 1))
    shapes[-1, -1] = _HIDDEN
    depth = seen.depth[:, None].float()
    values = torch.cat((seen.color, depth, torch.ones_like(depth)), dim=1)
    return shapes.float(), F.pad(values, (0, 0, 0, 1))


def _basis(device: torch.device) -> Tensor:
    """Return (P, 6) monomials 1, x, y, x^2, xy, y^2 of the places of a tile's pixels."""
    steps = torch.arange(_TILE, device=device) - (_TILE - 1) / 2
    y, x = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), dim=1)


def _polynomials(shapes: Tensor, centre: Tensor) -> Tensor:
    """Return (B, 6, K): the logarithm of the opacity around the tiles' centres (B, 2)."""
    mean_x, mean_y, a, b, d, log_opacity = shapes.unbind(-1)
    x, y = mean_x - centre[:, :1], mean_y - centre[:, 1:]
    constant = log_opacity + a * x * x + b * x * y + d * y * y
    return torch.stack((constant, -2 * a * x - b * y, -2 * d * y - b * x, a, b, d), dim=1)


def _batches(tiles: _Tiles, padding: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tiles (B,) and their Gaussians (B, K), ``padding`` where there are fewer."""
    order = torch.argsort(tiles.count)
    counts = tiles.count[order].tolist()
    steps = torch.arange(max(counts, default=0), device=order.device)
    start = 0
    while start < len(counts):
        stop = start + 1
        while stop < len(counts) and _fits(stop + 1 - start, counts[start], counts[stop]):
            stop += 1
        chosen = order[start:stop]
        length = counts[stop - 1]
        rows = (tiles.first[chosen, None] + steps[:length]).clamp(max=len(tiles.splats) - 1)
        missing = steps[:length] >= tiles.count[chosen, None]
        yield chosen, tiles.splats[rows].masked_fill(missing, padding)
        start = stop


def _fits(tiles: int, fewest: int, most: int) -> bool:
    """Whether a batch stays small, with little padding."""
    return (
        tiles * min(most, _BLOCK) * _TILE**2 <= _TERMS_PER_BATCH
        and most <= math.ceil(1.25 * fewest) + 4
    )
