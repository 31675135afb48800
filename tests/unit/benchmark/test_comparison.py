from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from dream_cad.benchmark import (
    ABTestConfig,
    ABTester,
    BenchmarkConfig,
    BenchmarkResult,
    ModelBenchmark,
    QualityAssessor,
)
from dream_cad.benchmark.paired import compare_pairs, compare_successes, holm
from dream_cad.exceptions import GenerationError, InvalidConfigError, ModelNotFoundError
from dream_cad.mesh.data import MeshData
from dream_cad.models.base import GenerationResult, Model3D
from dream_cad.models.profile import is_profiled


class BoxModel(Model3D):
    """Makes boxes, and fails on prompts about glass."""

    def __init__(self, name: str = "box") -> None:
        super().__init__(name)
        self.seeds: list[int] = []

    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        self.seeds.append(kwargs["seed"])
        if "glass" in prompt:
            raise GenerationError("Glass breaks.")
        box = trimesh.creation.box()
        return GenerationResult(
            np.asarray(box.vertices, np.float32),
            np.asarray(box.faces, np.int32),
            metadata={"profile": {"mesh": 0.5} if is_profiled() else None, "device": "cpu"},
        )

    def generate_from_image(self, image: Any, **kwargs: Any) -> GenerationResult:
        if getattr(image, "mode", "") != "RGB":
            raise GenerationError("Only pictures in colour.")
        return self.generate_from_text("a picture", seed=kwargs["seed"])


def benchmark_of(model: BoxModel) -> ModelBenchmark:
    return ModelBenchmark("box", create=lambda name, **options: model)


def test_a_benchmark_measures_and_assesses(tmp_path: Path) -> None:
    model = BoxModel()
    config = BenchmarkConfig(
        prompt="a box", test_runs=3, warmup_runs=2, save_outputs=True, output_dir=tmp_path, seed=7
    )
    result = benchmark_of(model).run_single_benchmark(config)
    assert result.success
    assert model.seeds == [7, 7, 7, 8, 9]
    assert len(result.run_seconds) == 3
    assert 0 < result.generation_time_seconds <= result.p95_seconds
    low, high = np.quantile(result.run_seconds, [0.25, 0.75])
    assert result.spread_seconds == pytest.approx(high - low)
    assert result.peak_ram_gb > 0.01
    assert result.stage_seconds == {"mesh": 0.5}
    assert result.environment["device"] == "cpu"
    assert re.fullmatch("[0-9a-f]{7,40}", result.environment.get("commit", "0" * 7))
    assert result.quality_metrics is not None
    assert result.quality_metrics.overall_mesh_quality == pytest.approx(100)
    assert result.output_path is not None
    assert Path(result.output_path).is_file()


def test_pictures_are_measured_too_and_the_mesh_comes_along() -> None:
    picture = Image.new("RGB", (8, 8))
    model = BoxModel()
    result, mesh = benchmark_of(model).measure(
        BenchmarkConfig("a picture of a box", test_runs=2, warmup_runs=0, image=picture)
    )
    assert result.success
    assert model.seeds == [0, 1]
    assert mesh is not None
    assert len(mesh.faces) == 12
    failed, nothing = benchmark_of(model).measure(
        BenchmarkConfig("grey", test_runs=1, warmup_runs=0, image=Image.new("L", (8, 8)))
    )
    assert (failed.success, nothing) == (False, None)


def test_failures_are_results() -> None:
    good, bad = benchmark_of(BoxModel()).run_benchmark_suite(
        [BenchmarkConfig("a box"), BenchmarkConfig("a glass", warmup_runs=0, test_runs=4)]
    )
    assert good.success
    assert not bad.success
    assert bad.failures == 4
    assert bad.error_message == "GenerationError: Glass breaks."
    assert bad.quality_metrics is None
    missing = ModelBenchmark("no-such-model").run_single_benchmark(BenchmarkConfig("a box"))
    assert not missing.success
    assert (missing.error_message or "").startswith(ModelNotFoundError.__name__)


