"""Training samples made ahead: renders, captions, and points with distance and colour."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.nano.catalogue import Item, make_item
from jobs.nano.render import Camera, render_solid

SHARD_ITEMS = 250
POINTS = 6144
BOX = 0.56
"""Half side of the cube the uniform points fill; objects fill [-0.5, 0.5]."""

HELD_OUT_SEED = 10_000_000
"""Items from this seed on are never trained on."""

VIEW_AZIMUTH_DEG = 35.0
VIEW_SPREAD_DEG = 30.0
"""Pictures for reconstruction are taken from within so many degrees of the three-quarter view."""

TEXT_VIEW_SPREAD_DEG = 12.0
"""The text stage draws from close to the three-quarter view: fewer views are learnt in fewer
steps, and the reconstruction network, trained on all of them, does not need the others."""

_ELEVATION_DEG = (10.0, 32.0)
# A view is drawn from another stream than its object: from the same one, the first number would
# decide colour and azimuth alike, and each colour would be seen from its own side only.
_VIEW_STREAM, _TEXT_VIEW_STREAM = 2, 3


def view_of(seed: int, *, is_text_view: bool = False) -> tuple[Camera, float]:
    """Return the three-quarter view that ``seed`` draws and the light's azimuth relative to it."""
    rng = np.random.default_rng([seed, _TEXT_VIEW_STREAM if is_text_view else _VIEW_STREAM])
    spread = TEXT_VIEW_SPREAD_DEG if is_text_view else VIEW_SPREAD_DEG
    azimuth = VIEW_AZIMUTH_DEG + rng.uniform(-spread, spread)
    return Camera(azimuth, rng.uniform(*_ELEVATION_DEG)), rng.uniform(-70.0, 20.0)


def picture_of(
    item: Item, seed: int, *, is_text_view: bool = False, size: int = 128
) -> NDArray[np.uint8]:
    """Render the item from the view that ``seed`` draws, (size, size, 4) uint8."""
    camera, light_deg = view_of(seed, is_text_view=is_text_view)
    return render_solid(item.solid, camera, size=size, gloss=item.gloss, light_deg=light_deg)


def sample_points(
    item: Item, rng: np.random.Generator, count: int = POINTS
) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.uint8]]:
    """Draw points, two thirds near the surface.

    Returns:
        positions (count, 3), signed distance (count,) and colours (count, 3) of the nearest part.
    """
    solid = item.solid
    near_count = 2 * count // 3
    seeds = rng.uniform(-0.5, 0.5, (near_count, 3)).astype(np.float32)
    surface = solid.project(seeds, steps=3)
    surface = surface[np.abs(solid.distance(surface)) < 3e-3]
    surface = surface[rng.integers(0, len(surface), near_count)]
    spread = rng.choice([0.01, 0.04], (near_count, 1))
    near = surface + rng.normal(size=surface.shape) * spread
    free = rng.uniform(-BOX, BOX, (count - near_count, 3))
    points = np.concatenate([near, free]).astype(np.float32)
    points = np.clip(points, -BOX, BOX)[rng.permutation(count)]
    half = points.astype(np.float16)
    wide = half.astype(np.float32)
    colors = (solid.color(wide) * 255 + 0.5).astype(np.uint8)
    return half, solid.distance(wide).astype(np.float16), colors


@dataclass(frozen=True)
class Shard:
    """Samples of consecutive seeds.

    Attributes:
        seeds: N item seeds;
        pictures: (N, 128, 128, 4) uint8; text_pictures: as pictures, for the text stage;
        points: (N, P, 3) float16; distances: (N, P) float16;
        colors: (N, P, 3) uint8; captions, categories, color_names: N strings each.
    """

    seeds: list[int]
    pictures: NDArray[np.uint8]
    text_pictures: NDArray[np.uint8]
    points: NDArray[np.float16]
    distances: NDArray[np.float16]
    colors: NDArray[np.uint8]
    captions: list[str]
    categories: list[str]
    color_names: list[str]


def make_shard(folder: Path, index: int) -> Path:
    """Make the samples of one shard and publish its file; a finished one is left as it is."""
    path = folder / f"shard_{index:04d}.npz"
    if path.exists():
        return path
    first = index * SHARD_ITEMS
    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "pictures",
            "text_pictures",
            "points",
            "distances",
            "colors",
            "captions",
            "categories",
            "color_names",
        )
    }
    for seed in range(first, first + SHARD_ITEMS):
        item = make_item(seed)
        points, distances, colors = sample_points(item, np.random.default_rng([seed, 1]))
        drawn = (picture_of(item, seed), picture_of(item, seed, is_text_view=True))
        row = (*drawn, points, distances, colors)
        labels = (item.caption, item.category, item.color)
        for name, value in zip(columns, (*row, *labels), strict=True):
            columns[name].append(value)
    partial = path.with_suffix(".partial.npz")
    arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    np.savez(partial, **arrays)
    os.replace(partial, path)
    return path


def load_shard(path: Path) -> Shard:
    """Load one shard file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    labels = ("captions", "categories", "color_names")
    first = int(path.stem.removeprefix("shard_")) * SHARD_ITEMS
    return Shard(
        seeds=list(range(first, first + len(arrays["captions"]))),
        pictures=arrays["pictures"],
        text_pictures=arrays["text_pictures"],
        points=arrays["points"],
        distances=arrays["distances"],
        colors=arrays["colors"],
        **{name: [str(value) for value in arrays[name]] for name in labels},
    )


def make_dataset(folder: Path, items: int, workers: int) -> Iterator[Path]:
    """Make shards for ``items`` objects in ``workers`` processes, yielding each finished file."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-items // SHARD_ITEMS)
    recipe = {"items": items, "points": POINTS, "box": BOX, "shard_items": SHARD_ITEMS}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1))
    with ProcessPoolExecutor(workers) as pool:
        pending = [pool.submit(make_shard, folder, index) for index in range(shards)]
        for future in as_completed(pending):
            yield future.result()
