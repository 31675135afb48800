"""What the nano world knows: categories, their names, colours, and captions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from jobs.nano import furniture, things
from jobs.nano.primitives import Primitive, Solid

Builder = Callable[[Generator], list[Primitive]]

CATEGORIES: dict[str, tuple[Builder, tuple[str, ...]]] = {
    "chair": (furniture.chair, ("chair", "chair", "seat")),
    "armchair": (furniture.armchair, ("armchair", "throne")),
    "sofa": (furniture.sofa, ("sofa", "couch")),
    "stool": (furniture.stool, ("stool",)),
    "table": (furniture.table, ("table", "table", "desk")),
    "bench": (furniture.bench, ("bench",)),
    "bed": (furniture.bed, ("bed",)),
    "shelf": (furniture.shelf, ("shelf", "bookshelf", "bookcase")),
    "cabinet": (furniture.cabinet, ("cabinet", "cupboard", "wardrobe")),
    "lamp": (furniture.lamp, ("lamp", "lamp", "light")),
    "vase": (things.vase, ("vase",)),
    "bowl": (things.bowl, ("bowl",)),
    "mug": (things.mug, ("mug", "cup")),
    "bottle": (things.bottle, ("bottle", "flask")),
    "sword": (things.sword, ("sword", "blade")),
    "hammer": (things.hammer, ("hammer", "mallet")),
    "house": (things.house, ("house", "cottage", "hut")),
    "tree": (things.tree, ("tree",)),
    "car": (things.car, ("car", "car", "automobile")),
    "rocket": (things.rocket, ("rocket", "spaceship")),
    "snowman": (things.snowman, ("snowman",)),
    "sculpture": (things.sculpture, ("sculpture", "statue")),
    "robot": (things.robot, ("robot",)),
    "mushroom": (things.mushroom, ("mushroom", "toadstool")),
}

COLORS: dict[str, tuple[tuple[float, float, float], tuple[str, ...]]] = {
    "red": ((0.82, 0.10, 0.10), ("red", "red", "crimson", "scarlet")),
    "orange": ((0.95, 0.50, 0.08), ("orange",)),
    "yellow": ((0.95, 0.85, 0.15), ("yellow", "yellow", "golden")),
    "green": ((0.15, 0.60, 0.20), ("green", "green", "emerald")),
    "cyan": ((0.15, 0.78, 0.80), ("cyan", "cyan", "turquoise", "teal")),
    "blue": ((0.12, 0.25, 0.80), ("blue", "blue", "navy")),
    "purple": ((0.50, 0.15, 0.65), ("purple", "purple", "violet")),
    "pink": ((0.96, 0.55, 0.72), ("pink", "pink", "rose")),
    "brown": ((0.45, 0.26, 0.12), ("brown",)),
    "white": ((0.95, 0.95, 0.94), ("white", "white", "ivory")),
    "black": ((0.09, 0.09, 0.10), ("black", "black", "dark")),
}

MATERIALS: dict[str, float] = {  # highlight strength
    "": 0.0,
    "wooden": 0.0,
    "stone": 0.0,
    "plastic": 0.15,
    "ceramic": 0.2,
    "metal": 0.3,
}

# Roughness and metallic that a renderer would need to show the same; what the highlight cannot tell
# apart (wood, stone, nothing said) is equally rough.
ROUGHNESS_METALLIC: dict[str, tuple[float, float]] = {
    "": (0.85, 0.0),
    "wooden": (0.85, 0.0),
    "stone": (0.85, 0.0),
    "plastic": (0.5, 0.0),
    "ceramic": (0.35, 0.0),
    "metal": (0.2, 1.0),
}

TEMPLATES = ("{}", "a {}", "a {}", "a {}", "the {}", "a picture of a {}", "game asset {}")
_SIZE_WORDS = ("", "", "", "", "small", "big", "simple", "old", "modern", "toy", "little", "large")
_STRETCH_WORDS: dict[str, tuple[float, float, float]] = {
    "tall": (0.85, 0.85, 1.2),
    "wide": (1.0, 1.22, 0.92),
    "low": (1.1, 1.1, 0.8),
}
_DEFAULT_COLORS = {"tree": "green", "snowman": "white", "mushroom": "red"}
_ACCENT = (0.13, 0.13, 0.15)
_BROWN = COLORS["brown"][0]


@dataclass(frozen=True)
class Item:
    """One procedural object with what is true about it.

    Attributes:
        solid: normalised geometry and colours.
        category: key of CATEGORIES.
        color: key of COLORS, the main colour.
        caption: a prompt that describes it.
        gloss: highlight strength for rendering.
    """

    solid: Solid
    category: str
    color: str
    caption: str
    gloss: float


def make_item(seed: int, *, category: str | None = None, color: str | None = None) -> Item:
    """Make the object of a seed; the same arguments give the same object."""
    rng = np.random.default_rng(seed)
    drawn = str(rng.choice(list(CATEGORIES)))
    category = category or drawn
    builder, names = CATEGORIES[category]
    color_name = color or _draw_color(rng, category)
    material = str(rng.choice(list(MATERIALS)))
    parts = builder(rng)
    stretch_word = str(rng.choice(list(_STRETCH_WORDS))) if rng.random() < 0.2 else ""
    parts = [_stretched(part, _STRETCH_WORDS.get(stretch_word, (1, 1, 1))) for part in parts]
    solid = Solid.pack(parts, _palette(rng, color_name, material)).normalized()
    caption = _caption(rng, str(rng.choice(names)), color_name, material, stretch_word)
    return Item(solid, category, color_name, caption, MATERIALS[material])


def material_of(caption: str) -> str:
    """Return the material that a caption names, "" if none."""
    words = caption.split()
    return next((name for name in MATERIALS if name and name in words), "")


def vocabulary() -> list[str]:
    """Return every word a caption can hold, sorted."""
    groups = itertools.chain(
        (name for _, names in CATEGORIES.values() for name in names),
        (name for _, names in COLORS.values() for name in names),
        MATERIALS,
        _SIZE_WORDS,
        _STRETCH_WORDS,
        itertools.chain.from_iterable(template.split() for template in TEMPLATES),
    )
    return sorted(set(groups) - {"", "{}"})


def _draw_color(rng: Generator, category: str) -> str:
    natural = _DEFAULT_COLORS.get(category)
    if natural and rng.random() < 0.3:
        return natural
    return str(rng.choice(list(COLORS)))


def _palette(rng: Generator, color: str, material: str) -> NDArray[np.float32]:
    main = np.array(COLORS[color][0]) * rng.uniform(0.92, 1.05)
    if material == "wooden":
        main = 0.9 * main + 0.1 * np.array(_BROWN)
    second = _second_color(rng, color)
    palette = np.array([main, second, _ACCENT, _BROWN])
    clipped: NDArray[np.float32] = np.clip(palette, 0.02, 0.97).astype(np.float32)
    return clipped


def _second_color(rng: Generator, color: str) -> NDArray[np.float64]:
    pale: NDArray[np.float64] = np.array(COLORS["white"][0]) * 0.94
    if color == "white":
        contrast = str(rng.choice(["red", "blue", "orange"]))
        return np.array(COLORS[contrast][0], np.float64)
    blend: NDArray[np.float64] = 0.25 * np.array(COLORS[color][0]) + 0.75 * pale
    return blend


def _stretched(part: Primitive, factors: tuple[float, float, float]) -> Primitive:
    """Scale centres along the axes, and sizes where the part stands upright."""
    fx, fy, fz = factors
    if factors == (1, 1, 1):
        return part
    x, y, z = part.center
    a, b, c, d = part.size
    upright = np.allclose(part.rotation, np.eye(3))
    if part.kind in (0, 2) and upright:
        size = (a * fx, b * fy, c * fz, d)
    elif part.kind == 1 and upright:
        radial = float(np.sqrt(fx * fy))
        size = (a * radial, b * radial, c * fz, d)
    else:
        size = part.size
    return Primitive(
        part.kind, (x * fx, y * fy, z * fz), size, part.rotation, part.slot, part.carve
    )


def _caption(rng: Generator, noun: str, color: str, material: str, stretch_word: str) -> str:
    size_word = stretch_word or str(rng.choice(_SIZE_WORDS))
    color_word = str(rng.choice(COLORS[color][1]))
    words = [word for word in (size_word, color_word, material, noun) if word]
    return str(rng.choice(TEMPLATES)).format(" ".join(words))
