"""How fairly owners were served: what each received over what was its due.

In every step of ten seconds the GPU-seconds that the bulk work of a model got are a given: how
they were divided is judged, not how many there were or which model a GPU had loaded. An owner's
due is its weighted max-min share of them, never more than it asked for: what of its jobs was
worked on in the step and what still waits at its end, by model. Dues are added up over windows of
five minutes, and Jain's index is taken of received over due among the owners whose due in the
window is worth a few of the longest jobs.

A GPU that works on another owner's job when work arrives counts as withheld although no job is
interrupted, and so does the head start of jobs whose level rose with age: the index sees both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

STEP_S = 10.0
WINDOW_S = 300.0
LEAST_DUE_S = 200.0
"""Five of the longest jobs: below it an owner's ratio is that of whole numbers."""
_LEAST_OWNERS = 3
_STEPS = round(WINDOW_S / STEP_S)
_ROUNDS = 30
_CLOSE = 1e-9


@dataclass(frozen=True)
class Work:
    """Jobs as arrays, all (J,).

    Attributes:
        owner: number of the owner.
        model: number of the model.
        arrives: when each came, in seconds.
        starts: when a GPU began it; NaN if none did.
        seconds: that a GPU takes for it.
    """

    owner: NDArray[np.int64]
    model: NDArray[np.int64]
    arrives: Floats
    starts: Floats
    seconds: Floats


def jain(values: Floats) -> float:
    """Return Jain's index of some values, of which one at least is positive: 1/n to 1."""
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def index_of_dues(work: Work, weights: Floats, models: int, end_s: float) -> dict[str, Any]:
    """Return the mean and the least of Jain's index of received over due, over the windows.

    Args:
        work: of the owners judged.
        weights: (O,) of owners.
        models: how many there are.
        end_s: whole windows until then are judged.
    """
    steps = int(end_s // WINDOW_S) * _STEPS
    received, asked = received_and_asked(work, len(weights), models, steps)
    dues = np.zeros((steps, len(weights)))
    for step in range(steps):
        dues[step] = max_min_shares(asked[step], received[step].sum(0), weights)
    return _summary(_windows(received.sum(2)), _windows(dues))


def received_and_asked(work: Work, owners: int, models: int, steps: int) -> tuple[Floats, Floats]:
    """Return the GPU-seconds (steps, O, M) received in each step, and asked for in it."""
    edges = STEP_S * np.arange(steps + 1)
    received = np.empty((steps, owners, models))
    asked = np.empty_like(received)
    group = work.owner * models + work.model
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(owners * models + 1))
    for number in range(owners * models):
        mine = order[bounds[number] : bounds[number + 1]]
        seconds, starts = work.seconds[mine], np.nan_to_num(work.starts[mine], nan=np.inf)
        came = _amount_until(edges[1:], work.arrives[mine], seconds)
        begun = _amount_until(edges[1:], starts, seconds)
        got = np.diff(_done_until(edges, starts, seconds))
        place = np.s_[:, number // models, number % models]
        received[place] = got
        asked[place] = got + np.maximum(came - begun, 0.0)
    return received, asked


def max_min_shares(asked: Floats, capacity: Floats, weights: Floats) -> Floats:
    """Return the weighted max-min fair division of several capacities, summed over them.

    The least share over weight is as large as can be, then the next least, and so on (progressive
    filling). Shares can be had together if no set of capacities is too small for what can only
    come from it: the minimum cut between owners and capacities, over all sets of those.

    Args:
        asked: (O, M) that each owner can use of each capacity.
        capacity: (M,), few: time grows with the number of their sets.
        weights: (O,) above 0.

    Returns:
        (O,) what is due to each owner.
    """
    sets = (np.arange(1 << len(capacity))[:, None] >> np.arange(len(capacity))) & 1  # (S, M)
    inside, outside = sets @ capacity, (1 - sets) @ asked.T  # (S,), (S, O)
    wanted = asked.sum(1)
    due: Floats = np.zeros(len(weights))
    is_open = wanted > 0

    def at(level: float) -> tuple[Floats, Floats]:
        """Return the shares if open owners are filled to a level, and what each set lacks."""
        shares = np.where(is_open, np.minimum(level * weights, wanted), due)
        return shares, shares.sum() - inside - np.minimum(shares, outside).sum(1)

    slack = _CLOSE * max(float(capacity.sum()), 1.0)
    for _ in weights:  # each round fills one owner at least
        if not is_open.any():
            break
        low, high = 0.0, float((wanted / weights)[is_open].max())
        shares, lacks = at(high)
        if lacks.max() <= slack:
            return shares
        for _ in range(_ROUNDS):
            level = (low + high) / 2
            low, high = (level, high) if at(level)[1].max() <= slack else (low, level)
        shares, lacks = at(high)
        # Full are those that take from the set that is too small for one step more.
        is_full = (shares > outside[lacks.argmax()]) | (shares >= wanted)
        due = at(low)[0]
        is_open = is_open & ~is_full
    return due


def _amount_until(times: Floats, at: Floats, amounts: Floats) -> Floats:
    """Return for each time the sum of the amounts of events until then."""
    order = np.argsort(at, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(amounts[order])])
    return total[np.searchsorted(at[order], times, side="right")]


def _done_until(times: Floats, starts: Floats, seconds: Floats) -> Floats:
    """Return for each time the seconds worked until then on jobs that start at ``starts``."""
    begun = np.isfinite(starts)
    starts, seconds = starts[begun], seconds[begun]
    ends = starts + seconds
    one = np.ones_like(starts)
    # Of every job min(t - start, seconds): t x (running) - their starts + seconds of the ended.
    running = _amount_until(times, starts, one) - _amount_until(times, ends, one)
    of_running = _amount_until(times, starts, starts) - _amount_until(times, ends, starts)
    return running * times - of_running + _amount_until(times, ends, seconds)


def _windows(steps: Floats) -> Floats:
    """Add up (steps, O) over windows."""
    summed: Floats = steps.reshape(len(steps) // _STEPS, _STEPS, steps.shape[1]).sum(1)
    return summed


def _summary(received: Floats, due: Floats) -> dict[str, Any]:
    found = [
        jain((got / owed)[judged])
        for got, owed, judged in zip(received, due.clip(1e-9), due >= LEAST_DUE_S, strict=True)
        if judged.sum() >= _LEAST_OWNERS and got[judged].any()
    ]
    if not found:
        return {"mean": None, "min": None, "windows": 0}
    return {
        "mean": round(float(np.mean(found)), 4),
        "p10": round(float(np.percentile(found, 10)), 4),
        "min": round(min(found), 4),
        "windows": len(found),
    }
