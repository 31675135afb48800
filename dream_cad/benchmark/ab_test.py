"""ABTester: which of two models is better, by a paired and blind comparison.

Each (prompt, seed) is run by both models, in an order drawn for each pair; the measurement does not
see which model made a mesh. Rule of the winner: the side that wins more metrics, where a metric
is won with an adjusted p below alpha and a difference of at least its minimum relevant one. A
significant difference in successes decides alone. Otherwise it is a tie.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from dream_cad.benchmark.paired import PairedComparison, compare_pairs, compare_successes, holm
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult
from dream_cad.exceptions import InvalidConfigError

TIE = "tie"
MAX_PAIRS = 100_000


class Runner(Protocol):
    """What makes results; ModelBenchmark is one."""

    def run_single_benchmark(self, config: BenchmarkConfig) -> BenchmarkResult:
        """Generate once and measure."""
        ...


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Attributes:
        read: takes the value of a successful result; None or NaN leaves the pair out.
        higher_is_better: direction.
        relevant: smallest difference that matters; relative to the median of A where
            ``is_relative``.
        is_relative: see ``relevant``.
    """

    read: Callable[[BenchmarkResult], float | None]
    higher_is_better: bool
    relevant: float
    is_relative: bool = False


def _quality(result: BenchmarkResult) -> float | None:
    return result.quality_metrics.overall_mesh_quality if result.quality_metrics else None


def _game(result: BenchmarkResult) -> float | None:
    return result.quality_metrics.game_ready_score if result.quality_metrics else None


METRICS: dict[str, Metric] = {
    "overall_mesh_quality": Metric(_quality, higher_is_better=True, relevant=2.0),
    "game_ready_score": Metric(_game, higher_is_better=True, relevant=2.0),
    "generation_time_seconds": Metric(
        lambda result: result.generation_time_seconds,
        higher_is_better=False,
        relevant=0.05,
        is_relative=True,
    ),
}


@dataclass(frozen=True)
class ABTestConfig:
    """A comparison of two models.

    Attributes:
        model_a: name of the first model.
        model_b: name of the second.
        test_prompts: prompts, at least one.
        num_samples_per_prompt: seeds a prompt.
        metrics: names from ``METRICS``; success is always compared.
        alpha: level of significance after Holm's correction.
        seed: of the order and of the samples' seeds.
    """

    model_a: str
    model_b: str
    test_prompts: list[str]
    num_samples_per_prompt: int = 3
    metrics: list[str] = field(default_factory=lambda: list(METRICS))
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        pairs = len(self.test_prompts) * self.num_samples_per_prompt
        if not 1 <= pairs <= MAX_PAIRS:
            raise InvalidConfigError(
                f"{len(self.test_prompts)} prompts with {self.num_samples_per_prompt} samples make "
                f"{pairs} pairs; expected 1..{MAX_PAIRS}."
            )
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not 0 < self.alpha < 1:
            raise InvalidConfigError(
                f"Metrics {self.metrics}, alpha {self.alpha}; expected metrics of "
                f"{', '.join(METRICS)} and an alpha between 0 and 1."
            )


@dataclass(frozen=True)
class ABTestResult:
    """What came out.

    Attributes:
        winner: name of the better model, or "tie".
        p_value: smallest adjusted p over the metrics and successes.
        reason: how the rule of the winner was met.
        comparisons: by metric, "success" among them; differences are B - A.
        won_by_a: metrics with a relevant and significant advantage of A.
        won_by_b: those of B.
        results_a: results in the order of prompts and samples.
        results_b: likewise.
    """

    winner: str
    p_value: float
    reason: str
    comparisons: dict[str, PairedComparison]
    won_by_a: list[str]
    won_by_b: list[str]
    results_a: list[BenchmarkResult]
    results_b: list[BenchmarkResult]

    @property
    def is_significant(self) -> bool:
        """Whether there is a winner."""
        return self.winner != TIE


