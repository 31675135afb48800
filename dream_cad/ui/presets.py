"""Presets: what somebody wants, as the options that a model happens to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dream_cad.ui.schema_form import Field


@dataclass(frozen=True)
class Preset:
    """A wish.

    Attributes:
        name: on the wire of the page.
        title, purpose: for people.
        options: wished values; a model takes those it has, within its limits.
        needs: options (and a value) without which the wish makes no sense.
    """

    name: str
    title: str
    purpose: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[tuple[str, str], ...] = ()


PRESETS = (
    Preset("balanced", "Balanced", "The model's own settings."),
    Preset(
        "fast",
        "Fast draft",
        "Few steps and a coarse grid: an idea of the shape.",
        {"resolution": 64, "octree_resolution": 128, "num_inference_steps": 12, "texture": False},
    ),
    Preset(
        "game",
        "Game ready",
        "About 10,000 triangles, with a texture where the model can make one.",
        {"target_faces": 10_000, "texture": True, "texture_size": 1024, "min_component": 0.02},
    ),
    Preset(
        "high",
        "High quality",
        "A fine grid and more steps; takes longer.",
        {
            "resolution": 256,
            "octree_resolution": 384,
            "num_inference_steps": 50,
            "texture": True,
            "texture_size": 2048,
        },
    ),
    Preset(
        "splats",
        "Splats",
        "By way of Gaussian splats, which carry fine colour.",
        {"reconstruction": "lgm", "representation": "gaussian_splatting"},
        needs=(("reconstruction", "lgm"), ("representation", "gaussian_splatting")),
    ),
)


def preset(name: str) -> Preset:
    """Return a preset by name; the balanced one for an unknown name."""
    return next((entry for entry in PRESETS if entry.name == name), PRESETS[0])


def values_for(wish: Preset, fields: Sequence[Field]) -> dict[str, Any]:
    """Return a preset's values for a model's options, moved into their limits."""
    by_name = {entry.name: entry for entry in fields}
    return {
        name: _within(by_name[name], value)
        for name, value in wish.options.items()
        if name in by_name and _is_legal(by_name[name], value)
    }


def is_offered(wish: Preset, fields: Sequence[Field]) -> bool:
    """Return whether a preset makes sense for a model."""
    by_name = {entry.name: entry for entry in fields}
    return not wish.needs or any(
        name in by_name and value in by_name[name].choices for name, value in wish.needs
    )


def _is_legal(entry: Field, value: Any) -> bool:
    return entry.kind != "choice" or value in entry.choices


def _within(entry: Field, value: Any) -> Any:
    if entry.kind not in ("integer", "number") or isinstance(value, bool):
        return value
    if entry.least is not None:
        value = max(value, entry.least)
    if entry.most is not None:
        value = min(value, entry.most)
    return int(value) if entry.kind == "integer" else value
