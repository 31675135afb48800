"""Scores from 0 to 100 with their reasons, and the rules for joining them.

Every score falls (or stays) when the defect it measures grows. Joined scores are weighted geometric
means, so one zero makes the whole zero; an arithmetic mean would hide it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

PERFECT = 100.0


@dataclass(frozen=True)
class Score:
    """A score and what led to it.

    Attributes:
        value: 0..100, higher is better.
        reason: one sentence with the measured numbers.
    """

    value: float
    reason: str


def decay(amount: float, scale: float) -> float:
    """Return ``1 / (1 + amount / scale)``: 1 without the defect, one half at ``scale``."""
    return 1.0 / (1.0 + max(amount, 0.0) / scale)


def share(part: float, whole: float) -> float:
    """Return ``part / whole``, or 0 where the whole is 0."""
    return float(part) / float(whole) if whole > 0 else 0.0


def geometric_mean(values: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Join scores 0..100 by a weighted geometric mean; any zero gives zero.

    Args:
        values: scores; empty gives 0.
        weights: positive weight of each name in ``values``; they need not add to 1.
    """
    if not values or min(values.values()) <= 0:
        return 0.0
    total = sum(weights[name] for name in values)
    logarithm = sum(weights[name] * math.log(value) for name, value in values.items())
    return min(PERFECT, math.exp(logarithm / total))