def test_a_mesh_that_cannot_be_kept_is_a_failure_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    result = benchmark_of(BoxModel()).run_single_benchmark(
        BenchmarkConfig("a box", save_outputs=True, output_dir=tmp_path / "file" / "meshes")
    )
    assert (result.success, result.failures) == (False, 1)
    assert "NotADirectoryError" in (result.error_message or "")
    assert len(result.run_seconds) == 3


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="test_runs"):
        BenchmarkConfig("a box", test_runs=0)
    with pytest.raises(InvalidConfigError, match="pairs"):
        ABTestConfig("a", "b", [])
    with pytest.raises(InvalidConfigError, match="Metrics"):
        ABTestConfig("a", "b", ["x"], metrics=["beauty"])


def results(seconds: list[float | None]) -> list[BenchmarkResult]:
    return [
        BenchmarkResult("m", "p", value is not None, value or 0.0, 0.0, 0.0) for value in seconds
    ]


CONFIG = ABTestConfig("first", "second", ["p"], 12)


def test_a_clearly_faster_model_wins() -> None:
    slow = results([2 + 0.01 * i for i in range(12)])
    fast = results([1 + 0.02 * i for i in range(12)])
    judged = ABTester().judge(CONFIG, slow, fast)
    assert judged.winner == "second"
    assert judged.won_by_b == ["generation_time_seconds"]
    assert judged.p_value < 0.05
    compared = judged.comparisons["generation_time_seconds"]
    assert compared.interval[0] < compared.difference < compared.interval[1] < 0
    assert ABTester().judge(CONFIG, fast, slow).winner == "first"


def test_a_significant_but_irrelevant_difference_is_a_tie() -> None:
    judged = ABTester().judge(CONFIG, results([1.0] * 12), results([1.001] * 12))
    assert judged.comparisons["generation_time_seconds"].p_adjusted < 0.05
    assert judged.winner == "tie"


def test_failing_more_often_loses_whatever_the_speed() -> None:
    failing = results([None] * 12)
    judged = ABTester().judge(CONFIG, failing, results([5.0] * 12))
    assert judged.winner == "second"
    assert judged.comparisons["success"].p_value == pytest.approx(2 * 0.5**12)


def with_quality(seconds: list[float], quality: list[float]) -> list[BenchmarkResult]:
    box = trimesh.creation.box()
    mesh = MeshData(np.asarray(box.vertices, np.float32), np.asarray(box.faces, np.int32))
    metrics = QualityAssessor().assess(mesh)
    return [
        replace(
            result, quality_metrics=replace(metrics, overall_mesh_quality=q, game_ready_score=50.0)
        )
        for result, q in zip(results(list(seconds)), quality, strict=True)
    ]


def test_sides_that_win_different_metrics_tie_with_a_p_that_says_so() -> None:
    steps = np.arange(12)
    better = with_quality((2 + 0.01 * steps).tolist(), (80 + steps).tolist())
    faster = with_quality((1 + 0.01 * steps).tolist(), (60 + 1.5 * steps).tolist())
    judged = ABTester().judge(CONFIG, better, faster)
    assert (judged.winner, judged.p_value) == ("tie", 1.0)
    assert judged.preferences == [0] * 12
    assert judged.won_by_a == ["overall_mesh_quality"]
    assert judged.won_by_b == ["generation_time_seconds"]
    assert judged.comparisons["overall_mesh_quality"].p_adjusted < 0.01
    assert judged.reason.startswith("Tie: of 12 pairs 0 go to first, 0 to second and 12 to neither")
    assert "first wins overall_mesh_quality (85.5 against 68.2" in judged.reason
    assert "second wins generation_time_seconds" in judged.reason


def test_a_certain_but_small_difference_is_told() -> None:
    judged = ABTester().judge(CONFIG, results([1.0] * 12), results([1.001] * 12))
    assert "generation_time_seconds differs (p = " in judged.reason
    assert "less than 0.05 does not matter" in judged.reason


