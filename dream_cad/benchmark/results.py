"""BenchmarkConfig and BenchmarkResult."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_cad.benchmark.quality import QualityMetrics
from dream_cad.exceptions import InvalidConfigError
from dream_cad.prompts import check_prompt

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_RUNS = 10_000


@dataclass(frozen=True)
class BenchmarkConfig:
    """One prompt to measure.

    Attributes:
        prompt: test prompt.
        model_name: model to benchmark; by default the one of the ModelBenchmark.
        test_runs: measured runs, 1..10,000.
        warmup_runs: runs before them that are not measured.
        save_outputs: whether the mesh of the first measured run is kept.
        output_dir: folder of the mesh; DREAM_CAD_OUTPUT_DIR / "benchmarks" when None.
        seed: of the first measured run; run k takes seed + k.
        assess_quality: whether the mesh is assessed.
        options: further generation options.
        image: picture to generate from instead of the prompt, which then is its title.
    """

    prompt: str
    model_name: str = ""
    test_runs: int = 3
    warmup_runs: int = 1
    save_outputs: bool = False
    output_dir: Path | None = None
    seed: int = 0
    assess_quality: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    image: Image | None = None

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        if not 1 <= self.test_runs <= MAX_RUNS or not 0 <= self.warmup_runs <= MAX_RUNS:
            raise InvalidConfigError(
                f"test_runs is {self.test_runs} and warmup_runs {self.warmup_runs}; expected "
                f"1..{MAX_RUNS} and 0..{MAX_RUNS}."
            )


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark measured; a failure is a result too.

    Attributes:
        model_name: model tested.
        prompt: prompt used.
        success: whether every run succeeded.
        generation_time_seconds: median of the successful runs; 0 without any.
        peak_vram_gb: peak of the allocator in GB (10^9 bytes); 0 without CUDA.
        peak_device_gb: peak of the GPU's memory in use by NVML; 0 without.
        peak_ram_gb: peak resident memory of the process tree in GB.
        output_path: mesh of the first run, if kept.
        error_message: of the first failure.
        quality_metrics: of the first successful run.
        run_seconds: of each successful run.
        p95_seconds: 95th percentile of them; 0 without any.
        spread_seconds: interquartile range of them; 0 below two.
        failures: number of failed runs.
        stage_seconds: median seconds of each stage, where the model records them.
        environment: device, versions and checkpoint.
    """

    model_name: str
    prompt: str
    success: bool
    generation_time_seconds: float
    peak_vram_gb: float
    peak_ram_gb: float
    output_path: str | None = None
    error_message: str | None = None
    quality_metrics: QualityMetrics | None = None
    run_seconds: list[float] = field(default_factory=list)
    p95_seconds: float = 0.0
    failures: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    peak_device_gb: float = 0.0
    spread_seconds: float = 0.0


def result_metrics(result: BenchmarkResult) -> dict[str, float]:
    """Return the numbers of a result by name; what was not measured is left out.

    Stages are ``stage_seconds/<stage>``, scores ``quality/<score>``.
    """
    found = {"success": float(result.success), "failures": float(result.failures)}
    if result.run_seconds:
        found["generation_time_seconds"] = result.generation_time_seconds
        found["p95_seconds"] = result.p95_seconds
        found["spread_seconds"] = result.spread_seconds
    found |= {"peak_ram_gb": result.peak_ram_gb, "peak_vram_gb": result.peak_vram_gb}
    found["peak_device_gb"] = result.peak_device_gb
    found |= {f"stage_seconds/{stage}": s for stage, s in result.stage_seconds.items()}
    quality = result.quality_metrics
    if quality is not None:
        names = (*quality.reasons, "vertex_count", "face_count", "uv_coverage", "uv_overlap")
        found |= {f"quality/{name}": float(getattr(quality, name)) for name in names}
    return found


def result_params(result: BenchmarkResult) -> dict[str, str]:
    """Return what a result was made from, as texts."""
    found = {"model": result.model_name, "prompt": result.prompt}
    if result.error_message:
        found["error"] = result.error_message
    return found | {f"environment/{key}": str(value) for key, value in result.environment.items()}
