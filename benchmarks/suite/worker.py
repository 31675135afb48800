"""One model on one machine of the cluster, doing cases one after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.process import import_modules
from dream_cad.benchmark.clip_score import ClipScorer
from dream_cad.benchmark.image_metrics import compare_renders
from dream_cad.benchmark.model_benchmark import ModelBenchmark
from dream_cad.benchmark.reference import compare_to_reference
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult
from dream_cad.benchmark.suites import SuiteCase
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.render import render_turntable
from jobs.nano.truth import GroundTruth, ground_truth


@dataclass(frozen=True)
class WorkerSetup:
    """What every worker of a model knows.

    Attributes:
        model: its name.
        options: of its constructor.
        modules: that register custom models.
        test_runs: measured runs of each case.
        clip: source of CLIP weights, None to leave the similarity out.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    test_runs: int = 1
    clip: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a case gave.

    Attributes:
        result: as measured.
        mesh: of the first successful run.
        turntable: (H, 4H, 3) uint8 pictures of it.
        metrics: against the truth and the prompt.
        facts: what the metrics depend on: source, licence and hash of the CLIP weights.
    """

    result: BenchmarkResult
    mesh: MeshData | None = None
    turntable: NDArray[np.uint8] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


class SuiteWorker:
    """Keeps a model loaded; the first case pays for a warm-up run that is not measured."""

    def __init__(self, setup: WorkerSetup) -> None:
        import_modules(setup.modules)
        self._setup = setup
        self._benchmark = ModelBenchmark(setup.model, **setup.options)
        self._clip = ClipScorer(setup.clip) if setup.clip else None
        self._is_warm = False

    def run(self, case: SuiteCase) -> Outcome:
        """Generate, measure and judge one case."""
        truth = None if case.truth is None else ground_truth(case.truth)
        config = BenchmarkConfig(
            prompt=case.prompt,
            test_runs=self._setup.test_runs,
            warmup_runs=0 if self._is_warm else 1,
            seed=case.seed,
            image=truth.picture if truth else None,
        )
        result, made = self._benchmark.measure(config)
        if made is None:
            return Outcome(result)
        self._is_warm = True
        mesh = made.to_mesh()
        metrics, facts = self._judge(case, mesh, truth)
        return Outcome(result, mesh, render_turntable(mesh), metrics, facts)

    def _judge(
        self, case: SuiteCase, mesh: MeshData, truth: GroundTruth | None
    ) -> tuple[dict[str, float], dict[str, str]]:
        found = {} if truth is None else compare_to_truth(mesh, truth.mesh)
        if self._clip is not None:
            score = self._clip.score_mesh(mesh, case.prompt)
            found["clip_similarity"] = score.similarity
            facts = {"source": score.source, "license": score.license}
            facts["weights_sha256"] = score.weights_sha256
            return found, {f"clip/{key}": value for key, value in facts.items()}
        return found, {}


def compare_to_truth(mesh: MeshData, truth: MeshData) -> dict[str, float]:
    """Return the metrics against the truth by name; volume only where both are closed."""
    found = compare_to_reference(mesh, truth)
    pictures = compare_renders(mesh, truth)
    metrics = {
        "truth/chamfer": found.chamfer,
        "truth/normal_consistency": found.normal_consistency,
        "truth/hausdorff_95": found.hausdorff_95,
        "truth/psnr_db": pictures.psnr_db,
        "truth/ssim": pictures.ssim,
    }
    metrics |= {f"truth/f_score_{at}": value for at, value in found.f_score.items()}
    if found.volume_iou is not None:
        metrics["truth/volume_iou"] = found.volume_iou
    return metrics
