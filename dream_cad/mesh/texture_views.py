"""Textures from pictures of the object: the average of what each texel showed, or the best fit.

The rules are TRELLIS's (its spec, section 12.5). ``average_views`` lays each pixel on the nearest
texel. ``fit_texture`` seeks the texture whose renderings, through mip maps, are nearest to the
pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.mesh.view_texels import ViewTexels

FIT_STEPS = 2500
_FIRST_RATE, _LAST_RATE, _BETAS = 1e-2, 1e-5, (0.5, 0.9)
_SMOOTHNESS = 0.01
_INPAINT_RADIUS = 3
_MIN_ALPHA = 0.5
_KEPT_PIXELS = 8_000_000

OnStep = Callable[[float], None]


@dataclass(frozen=True)
class Observation:
    """What a view showed of the mesh.

    Attributes:
        texels: where its pixels look into the texture.
        colors: (P, 3) float32 in [0, 1] at these pixels.
    """

    texels: ViewTexels
    colors: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        texels: ViewTexels,
        picture: NDArray[np.float32],
        alpha: NDArray[np.float32] | None = None,
    ) -> Observation:
        """Take the pixels of a picture that show the mesh.

        Args:
            texels: of the view.
            picture: (S, S, 3) in [0, 1] on black.
            alpha: (S, S) opacity of the picture. With it the black is taken out of the colours, and
                what is less than half opaque is left out; without it, as published, all that is
                not black counts as it is.
        """
        colors = picture.reshape(-1, 3)[texels.pixel]
        if alpha is None:
            lit = np.flatnonzero((colors > 0).any(axis=1))
        else:
            share = alpha.reshape(-1)[texels.pixel]
            lit = np.flatnonzero(share >= _MIN_ALPHA)
            colors = (colors / np.maximum(share, _MIN_ALPHA)[:, None]).clip(0, 1)
        return cls(texels.select(lit), colors[lit].astype(np.float32, copy=False))


def average_views(
    observations: Sequence[Observation], size: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average the pixels that fall on each texel.

    Args:
        observations: the views.
        size: T, texels a side.

    Returns:
        Texture (T, T, 3) in [0, 1], row 0 at the top (v = 1), and (T, T) the texels that any
        pixel fell on; the others are zero.
    """
    total = np.zeros((size * size, 4))
    for seen in observations:
        column, row = np.floor(seen.texels.uv * size).astype(np.int64).clip(0, size - 1).T
        texel = (size - 1 - row) * size + column
        for channel in range(3):
            total[:, channel] += np.bincount(texel, seen.colors[:, channel], size * size)
        total[:, 3] += np.bincount(texel, minlength=size * size)
    hit = total[:, 3] > 0
    mean = total[:, :3] / np.maximum(total[:, 3:], 1)
    return mean.reshape(size, size, 3).astype(np.float32), hit.reshape(size, size)


def fit_texture(
    observations: Sequence[Observation],
    size: int,
    *,
    start: NDArray[np.float32] | None = None,
    steps: int = FIT_STEPS,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: OnStep | None = None,
) -> NDArray[np.float32]:
    """Fit a texture to views by gradient descent, one random view a step.

    Args:
        observations: the views; those that show nothing are left out.
        size: T, texels a side, a power of two.
        start: (T, T, 3) in [0, 1], row 0 at the top; by default black, as published.
        steps: how many; the rate falls along a cosine over them.
        seed: of the order of views.
        device: where to compute.
        on_step: called with the fraction done.

    Returns:
        (T, T, 3) float32, row 0 at the top, not clipped.

    Raises:
        InvalidConfigError: the side is no power of two.
        ShapeError: no view shows anything, or the start does not fit.
    """
    if size < 2 or size & (size - 1):
        raise InvalidConfigError(f"texture_size is {size}; a fit wants a power of two.")
    usable = [seen for seen in observations if len(seen.colors)]
    if not usable or (start is not None and start.shape != (size, size, 3)):
        raise ShapeError("No view shows the mesh, or the first texture has another size.")
    first = np.zeros((size, size, 3), np.float32) if start is None else start[::-1]
    texture = torch.from_numpy(first.copy()).to(device).permute(2, 0, 1).requires_grad_()
    optimizer = torch.optim.Adam([texture], lr=_FIRST_RATE, betas=_BETAS)
    random = np.random.default_rng(seed)
    is_kept = sum(len(seen.colors) for seen in usable) <= _KEPT_PIXELS
    lookups = [_Lookup.of(seen, size, torch.device(device), is_kept) for seen in usable]
    for step, number in enumerate(random.integers(len(usable), size=steps).tolist()):
        optimizer.zero_grad()
        loss = lookups[number].difference(texture) + _SMOOTHNESS * total_variation(texture)
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        if on_step is not None:
            on_step((step + 1) / steps)
    return texture.detach().permute(1, 2, 0).flip(0).cpu().numpy()


