"""Readiness for use in real time, per target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dream_cad.benchmark.scores import PERFECT, Score, geometric_mean

TargetProfile = Literal["mobile", "desktop", "hero", "print"]
SMALLEST_LOD = 300
_VERTEX_COLORS, _UNPAINTED = 40.0, 20.0
_WEIGHTS = {"budget": 2.0, "draw calls": 1.0, "surface": 2.0, "appearance": 2.0}


@dataclass(frozen=True)
class Budget:
    """What a target affords for one object; None is unlimited."""

    faces: int | None
    draw_calls: int | None
    texture: int | None


BUDGETS: dict[TargetProfile, Budget] = {
    "mobile": Budget(faces=10_000, draw_calls=1, texture=1024),
    "desktop": Budget(faces=50_000, draw_calls=3, texture=2048),
    "hero": Budget(faces=150_000, draw_calls=8, texture=4096),
    "print": Budget(faces=None, draw_calls=None, texture=None),
}


@dataclass(frozen=True)
class GameInput:
    """What readiness depends on: counts, and scores 0..100 of other aspects."""

    faces: int
    draw_calls: int
    texture_resolution: int
    has_vertex_colors: bool
    surface_score: float
    uv_score: float
    texture_score: float


def score_game_readiness(given: GameInput, profile: TargetProfile) -> Score:
    """Score one target: the geometric mean of four parts.

    Budget ``100 min(1, budget / faces)`` (weight 2), draw calls alike (1), surface: the smaller of
    validity and manifold score (2), appearance (2): the UV score with a texture (times ``budget /
    side`` beyond the texture budget), 40 with vertex colours only, 20 unpainted.
    """
    budget = BUDGETS[profile]
    parts = {
        "budget": _within(given.faces, budget.faces),
        "draw calls": _within(given.draw_calls, budget.draw_calls),
        "surface": given.surface_score,
        "appearance": _appearance(given, budget),
    }
    weakest = min(parts, key=lambda name: parts[name])
    limit = "no limit" if budget.faces is None else f"{budget.faces}"
    reason = (
        f"{profile}: {given.faces} faces (budget {limit}), {given.draw_calls} draw calls; weakest "
        f"part: {weakest} with {parts[weakest]:.0f}."
    )
    return Score(geometric_mean(parts, _WEIGHTS), reason)


def advise_lods(faces: int) -> list[int]:
    """Return face counts of levels of detail: halves of ``faces`` down to ``SMALLEST_LOD``."""
    levels = [faces]
    while levels[-1] // 2 >= SMALLEST_LOD and len(levels) < 6:
        levels.append(levels[-1] // 2)
    return levels


def _within(amount: int, budget: int | None) -> float:
    if amount <= 0:
        return 0.0
    return PERFECT if budget is None else PERFECT * min(1.0, budget / amount)


def _appearance(given: GameInput, budget: Budget) -> float:
    if given.texture_resolution > 0:
        return given.uv_score * _within(given.texture_resolution, budget.texture) / PERFECT
    return _VERTEX_COLORS if given.has_vertex_colors else _UNPAINTED
