"""Surface normals at the sample points, for the model that learns normal maps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.nano.catalogue import Item, make_item
from jobs.nano.dataset import SHARD_ITEMS, Shard

_SCALE = 127


def inward_normals(item: Item, points: NDArray[np.float16]) -> NDArray[np.int8]:
    """Return unit normals times 127 at points (P, 3); they point into the solid.

    Stable Fast 3D's normals do so too (its spec, section 11).
    """
    _, gradient = item.solid.distance_and_gradient(points.astype(np.float32))
    inward: NDArray[np.int8] = np.rint(-_SCALE * gradient).astype(np.int8)
    return inward


def shard_normals(shard: Shard, folder: Path) -> NDArray[np.int8]:
    """Return (N, P, 3) int8 normals of a shard's points, computed once and kept in ``folder``."""
    kept = folder / f"normals_{shard.seeds[0] // SHARD_ITEMS:04d}.npy"
    if not kept.exists():
        pairs = zip(shard.seeds, shard.points, strict=True)
        normals = np.stack([inward_normals(make_item(seed), points) for seed, points in pairs])
        folder.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, normals)
        os.replace(partial, kept)
    stored: NDArray[np.int8] = np.load(kept)
    return stored
