from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from benchmarks.simulation.fairness import (
    STEP_S,
    Work,
    index_of_dues,
    jain,
    max_min_shares,
    received_and_asked,
)


def shares(asked: list[list[float]], capacity: list[float], weights: list[float]) -> list[float]:
    found = max_min_shares(np.array(asked, float), np.array(capacity, float), np.array(weights))
    return [round(float(value), 4) for value in found]


def test_jain_is_one_for_equals_and_one_over_n_for_a_monopoly() -> None:
    assert jain(np.array([2.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert jain(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_shares_are_by_weight_and_never_more_than_was_asked_for() -> None:
    assert shares([[100], [100], [100]], [60], [1.0, 2.0, 3.0]) == [10, 20, 30]
    assert shares([[100], [4], [100]], [60], [1.0, 1.0, 1.0]) == [28, 4, 28]


def test_who_wants_one_small_capacity_only_gets_what_it_has() -> None:
    """The second owner can take from the large one, so the small one is the first's alone."""
    assert shares([[100, 0], [100, 100]], [10, 90], [1.0, 1.0]) == [10, 90]
    assert shares([[100, 0], [100, 100]], [70, 30], [1.0, 1.0]) == [50, 50]


@pytest.mark.parametrize("seed", range(5))
def test_the_least_share_is_what_a_linear_program_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    asked = random.uniform(0, 40, (6, 3)) * (random.random((6, 3)) < 0.6) + 0.1
    weights = random.choice([1.0, 2.0, 4.0], 6)
    capacity = np.minimum(random.uniform(5, 60, 3), asked.sum(0))
    found = max_min_shares(asked, capacity, weights)
    assert found.sum() == pytest.approx(capacity.sum(), rel=1e-5)
    # Variables: what each owner takes of each capacity, and the level t to be made largest.
    level = np.array([*np.zeros(18), -1.0])
    takes = np.array([[*-(np.arange(18) // 3 == o).astype(float), weights[o]] for o in range(6)])
    fits = np.array([[*(np.arange(18) % 3 == m).astype(float), 0.0] for m in range(3)])
    # Nobody's level is above what the least demanding one asks for: until then nobody is full.
    bound = (asked.sum(1) / weights).min()
    best = linprog(
        level,
        np.vstack([takes, fits]),
        np.concatenate([np.zeros(6), capacity]),
        bounds=[*((0, limit) for limit in asked.ravel()), (0, bound)],
    )
    assert (found / weights).min() == pytest.approx(-best.fun, rel=1e-4)


def work(rows: list[tuple[int, int, float, float, float]]) -> Work:
    owner, model, arrives, starts, seconds = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return Work(owner, model, arrives, starts, seconds)


def test_what_was_received_and_asked_for_is_counted_by_steps() -> None:
    jobs = work(
        [
            (0, 0, 0.0, 5.0, 10.0),  # five seconds in each of two steps
            (0, 1, 0.0, np.nan, 7.0),  # waits for ever
            (1, 0, 12.0, 21.0, 3.0),
        ]
    )
    received, asked = received_and_asked(jobs, owners=2, models=2, steps=3)
    assert STEP_S == 10.0
    assert received[:, 0, 0].tolist() == [5.0, 5.0, 0.0]
    assert received[:, 1, 0].tolist() == [0.0, 0.0, 3.0]
    assert asked[:, 0, 1].tolist() == [7.0, 7.0, 7.0]
    assert asked[:, 1, 0].tolist() == [0.0, 3.0, 3.0]


def run_of(order: list[int], gpus: int = 4) -> Work:
    """Jobs of ten seconds of three owners, all there at 0, begun in an order on some GPUs."""
    starts = [10.0 * (place // gpus) for place in range(len(order))]
    return work([(owner, 0, 0.0, start, 10.0) for owner, start in zip(order, starts, strict=True)])


def test_taking_turns_is_fair_and_first_come_first_served_is_not() -> None:
    weights = np.ones(3)
    in_turns = index_of_dues(run_of([0, 1, 2] * 120), weights, 1, 300.0)
    by_arrival = index_of_dues(run_of([0] * 120 + [1] * 120 + [2] * 120), weights, 1, 300.0)
    assert in_turns["windows"] == by_arrival["windows"] == 1
    assert in_turns["mean"] > 0.99
    assert by_arrival["mean"] == pytest.approx(1 / 3, abs=0.01)
