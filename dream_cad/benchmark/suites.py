"""Prompt suites: what models are asked for, in six groups, written for this project."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dream_cad.exceptions import InvalidConfigError

SuiteName = Literal["smoke", "standard", "stress"]
SUITES: tuple[SuiteName, ...] = get_args(SuiteName)
_STRESS_SEEDS = 3

# group -> (prompt, tags); the first prompt of each group is the smoke suite.
PROMPTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "simple": (
        ("a red wooden chair", ("furniture", "thin-parts")),
        ("a blue mug", ("vessel", "handle")),
        ("a white vase", ("vessel", "rotational")),
        ("a green bottle", ("vessel", "rotational")),
        ("a yellow table", ("furniture", "thin-parts")),
        ("a brown bowl", ("vessel", "concave")),
        ("a black hammer", ("tool",)),
        ("an orange cube with rounded edges", ("primitive",)),
    ),
    "medium": (
        ("a metal desk lamp", ("furniture", "thin-parts")),
        ("a bookshelf with five boards", ("furniture", "concave", "counting")),
        ("a toy car with black wheels", ("vehicle", "two-colours")),
        ("a medieval sword with a golden hilt", ("weapon", "thin-parts", "two-colours")),
        ("an acoustic guitar", ("instrument", "thin-parts")),
        ("a leather armchair with wooden feet", ("furniture", "two-materials")),
        ("a rocket with three red fins", ("vehicle", "counting", "two-colours")),
        ("a park bench with iron legs", ("furniture", "two-materials", "thin-parts")),
    ),
    "complex": (
        ("a purple robot with two arms", ("figure", "counting")),
        ("a steam locomotive with connecting rods", ("vehicle", "small-parts")),
        ("a bicycle with spoked wheels", ("vehicle", "thin-parts", "holes")),
        ("an open treasure chest full of coins", ("container", "small-parts")),
        ("a grandfather clock with a visible pendulum", ("furniture", "nested")),
        ("a sailing ship with three masts and rigging", ("vehicle", "thin-parts", "counting")),
        ("a chess set on its board", ("game", "many-objects")),
        ("a mechanical pocket watch with exposed gears", ("machine", "small-parts")),
    ),
    "organic": (
        ("a green tree", ("plant",)),
        ("a red mushroom with white dots", ("plant", "pattern")),
        ("a sleeping cat curled up", ("animal", "smooth")),
        ("a galloping horse", ("animal", "thin-parts")),
        ("a potted cactus with arms", ("plant", "two-materials")),
        ("an octopus with curled tentacles", ("animal", "thin-parts")),
        ("a human hand with open fingers", ("anatomy", "counting")),
        ("a bunch of bananas", ("food", "many-objects")),
    ),
    "architectural": (
        ("a white house with a red roof", ("building", "two-colours")),
        ("a stone lighthouse", ("building", "rotational")),
        ("a gothic cathedral with two towers", ("building", "counting", "small-parts")),
        ("a spiral staircase", ("part", "thin-parts", "helix")),
        ("an arched stone bridge", ("structure", "holes")),
        ("a Greek temple with columns", ("building", "counting", "holes")),
        ("a wooden windmill with four sails", ("building", "thin-parts", "counting")),
        ("a pagoda with five roofs", ("building", "counting")),
    ),
    "stylised": (
        ("a small snowman", ("figure", "cartoon")),
        ("a low-poly fox", ("animal", "low-poly")),
        ("a voxel-style dragon", ("creature", "voxel")),
        ("a cartoon cottage with a crooked chimney", ("building", "cartoon")),
        ("an art deco statue of a dancer", ("figure", "period")),
        ("a steampunk teapot with copper pipes", ("vessel", "genre")),
        ("an origami crane", ("animal", "flat-surfaces", "thin-parts")),
        ("a cyberpunk motorcycle", ("vehicle", "genre")),
    ),
}
GROUPS = tuple(PROMPTS)


@dataclass(frozen=True)
class SuiteCase:
    """One thing to generate.

    Attributes:
        key: names the case within its suite; safe in file names.
        prompt: what is asked for; with a truth, the caption of its picture.
        group: one of ``GROUPS``, or "ground-truth".
        tags: what is hard about it.
        seed: of the first run.
        truth: number of the procedural object whose picture is the input, None for text.
    """

    key: str
    prompt: str
    group: str
    tags: tuple[str, ...]
    seed: int = 0
    truth: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)


def text_cases(suite: SuiteName) -> list[SuiteCase]:
    """Return the cases that begin with a prompt.

    smoke: the first prompt of each group; standard: all; stress: all with three seeds each.

    Raises:
        InvalidConfigError: there is no such suite.
    """
    if suite not in SUITES:
        raise InvalidConfigError(f"Suite {suite!r} is unknown; expected {', '.join(SUITES)}.")
    taken = 1 if suite == "smoke" else None
    seeds = range(_STRESS_SEEDS if suite == "stress" else 1)
    return [
        SuiteCase(f"{group}-{number}-s{seed}", prompt, group, tags, seed)
        for group, prompts in PROMPTS.items()
        for number, (prompt, tags) in enumerate(prompts[:taken], 1)
        for seed in seeds
    ]