def total_variation(texture: Tensor) -> Tensor:
    """Mean absolute difference of neighbours of (3, T, T) along x plus that along y."""
    across = (texture[:, :, 1:] - texture[:, :, :-1]).abs().mean()
    return across + (texture[:, 1:] - texture[:, :-1]).abs().mean()


def learning_rate(step: int, steps: int = FIT_STEPS) -> float:
    """Return the rate that is set after a step."""
    share = (1 + math.cos(math.pi * step / steps)) / 2
    return _LAST_RATE + (_FIRST_RATE - _LAST_RATE) * share


def mip_levels(texture: Tensor) -> list[Tensor]:
    """Return (3, T, T) and its halvings by means of four, down to one texel."""
    levels = [texture]
    while levels[-1].shape[1] > 1:
        levels.append(F.avg_pool2d(levels[-1][None], 2)[0])
    return levels


@dataclass(frozen=True)
class _Lookup:
    """A view as a trilinear look-up into the joined texels of all mip levels.

    Attributes:
        uv: (P, 2) in [0, 1], v up.
        level: (P,) float mip level.
        colors: (P, 3) wanted.
        size: texels a side of level 0.
        is_kept: keep texels and weights, 64 bytes a pixel, instead of finding them each time.
    """

    uv: Tensor
    level: Tensor
    colors: Tensor
    size: int
    is_kept: bool

    @classmethod
    def of(cls, seen: Observation, size: int, device: torch.device, is_kept: bool) -> _Lookup:
        width = np.maximum(seen.texels.footprint * size, 1e-6)
        level = np.log2(width).clip(0, math.log2(size)).astype(np.float32)
        arrays = (seen.texels.uv, level, seen.colors)
        uv, level_, colors = (torch.from_numpy(a).to(device) for a in arrays)
        return cls(uv, level_, colors, size, is_kept)

    @cached_property
    def _kept_taps(self) -> tuple[Tensor, Tensor]:
        index, weight = self._taps()
        return index.int(), weight

    def difference(self, texture: Tensor) -> Tensor:
        """Mean absolute difference of what the texture (3, T, T) shows to what was seen."""
        joined = torch.cat([level.flatten(1) for level in mip_levels(texture)], dim=1)
        index, weight = self._kept_taps if self.is_kept else self._taps()
        taps = joined.T.contiguous().index_select(0, index.flatten()).view(*index.shape, 3)
        return ((taps * weight[..., None]).sum(dim=0) - self.colors).abs().mean()

    def _taps(self) -> tuple[Tensor, Tensor]:
        """Return joined texels (8, P) and their weights (8, P)."""
        top = int(math.log2(self.size))
        low = self.level.floor().clamp(max=top).long()
        high = (low + 1).clamp(max=top)
        share = self.level - low
        parts = [self._bilinear(low, 1 - share), self._bilinear(high, share)]
        indices, weights = zip(*parts, strict=True)
        return torch.cat(indices), torch.cat(weights)

    def _bilinear(self, level: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        side = self.size >> level
        # T^2 + (T/2)^2 + ...: the texels of the levels before this one
        offset = (4 * self.size**2 - 4 * side * side) // 3
        place = self.uv * side[:, None] - 0.5
        corner = place.floor()
        part = place - corner
        indices, weights = [], []
        for step_y in (0, 1):
            for step_x in (0, 1):
                x = (corner[:, 0].long() + step_x) % side
                y = (corner[:, 1].long() + step_y) % side
                along_x = part[:, 0] if step_x else 1 - part[:, 0]
                along_y = part[:, 1] if step_y else 1 - part[:, 1]
                indices.append(offset + y * side + x)
                weights.append(along_x * along_y * share)
        return torch.stack(indices), torch.stack(weights)


def inpaint(texture: NDArray[np.float32], filled: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Turn a texture (T, T, 3) into bytes and inpaint what is not filled (Telea's method)."""
    levels = (np.clip(texture, 0, 1) * 255).astype(np.uint8)
    missing = (~filled).astype(np.uint8)
    if not missing.any() or not filled.any():
        return levels
    painted = cv2.inpaint(levels, missing, _INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return np.asarray(painted, np.uint8)
