"""Pictures of the procedural objects in drawn materials and lights, for the material estimator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jobs.nano.catalogue import ROUGHNESS_METALLIC, Item, make_item, material_of
from jobs.nano.dataset import SHARD_ITEMS, view_of
from jobs.nano.render import SeenSurface, see_solid, shade_plainly
from jobs.nano.shading import Material, draw_environment, draw_material, shade

SIZE = 64
"""Pixels of a side: what the estimator looks at."""

LOOKS = 4
"""Materials and lights each object is shown in, beside the other stages' look."""

MATERIAL_ITEMS = 6_000
"""Objects that are shown so, the first of the other stages'."""

_LOOK_STREAM = 4


class MaterialSamples(NamedTuple):
    """Pictures (N, S, S, 4) uint8, and the roughness and metallic they show, (N, 2) float32."""

    pictures: NDArray[np.uint8]
    materials: NDArray[np.float32]


def drawn_material(seed: int, look: int = 0) -> Material:
    """Return the material that an object's seed draws for one of its looks."""
    return draw_material(np.random.default_rng([seed, _LOOK_STREAM, look]))


def material_picture(
    item: Item, seed: int, *, look: int = 0, material: Material | None = None, size: int = 128
) -> NDArray[np.uint8]:
    """Picture (size, size, 4) of an item in a drawn light, and in the drawn material or another."""
    camera, _ = view_of(seed)
    seen = see_solid(item.solid, camera, size=size)
    return _look(seen, -camera.basis()[3], seed, look, material)


def _look(
    seen: SeenSurface,
    towards_camera: NDArray[np.float32],
    seed: int,
    look: int,
    material: Material | None = None,
) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, _LOOK_STREAM, look])
    drawn = draw_material(rng)
    return shade(seen, material or drawn, draw_environment(rng, towards_camera))


def item_samples(seed: int) -> MaterialSamples:
    """Show the object of a seed in the other stages' look and in ``LOOKS`` of its own.

    The other stages' pictures come first: the estimator meets their like in what text draws.
    """
    item = make_item(seed)
    camera, light_deg = view_of(seed)
    seen = see_solid(item.solid, camera, size=SIZE)
    pictures = [shade_plainly(seen, camera, item.gloss, light_deg)]
    materials: list[tuple[float, float]] = [ROUGHNESS_METALLIC[material_of(item.caption)]]
    for look in range(LOOKS):
        pictures.append(_look(seen, -camera.basis()[3], seed, look))
        material = drawn_material(seed, look)
        materials.append((material.roughness, material.metallic))
    return MaterialSamples(np.stack(pictures), np.array(materials, np.float32))


def make_material_data(folder: Path, items: int) -> Iterator[Path]:
    """Make the samples of ``items`` objects, yielding each file; finished ones are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, items, SHARD_ITEMS):
        path = material_path(folder, first)
        if not path.exists():
            parts = [item_samples(seed) for seed in range(first, first + SHARD_ITEMS)]
            samples = MaterialSamples(
                *(np.concatenate(column) for column in zip(*parts, strict=True))
            )
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **samples._asdict())
            os.replace(partial, path)
        yield path


def material_path(folder: Path, first_seed: int) -> Path:
    """Return the file of the samples from a seed on; it covers the seeds of one shard."""
    return folder / f"material_{first_seed // SHARD_ITEMS:04d}.npz"


def looks_of(path: Path) -> NDArray[np.uint8]:
    """Load the pictures (N, LOOKS, S, S, 4) of a file, without the other stages' look."""
    with np.load(path) as file:
        pictures: NDArray[np.uint8] = file["pictures"]
    return pictures.reshape(-1, LOOKS + 1, *pictures.shape[1:])[:, 1:]


def load_material_data(paths: list[Path]) -> MaterialSamples:
    """Load the samples of some files."""
    columns: list[list[NDArray[np.generic]]] = [[], []]
    for path in paths:
        with np.load(path) as file:
            for column, name in zip(columns, MaterialSamples._fields, strict=True):
                column.append(file[name])
    pictures, materials = (np.concatenate(column) for column in columns)
    return MaterialSamples(pictures, materials)