class ABTester:
    """Runs and judges comparisons."""

    def run_ab_test(
        self, config: ABTestConfig, benchmark_a: Runner, benchmark_b: Runner
    ) -> ABTestResult:
        """Run both models on every prompt and seed, then judge.

        Failures are results: the pair counts for successes only. Degenerate data (all equal, all
        failed) gives a tie, not an error.
        """
        order = random.Random(config.seed)
        results_a: list[BenchmarkResult] = []
        results_b: list[BenchmarkResult] = []
        for prompt in config.test_prompts:
            for _ in range(config.num_samples_per_prompt):
                run = BenchmarkConfig(
                    prompt=prompt, test_runs=1, warmup_runs=0, seed=order.getrandbits(31)
                )
                sides = [(benchmark_a, config.model_a, results_a)]
                sides.insert(order.randrange(2), (benchmark_b, config.model_b, results_b))
                for runner, name, results in sides:
                    results.append(runner.run_single_benchmark(replace(run, model_name=name)))
        return self.judge(config, results_a, results_b)

    def judge(
        self,
        config: ABTestConfig,
        results_a: list[BenchmarkResult],
        results_b: list[BenchmarkResult],
    ) -> ABTestResult:
        """Judge paired results; never raises on degenerate data.

        Raises:
            InvalidConfigError: the lists have different lengths, so there are no pairs.
        """
        if len(results_a) != len(results_b):
            raise InvalidConfigError(
                f"{len(results_a)} results of A and {len(results_b)} of B make no pairs."
            )
        comparisons = _compare(config, results_a, results_b)
        won = {name: _winner_of(name, c, config.alpha) for name, c in comparisons.items()}
        won_a = [name for name, side in won.items() if side < 0]
        won_b = [name for name, side in won.items() if side > 0]
        winner, reason = _decide(config, won["success"], won_a, won_b)
        return ABTestResult(
            winner=winner,
            p_value=min(comparison.p_adjusted for comparison in comparisons.values()),
            reason=reason,
            comparisons=comparisons,
            won_by_a=won_a,
            won_by_b=won_b,
            results_a=results_a,
            results_b=results_b,
        )


def _compare(
    config: ABTestConfig, results_a: list[BenchmarkResult], results_b: list[BenchmarkResult]
) -> dict[str, PairedComparison]:
    found = {
        "success": compare_successes(
            np.array([result.success for result in results_a], dtype=bool),
            np.array([result.success for result in results_b], dtype=bool),
        )
    }
    for name in config.metrics:
        a, b = _values(name, results_a), _values(name, results_b)
        found[name] = compare_pairs(name, a, b, seed=config.seed)
    adjusted = holm([comparison.p_value for comparison in found.values()])
    return {
        name: replace(comparison, p_adjusted=p)
        for (name, comparison), p in zip(found.items(), adjusted, strict=True)
    }


def _values(
    name: str, results: list[BenchmarkResult]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    read = METRICS[name].read
    values = [read(result) if result.success else None for result in results]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _winner_of(name: str, comparison: PairedComparison, alpha: float) -> int:
    """Return -1 where A has a relevant and significant advantage, 1 where B has, else 0."""
    if comparison.n == 0 or comparison.p_adjusted >= alpha:
        return 0
    metric = METRICS.get(name)
    sign = 1 if comparison.difference > 0 else -1
    if metric is None:
        return sign
    relevant = metric.relevant * (abs(comparison.median_a) if metric.is_relative else 1.0)
    if abs(comparison.difference) < relevant:
        return 0
    return sign if metric.higher_is_better else -sign


def _decide(
    config: ABTestConfig, success: int, won_a: list[str], won_b: list[str]
) -> tuple[str, str]:
    if success:
        return (config.model_b if success > 0 else config.model_a), "It succeeds more often."
    if len(won_a) == len(won_b):
        return TIE, f"A wins {won_a or 'nothing'}, B wins {won_b or 'nothing'}."
    winner = config.model_b if len(won_b) > len(won_a) else config.model_a
    return winner, f"A wins {won_a or 'nothing'}, B wins {won_b or 'nothing'}."
