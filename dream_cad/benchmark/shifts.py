"""Has a series changed? A control chart for its last value, a change point for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_BASELINE = 5
_SIGMAS = 3.0
# Of a normal distribution: the mean range of two values is 1.128 sigma, the median one 0.954.
_MEDIAN_RANGE = 0.954
_MIN_SIDE = 4
_DRAWS = 999
_ALPHA = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ControlChart:
    """Chart of individual values (Shewhart), with robust limits from the values before the last.

    Attributes:
        center: median of the baseline.
        low: lower limit.
        high: upper limit.
        is_alarm: whether the last value is worse than its limit.
        is_better: whether it is better than the other limit.
    """

    center: float
    low: float
    high: float
    is_alarm: bool
    is_better: bool


@dataclass(frozen=True)
class ChangePoint:
    """Where a series moved from one level to another.

    Attributes:
        index: first value of the new level.
        before: median up to there.
        after: median from there.
        p_value: by permutation of the series.
        is_worse: whether the new level is the worse one.
    """

    index: int
    before: float
    after: float
    p_value: float
    is_worse: bool


def control_chart(
    values: Sequence[float], *, higher_is_better: bool, relevant: float
) -> ControlChart | None:
    """Judge the last value by those before it; None with fewer than ``MIN_BASELINE`` of them.

    The limits are the median plus and minus the larger of three sigmas and the relevant
    difference; sigma is the median range of neighbours over 0.954, so a former outlier or step
    does not widen them.

    Args:
        values: oldest first.
        higher_is_better: direction.
        relevant: smallest part of the median that matters, for example 0.05.
    """
    baseline = np.asarray(values[:-1], dtype=np.float64)
    if len(baseline) < MIN_BASELINE:
        return None
    center = float(np.median(baseline))
    sigma = float(np.median(np.abs(np.diff(baseline)))) / _MEDIAN_RANGE
    reach = max(_SIGMAS * sigma, relevant * abs(center))
    low, high, last = center - reach, center + reach, values[-1]
    is_high, is_low = last > high, last < low
    return ControlChart(
        center,
        low,
        high,
        is_alarm=is_low if higher_is_better else is_high,
        is_better=is_high if higher_is_better else is_low,
    )


def find_change(
    values: Sequence[float], *, higher_is_better: bool, relevant: float, seed: int = 0
) -> ChangePoint | None:
    """Find the one split whose sides differ most, if it is significant and relevant.

    The statistic is that of the cumulative sum of the ranks about their mean (Pettitt 1979), its
    p-value from 999 drawn permutations. Sides have at least four values.

    Args:
        values: oldest first.
        higher_is_better: direction.
        relevant: smallest part of the former median that matters.
        seed: of the permutations.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) < 2 * _MIN_SIDE:
        return None
    ranks = _ranks(series)
    deviation = np.abs(_cumulative(ranks[None]))[0]
    index = int(deviation.argmax()) + _MIN_SIDE
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(ranks, (_DRAWS, 1)), axis=1)
    exceeding = int((np.abs(_cumulative(drawn)).max(axis=1) >= deviation.max() - 1e-9).sum())
    p_value = (1 + exceeding) / (1 + _DRAWS)
    before, after = float(np.median(series[:index])), float(np.median(series[index:]))
    if p_value > _ALPHA or abs(after - before) < relevant * abs(before) or before == after:
        return None
    return ChangePoint(index, before, after, p_value, (after < before) == higher_is_better)


def _ranks(series: Floats) -> Floats:
    """Return ranks, equal values sharing their mean rank."""
    _, inverse, count = np.unique(series, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (last - (count - 1) / 2)[inverse]
    return ranks


def _cumulative(ranks: Floats) -> Floats:
    """Return (N, splits) sums of the first ranks about their mean, over the allowed splits."""
    sums = np.cumsum(ranks - ranks.mean(axis=1, keepdims=True), axis=1)
    allowed: Floats = sums[:, _MIN_SIDE - 1 : sums.shape[1] - _MIN_SIDE]
    return allowed
