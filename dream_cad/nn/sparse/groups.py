"""Attention among the members of groups of unequal size, on scaled_dot_product_attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST = 8  # groups below this length are padded to it: fewer kernel calls


@dataclass(frozen=True)
class Bucket:
    """Groups padded to one length P.

    Attributes:
        rows: (G, P) int64 row of each member; padding repeats a valid row.
        mask: (G, P) bool, False at padding; None when nothing is padded.
    """

    rows: Tensor
    mask: Tensor | None


def bucket_groups(labels: Tensor) -> list[Bucket]:
    """Collect rows of equal label, padded within buckets of at most 25 % padding.

    Args:
        labels: (N,) int64.

    Returns:
        Buckets that hold every row exactly once; memory is linear in N.
    """
    if not len(labels):
        return []
    ordered, order = labels.sort(stable=True)
    counts = torch.unique_consecutive(ordered, return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    sizes = _padded_sizes(counts)
    buckets = []
    for size in torch.unique(sizes).tolist():
        chosen = sizes == size
        length = int(counts[chosen].max())
        steps = torch.arange(length, device=labels.device)
        places = (starts[chosen, None] + steps).clamp(max=len(labels) - 1)
        mask = steps < counts[chosen, None]
        buckets.append(Bucket(order[places], None if bool(mask.all()) else mask))
    return buckets


def _padded_sizes(counts: Tensor) -> Tensor:
    """Round up to quarter octaves: 8, 10, 12, 14, 16, 20, 24, ..."""
    counts = counts.clamp(min=_SMALLEST)
    quarter = (2 ** torch.log2(counts.double()).floor() / 4).clamp(min=1).long()
    return (counts + quarter - 1) // quarter * quarter


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, buckets: list[Bucket]) -> Tensor:
    """Attend within groups only.

    Args:
        q: (N, K, D) with K heads; k and v alike.
        k: (N, K, D).
        v: (N, K, D).
        buckets: the groups, which cover every row once.

    Returns:
        (N, K, D) in the dtype of ``q``; ``masked_attention`` is the plain twin.
    """
    out = torch.empty_like(v)
    for bucket in buckets:
        rows, mask = bucket.rows, bucket.mask
        q_rows, k_rows, v_rows = (x[rows].transpose(1, 2) for x in (q, k, v))
        keep = None if mask is None else mask[:, None, None, :]
        values = F.scaled_dot_product_attention(q_rows, k_rows, v_rows, attn_mask=keep)
        values = values.transpose(1, 2)
        if mask is None:
            out[rows.flatten()] = values.flatten(0, 1)
        else:
            out[rows[mask]] = values[mask]
    return out


def masked_attention(q: Tensor, k: Tensor, v: Tensor, labels: Tensor) -> Tensor:
    """Readable twin of ``grouped_attention``: one N x N masked attention over all rows."""
    scores = torch.einsum("nkd,mkd->knm", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(labels[:, None] != labels[None, :], float("-inf"))
    return torch.einsum("knm,mkd->nkd", scores.softmax(dim=-1), v)
