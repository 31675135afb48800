"""Which side of a comparison wins, and why, in plain words (rule: docs/quality.md).

A pair goes to the side with more relevant advantages in it. One question is then asked of all pairs
together, so that the verdict and its p-value cannot disagree, whatever single metrics say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream_cad.benchmark.paired import PairedComparison, compare_pairs, holm

Floats = NDArray[np.float64]
_FEWEST = 7
"""Below so many pairs not even a win of all of them is significant at 5 %: 2 · 2 / 2⁶ > 0.05."""


@dataclass(frozen=True)
class MetricPairs:
    """One metric of both sides.

    Attributes:
        comparison: its statistics.
        gain: (N,) how much better B is in each pair, in the metric's unit; NaN where unknown.
        relevant: the smallest difference that matters.
    """

    comparison: PairedComparison
    gain: Floats
    relevant: float

    def winner(self, alpha: float) -> int:
        """Return -1 where A is better by a relevant and significant amount, 1 for B, else 0."""
        compared = self.comparison
        if compared.n == 0 or compared.p_adjusted >= alpha:
            return 0
        if abs(compared.difference) < self.relevant:
            return 0
        return int(np.sign(np.nanmean(self.gain)))


@dataclass(frozen=True)
class Verdict:
    """What was decided.

    Attributes:
        side: -1 for A, 1 for B, 0 for a tie.
        p_value: of the question that decided; below alpha exactly where there is a winner.
        preferences: (N,) -1, 0 or 1: the side that each pair goes to.
        reason: in plain words.
    """

    side: int
    p_value: float
    preferences: NDArray[np.int64]
    reason: str


def pair_preferences(
    success_a: NDArray[np.bool_], success_b: NDArray[np.bool_], metrics: Sequence[MetricPairs]
) -> NDArray[np.int64]:
    """Return (N,) the side that each pair goes to: -1, 0 or 1.

    The side that alone succeeded, else the one with more advantages of a relevant size.
    """
    advantages = np.zeros(len(success_a), dtype=np.int64)
    for metric in metrics:
        gain = np.nan_to_num(metric.gain)
        is_relevant = (np.abs(gain) >= metric.relevant) & (gain != 0)
        advantages += np.where(is_relevant, np.sign(gain), 0).astype(np.int64)
    alone = success_b.astype(np.int64) - success_a.astype(np.int64)
    preferences: NDArray[np.int64] = np.where(alone != 0, alone, np.sign(advantages))
    return preferences


def decide(
    names: tuple[str, str],
    success: PairedComparison,
    preferences: NDArray[np.int64],
    metrics: Sequence[MetricPairs],
    alpha: float,
    *,
    seed: int = 0,
) -> Verdict:
    """Decide by successes if they differ, else by the sides that the pairs go to.

    Args:
        names: of A and B.
        success: the comparison of successes.
        preferences: (N,) of ``pair_preferences``.
        metrics: every metric but success.
        alpha: level of significance of the two questions together (Holm).
        seed: of drawn permutations.
    """
    preferred = compare_pairs(
        "preference", np.zeros(len(preferences)), preferences.astype(np.float64), seed=seed
    )
    p_success, p_preferred = holm([success.p_value, preferred.p_value])
    if p_success < alpha:
        side = int(np.sign(success.difference))
        reason = f"{_name(names, side)} succeeds more often: {success.note} p = {p_success:.2g}."
        return Verdict(side, p_success, preferences, reason)
    side = int(np.sign(preferences.sum())) if p_preferred < alpha else 0
    title = f"{_name(names, side)} is better" if side else "Tie"
    reason = f"{title}: {_counted(names, preferences)}, p = {p_preferred:.2g}."
    parts = [reason, *_trade(names, metrics, alpha), *_irrelevant(metrics, alpha)]
    if not side and len(preferences) < _FEWEST:
        parts.append(f"{len(preferences)} pairs are too few to show anything.")
    return Verdict(side, p_preferred, preferences, " ".join(parts))


def _name(names: tuple[str, str], side: int) -> str:
    return names[side > 0]


def _counted(names: tuple[str, str], preferences: NDArray[np.int64]) -> str:
    first, second = int((preferences < 0).sum()), int((preferences > 0).sum())
    rest = len(preferences) - first - second
    return (
        f"of {len(preferences)} pairs {first} go to {names[0]}, {second} to {names[1]} and {rest} "
        "to neither"
    )


def _trade(names: tuple[str, str], metrics: Sequence[MetricPairs], alpha: float) -> list[str]:
    """Say which side is better at what."""
    found = []
    for side in (-1, 1):
        won = [m.comparison for m in metrics if m.winner(alpha) == side]
        if won:
            listed = ", ".join(
                f"{c.metric} ({c.median_a:.3g} against {c.median_b:.3g}, p = {c.p_adjusted:.2g})"
                for c in won
            )
            found.append(f"{_name(names, side)} wins {listed}.")
    return found


def _irrelevant(metrics: Sequence[MetricPairs], alpha: float) -> list[str]:
    """Say which metrics differ by less than matters, though certainly."""
    return [
        f"{metric.comparison.metric} differs (p = {metric.comparison.p_adjusted:.2g}), but by "
        f"{abs(metric.comparison.difference):.3g} on average; less than {metric.relevant:.3g} "
        "does not matter."
        for metric in metrics
        if metric.comparison.p_adjusted < alpha
        and abs(metric.comparison.difference) < metric.relevant
    ]