def test_the_winner_is_the_one_that_most_pairs_go_to() -> None:
    seconds = [1.0] * 10 + [3.0, 3.0]
    judged = ABTester().judge(CONFIG, results([2.0] * 12), results(list(seconds)))
    assert judged.preferences == [1] * 10 + [-1] * 2
    exact = 2 * stats.binom.cdf(2, 12, 0.5)
    assert judged.p_value == pytest.approx(2 * exact)
    assert judged.winner == ("second" if 2 * exact < 0.05 else "tie")
    few = ABTester().judge(CONFIG, results([2.0] * 5), results([1.0] * 5))
    assert few.winner == "tie"
    assert "too few" in few.reason


def test_a_pair_goes_to_the_side_that_alone_succeeded() -> None:
    a, b = results([1.0, None, None, 1.0]), results([None, 9.0, None, 1.01])
    assert ABTester().judge(CONFIG, a, b).preferences == [-1, 1, 0, 0]


@settings(max_examples=25, deadline=None)
@given(
    a=arrays(np.float64, 14, elements=floats(0.5, 2.0)),
    b=arrays(np.float64, 14, elements=floats(0.5, 2.0)),
)
def test_the_verdict_and_its_p_never_disagree(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> None:
    judged = ABTester().judge(CONFIG, results(a.tolist()), results(b.tolist()))
    assert judged.is_significant == (judged.p_value < CONFIG.alpha)
    without = ABTester().judge(
        replace(CONFIG, metrics=["overall_mesh_quality"]), results(a.tolist()), results(b.tolist())
    )
    assert (without.winner, without.p_value) == ("tie", 1.0)


@pytest.mark.parametrize("values", [[1.0] * 12, [None] * 12, [None, 1.0] * 6])
def test_degenerate_data_is_a_tie(values: list[float | None]) -> None:
    judged = ABTester().judge(CONFIG, results(values), results(values))
    assert (judged.winner, judged.p_value) == ("tie", 1.0)
    assert not judged.is_significant


def test_the_order_is_random_but_repeatable_and_pairs_share_seeds() -> None:
    models, calls = (BoxModel(), BoxModel()), []

    class Recorder:
        def __init__(self, side: int) -> None:
            self.side, self.inner = side, benchmark_of(models[side])

        def run_single_benchmark(self, config: BenchmarkConfig) -> BenchmarkResult:
            calls.append(self.side)
            return self.inner.run_single_benchmark(config)

    config = ABTestConfig("first", "second", ["box", "crate"], 4)
    judged = ABTester().run_ab_test(config, Recorder(0), Recorder(1))
    assert models[0].seeds == models[1].seeds
    assert len(set(models[0].seeds)) == 8
    assert 0 < sum(calls[::2]) < 8
    again = calls.copy()
    calls.clear()
    ABTester().run_ab_test(config, Recorder(0), Recorder(1))
    assert calls == again
    assert [result.model_name for result in judged.results_b] == ["second"] * 8


def test_exact_permutation_agrees_with_scipy() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(size=9), generator.normal(0.7, size=9)
    expected = stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert compare_pairs("x", a, b).p_value == pytest.approx(expected)


def test_many_pairs_use_wilcoxon() -> None:
    generator = np.random.default_rng(4)
    a = generator.normal(size=40)
    b = a + generator.normal(0.3, 0.5, size=40)
    compared = compare_pairs("x", a, b)
    assert compared.test == "Wilcoxon signed-rank"
    assert compared.p_value == pytest.approx(stats.wilcoxon(b - a).pvalue)
    tied = compare_pairs("x", np.zeros(40), np.ones(40))
    assert tied.test == "permutation, drawn"
    assert tied.p_value < 0.001


def test_few_pairs_are_told_to_be_too_few() -> None:
    compared = compare_pairs("x", np.zeros(3), np.array([1.0, 2.0, np.nan]))
    assert compared.n == 2
    assert "too few" in compared.note
    assert compare_pairs("x", np.zeros(0), np.zeros(0)).p_value == 1


def test_mcnemar_and_holm() -> None:
    a = np.array([True] * 8 + [False] * 4)
    compared = compare_successes(a, np.array([True] * 12))
    assert compared.p_value == pytest.approx(2 * 0.5**4)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
