"""ABTester: which of two models is better, by a paired and blind comparison.

Each (prompt, seed) is run by both models, in an order drawn for each pair; the measurement does not
see which model made a mesh. Rule of the winner: each pair goes to the side with more advantages of
a relevant size in it; the side that more pairs go to wins if that is significant. A significant
difference in successes decides alone. Otherwise it is a tie.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dream_cad.benchmark.paired import PairedComparison, compare_pairs, compare_successes, holm
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult
from dream_cad.benchmark.verdict import MetricPairs, decide, pair_preferences
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
        p_value: of the verdict: below alpha exactly where there is a winner. Those of single
            metrics are in ``comparisons``; they can be small where the sides win different ones, or
            differ by less than matters.
        reason: the verdict in plain words.
        comparisons: by metric, "success" among them; differences are B - A.
        won_by_a: metrics with a relevant and significant advantage of A.
        won_by_b: those of B.
        preferences: by pair, -1 where it goes to A, 1 to B, 0 to neither.
        results_a: results in the order of prompts and samples.
        results_b: likewise.
    """

    winner: str
    p_value: float
    reason: str
    comparisons: dict[str, PairedComparison]
    won_by_a: list[str]
    won_by_b: list[str]
    preferences: list[int]
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
        compared = _compare(config, results_a, results_b)
        success, *metrics = compared
        preferences = pair_preferences(_successes(results_a), _successes(results_b), metrics)
        names = (config.model_a, config.model_b)
        verdict = decide(
            names, success.comparison, preferences, metrics, config.alpha, seed=config.seed
        )
        won = {pairs.comparison.metric: pairs.winner(config.alpha) for pairs in compared}
        return ABTestResult(
            winner=names[verdict.side > 0] if verdict.side else TIE,
            p_value=verdict.p_value,
            reason=verdict.reason,
            comparisons={pairs.comparison.metric: pairs.comparison for pairs in compared},
            won_by_a=[name for name, side in won.items() if side < 0],
            won_by_b=[name for name, side in won.items() if side > 0],
            preferences=verdict.preferences.tolist(),
            results_a=results_a,
            results_b=results_b,
        )


def _compare(
    config: ABTestConfig, results_a: list[BenchmarkResult], results_b: list[BenchmarkResult]
) -> list[MetricPairs]:
    """Return successes, then every metric, with p-values adjusted over all of them."""
    first, second = _successes(results_a), _successes(results_b)
    success = compare_successes(first, second)
    found = [MetricPairs(success, second.astype(np.float64) - first, 0.0)]
    for name in config.metrics:
        metric = METRICS[name]
        a, b = _values(name, results_a), _values(name, results_b)
        comparison = compare_pairs(name, a, b, seed=config.seed)
        scale = abs(comparison.median_a) if metric.is_relative else 1.0
        relevant = metric.relevant * scale if comparison.n else 0.0
        found.append(MetricPairs(comparison, b - a if metric.higher_is_better else a - b, relevant))
    adjusted = holm([pairs.comparison.p_value for pairs in found])
    return [
        replace(pairs, comparison=replace(pairs.comparison, p_adjusted=p))
        for pairs, p in zip(found, adjusted, strict=True)
    ]


def _successes(results: list[BenchmarkResult]) -> NDArray[np.bool_]:
    return np.array([result.success for result in results], dtype=bool)


def _values(name: str, results: list[BenchmarkResult]) -> NDArray[np.float64]:
    read = METRICS[name].read
    values = [read(result) if result.success else None for result in results]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
