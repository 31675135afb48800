"""The decoded shape as a field: exact, or by FlashVDM's selected attention (spec section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dream_cad.models.hunyuan3d_mini.shape_vae import GeometryDecoder, ShapeMemory
from dream_cad.nn.attention import AttentionKernel

TopKMode = Literal["mean", "merge"]

_COARSE_STRIDE, _BOX_STRIDE, _MERGE_STRIDE = 100, 50, 30
_MERGE_PROBABILITY = 1e-6
_CUBES = 4
_BOXES = 6


class ExactField:
    """Every point attends to every token of the shape.

    Args:
        decoder: the geometry decoder.
        memory: of one shape (batch 1).
        chunk_points: points evaluated at once; bounds the memory.
    """

    def __init__(
        self, decoder: GeometryDecoder, memory: ShapeMemory, chunk_points: int = 8000
    ) -> None:
        self._decoder = decoder
        self._memory = memory
        self._chunk = chunk_points

    @torch.no_grad()
    def fine(self, points: Tensor) -> Tensor:
        """Return logits (P,) float32 of points (P, 3)."""
        parts = [
            self._decoder(chunk[None], self._memory)[0].float()
            for chunk in torch.split(points, self._chunk)
        ]
        return torch.cat(parts) if parts else points.new_zeros(0)

    def coarse(self, points: Tensor) -> Tensor:
        """Return logits (n, n, n) of a grid of points (n, n, n, 3)."""
        return self.fine(points.reshape(-1, 3)).view(points.shape[:3])


def kept_tokens(count: int) -> int:
    """Return how many of a shape's tokens a group of points attends to."""
    return {3072: 1024, 512: 256}.get(count, count // 3)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    return x.expand(index.shape[0], -1, -1, -1).gather(
        2, index[..., None].expand(-1, -1, -1, x.shape[-1])
    )


def topk_attention(q: Tensor, k: Tensor, v: Tensor, *, stride: int) -> Tensor:
    """Attend to the tokens that every ``stride``-th point likes best, chosen head by head.

    Args:
        q: (B, heads, P, C); each batch row chooses for itself.
        k: (1 or B, heads, N, C).
        v: as ``k``.
        stride: distance of the points that choose.

    Returns:
        (B, heads, P, C).
    """
    liking = (q[:, :, ::stride] @ k.transpose(-1, -2)).mean(dim=2)
    best = liking.topk(kept_tokens(k.shape[2]), dim=-1).indices
    return F.scaled_dot_product_attention(q, _gather(k, best), _gather(v, best))


def merged_attention(q: Tensor, k: Tensor, v: Tensor, *, stride: int) -> Tensor:
    """Attend to every token that any ``stride``-th point gives some weight, the same for all heads.

    Nearly exact: what is left out has a softmax weight below 1e-6 for the points that choose.
    """
    weight = (q[:, :, ::stride] @ k.transpose(-1, -2)).softmax(dim=-1).mean(dim=1)
    kept = (weight > _MERGE_PROBABILITY).any(dim=1)[0].nonzero()[:, 0]
    return F.scaled_dot_product_attention(q, k[:, :, kept], v[:, :, kept])


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, *, counts: Sequence[int], mode: TopKMode
) -> Tensor:
    """Attend box by box: rows of ``q`` (1, heads, P, C) are consecutive boxes of ``counts``."""
    parts = torch.split(q, list(counts), dim=2)
    if mode == "merge":
        done = [merged_attention(part, k, v, stride=_MERGE_STRIDE) for part in parts]
    else:
        done = [topk_attention(part, k, v, stride=_BOX_STRIDE) for part in parts]
    return torch.cat(done, dim=2)


class FlashField:
    """FlashVDM (Lai et al. 2025, arXiv 2503.16302): nearby points share a choice of tokens.

    Args:
        decoder: the geometry decoder.
        memory: of one shape (batch 1).
        mode: ``mean`` chooses a fixed number of tokens a head, ``merge`` as many as matter.
        chunk_points: points evaluated at once; a box is never split.
    """

    def __init__(
        self,
        decoder: GeometryDecoder,
        memory: ShapeMemory,
        mode: TopKMode = "mean",
        chunk_points: int = 8000,
    ) -> None:
        self._decoder = decoder
        self._memory = memory
        self._mode = mode
        self._chunk = chunk_points

    @torch.no_grad()
    def coarse(self, points: Tensor) -> Tensor:
        """Return logits (n, n, n) of a grid (n, n, n, 3) whose n divides by four."""
        side = points.shape[0] // _CUBES
        cubes = points.view(_CUBES, side, _CUBES, side, _CUBES, side, 3)
        cubes = cubes.permute(0, 2, 4, 1, 3, 5, 6).reshape(_CUBES**3, side**3, 3)
        rows = max(self._chunk // side**3, 1)

        def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return topk_attention(q, k, v, stride=_COARSE_STRIDE)

        logits = torch.cat([self._ask(part, kernel) for part in torch.split(cubes, rows)])
        grid = logits.view(_CUBES, _CUBES, _CUBES, side, side, side).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(points.shape[:3])

    @torch.no_grad()
    def fine(self, points: Tensor) -> Tensor:
        """Return logits (P,) float32 of points (P, 3) in lexicographic order."""
        if len(points) == 0:
            return points.new_zeros(0)
        boxes = _box_numbers(points)
        # Stable: which points choose depends on their order inside a box.
        order = boxes.sort(stable=True).indices
        counts = torch.bincount(boxes, minlength=_BOXES**3)
        logits = torch.empty(len(points), device=points.device)
        start = 0
        for pack in _packs([int(count) for count in counts if count], self._chunk):
            chosen = order[start : start + sum(pack)]
            start += sum(pack)

            def kernel(q: Tensor, k: Tensor, v: Tensor, pack: list[int] = pack) -> Tensor:
                return grouped_attention(q, k, v, counts=pack, mode=self._mode)

            logits[chosen] = self._ask(points[chosen][None], kernel)[0]
        return logits

    def _ask(self, points: Tensor, kernel: AttentionKernel) -> Tensor:
        logits: Tensor = self._decoder(points, self._memory, kernel)
        return logits.float()


def _box_numbers(points: Tensor) -> Tensor:
    low = points.amin(0)
    extent = (points.amax(0) - low).clamp(min=torch.finfo(points.dtype).tiny)
    cell = ((points - low) / extent * (_BOXES - 0.001)).floor().long()
    return cell[:, 0] * _BOXES**2 + cell[:, 1] * _BOXES + cell[:, 2]


def _packs(counts: list[int], most: int) -> list[list[int]]:
    """Group consecutive boxes so that a group holds up to ``most`` points; no box is split."""
    packs: list[list[int]] = []
    room = 0
    for count in counts:
        if not packs or count > room:
            packs.append([])
            room = most
        packs[-1].append(count)
        room -= count
    return packs
