"""Paired statistics that have an answer for every input, the degenerate ones too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
_EXACT_PAIRS = 14  # 2^14 sign flips are enumerated; more pairs are drawn
_DRAWS = 10_000
_BOOTSTRAP = 4_000
_POWER_Z = 0.8416  # 80 % power


@dataclass(frozen=True)
class PairedComparison:
    """B against A on one metric; differences are b - a.

    Attributes:
        metric: its name.
        n: pairs with both values.
        median_a: median of A, NaN without pairs.
        median_b: median of B, NaN without pairs.
        difference: mean of b - a, NaN without pairs.
        interval: 95 % bootstrap interval of that mean.
        effect: Cohen's d of the pairs (difference over its standard deviation); infinite where
            every pair differs by the same amount, 0 where none differs.
        p_value: two-sided; 1 where nothing can be told.
        p_adjusted: after Holm's correction over the metrics.
        test: which test gave it.
        smallest_visible: difference that n pairs would show with 80 % power at the 5 % level.
        note: power or degeneracy in words.
    """

    metric: str
    n: int
    median_a: float
    median_b: float
    difference: float
    interval: tuple[float, float]
    effect: float
    p_value: float
    p_adjusted: float
    test: str
    smallest_visible: float
    note: str


def compare_pairs(metric: str, a: Floats, b: Floats, *, seed: int = 0) -> PairedComparison:
    """Compare paired values (N,) of A and B; pairs with a value that is not finite are left out.

    Up to 14 pairs: exact sign-flip permutation test of the mean. More: Wilcoxon's signed-rank test
    where the differences are not mostly tied, else the permutation test by 10,000 draws.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    usable = np.isfinite(first) & np.isfinite(second)
    first, second = first[usable], second[usable]
    difference = second - first
    n = len(difference)
    if n == 0:
        nan = math.nan
        return PairedComparison(
            metric, 0, nan, nan, nan, (nan, nan), 0.0, 1.0, 1.0, "none", nan, "No complete pair."
        )
    mean = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    test, p_value = _test(difference, seed)
    visible = (stats.norm.ppf(0.975) + _POWER_Z) * spread / math.sqrt(n)
    return PairedComparison(
        metric=metric,
        n=n,
        median_a=float(np.median(first)),
        median_b=float(np.median(second)),
        difference=mean,
        interval=_interval(difference, seed),
        effect=_effect(mean, spread),
        p_value=p_value,
        p_adjusted=p_value,
        test=test,
        smallest_visible=float(visible),
        note=_note(difference, n, float(visible)),
    )


def compare_successes(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> PairedComparison:
    """Compare paired successes (N,) by McNemar's exact test on the pairs that disagree."""
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(stats.binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
    base = compare_pairs("success", first.astype(np.float64), second.astype(np.float64))
    return PairedComparison(
        **{
            **vars(base),
            "p_value": p_value,
            "p_adjusted": p_value,
            "test": "McNemar, exact",
            "note": f"Only A succeeded {only_a} times, only B {only_b} times, of {len(first)}.",
        }
    )


def holm(p_values: list[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _test(difference: Floats, seed: int) -> tuple[str, float]:
    moved = difference[difference != 0]
    if len(moved) == 0:
        return "none: all pairs equal", 1.0
    if len(moved) <= _EXACT_PAIRS:
        return "permutation, exact", _exact_permutation(moved)
    if len(np.unique(np.abs(moved))) > len(moved) // 2:
        return "Wilcoxon signed-rank", float(stats.wilcoxon(moved).pvalue)
    return "permutation, drawn", _drawn_permutation(moved, seed)


def _exact_permutation(moved: Floats) -> float:
    n = len(moved)
    flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums = np.abs((1 - 2 * flips) @ moved)
    observed = abs(float(moved.sum()))
    return float((sums >= observed * (1 - 1e-12)).mean())


def _drawn_permutation(moved: Floats, seed: int) -> float:
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (_DRAWS, len(moved)))
    reached = np.abs(signs @ moved) >= abs(float(moved.sum())) * (1 - 1e-12)
    return float((reached.sum() + 1) / (_DRAWS + 1))


def _interval(difference: Floats, seed: int) -> tuple[float, float]:
    n = len(difference)
    rows = np.random.default_rng(seed).integers(0, n, (_BOOTSTRAP, n))
    low, high = np.quantile(difference[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _effect(mean: float, spread: float) -> float:
    if spread > 0:
        return mean / spread
    return math.copysign(math.inf, mean) if mean else 0.0


def _note(difference: Floats, n: int, visible: float) -> str:
    if n < 6:
        return f"{n} pairs are too few: no difference can reach p < 0.05 below 6 pairs."
    if not difference.any():
        return "All pairs are equal."
    return f"{n} pairs show a difference of {visible:.3g} or more (80 % power)."
