"""ModelBenchmark: how long a model takes, what it needs, and how good its meshes are."""

from __future__ import annotations

import contextlib
import inspect
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dream_cad.benchmark.measurement import Measurement
from dream_cad.benchmark.quality import QualityAssessor
from dream_cad.benchmark.results import BenchmarkConfig, BenchmarkResult
from dream_cad.exceptions import GenerationError
from dream_cad.gpu import has_nvidia_driver
from dream_cad.models.base import GenerationResult, Model3D
from dream_cad.models.factory import ModelFactory
from dream_cad.models.profile import profiled_stages
from dream_cad.settings import get_settings

_NAME_CHARS = 48


@dataclass
class _Runs:
    """What the measured runs of one prompt gave."""

    seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    peak_vram_gb: float = 0.0
    peak_device_gb: float = 0.0
    peak_ram_gb: float = 0.0
    first: GenerationResult | None = None


class ModelBenchmark:
    """Benchmarks one model; it is created once and kept loaded between runs.

    Args:
        model_name: a registered model.
        assessor: of the meshes.
        create: makes the model; ModelFactory.create_model by default.
        **options: of the model's constructor.
    """

    def __init__(
        self,
        model_name: str,
        *,
        assessor: QualityAssessor | None = None,
        create: Callable[..., Model3D] = ModelFactory.create_model,
        **options: Any,
    ) -> None:
        self.model_name = model_name
        self._assessor = assessor or QualityAssessor()
        self._create = create
        self._options = options
        self._model: Model3D | None = None

    def run_single_benchmark(self, config: BenchmarkConfig) -> BenchmarkResult:
        """Warm up, measure ``config.test_runs`` generations and assess the first mesh.

        Failures of the model, also of creating it, are recorded in the result.
        """
        return self.measure(config)[0]

    def measure(self, config: BenchmarkConfig) -> tuple[BenchmarkResult, GenerationResult | None]:
        """Do the same, and return the mesh of the first successful run too."""
        runs = _Runs()
        try:
            model = self._loaded()
            for _ in range(config.warmup_runs):
                self._generate(model, config, config.seed)
        except Exception as error:  # noqa: BLE001 - a failure is a result
            runs.errors.append(_describe(error))
        else:
            for number in range(config.test_runs):
                self._measure(model, config, config.seed + number, runs)
        return self._result(config, runs), runs.first

    def run_benchmark_suite(self, configs: list[BenchmarkConfig]) -> list[BenchmarkResult]:
        """Run several prompts one after the other; each gives a result."""
        return [self.run_single_benchmark(config) for config in configs]

    def close(self) -> None:
        """Give the model's memory back."""
        if self._model is not None:
            self._model.unload_model()
            self._model = None

    def _loaded(self) -> Model3D:
        if self._model is None:
            self._model = self._create(self.model_name, **self._options)
        return self._model

    def _generate(self, model: Model3D, config: BenchmarkConfig, seed: int) -> GenerationResult:
        options = dict(config.options)
        call = model.generate_from_text if config.image is None else model.generate_from_image
        parameters = inspect.signature(call).parameters
        if "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            options.setdefault("seed", seed)
        source: Any = config.prompt if config.image is None else config.image
        with profiled_stages():
            result: GenerationResult | None = call(source, **options)
        if result is None:
            raise GenerationError(f"Model {model.name!r} returned no result.")
        return result

    def _measure(self, model: Model3D, config: BenchmarkConfig, seed: int, runs: _Runs) -> None:
        result = None
        measured = Measurement()
        try:
            with measured:
                result = self._generate(model, config, seed)
        except Exception as error:  # noqa: BLE001 - a failure is a result
            runs.errors.append(_describe(error))
        runs.peak_vram_gb = max(runs.peak_vram_gb, measured.peak_vram_gb)
        runs.peak_device_gb = max(runs.peak_device_gb, measured.peak_device_gb)
        runs.peak_ram_gb = max(runs.peak_ram_gb, measured.peak_ram_gb)
        if result is None:
            return
        runs.seconds.append(measured.seconds)
        stages = result.metadata.get("profile")
        if isinstance(stages, dict):
            runs.stages.append(stages)
        runs.first = runs.first or result

    def _result(self, config: BenchmarkConfig, runs: _Runs) -> BenchmarkResult:
        name = config.model_name or self.model_name
        done = BenchmarkResult(
            model_name=name,
            prompt=config.prompt,
            success=not runs.errors,
            generation_time_seconds=float(np.median(runs.seconds)) if runs.seconds else 0.0,
            peak_vram_gb=runs.peak_vram_gb,
            peak_ram_gb=runs.peak_ram_gb,
            error_message=runs.errors[0] if runs.errors else None,
            run_seconds=runs.seconds,
            p95_seconds=float(np.quantile(runs.seconds, 0.95)) if runs.seconds else 0.0,
            spread_seconds=_spread(runs.seconds),
            failures=len(runs.errors),
            stage_seconds=_median_stages(runs.stages),
            environment=_environment(runs.first),
            peak_device_gb=runs.peak_device_gb,
        )
        if runs.first is None:
            return done
        try:
            return self._with_mesh(done, config, runs.first)
        except Exception as error:  # noqa: BLE001 - a failure is a result
            text = done.error_message or _describe(error)
            return replace(done, success=False, failures=done.failures + 1, error_message=text)

    def _with_mesh(
        self, done: BenchmarkResult, config: BenchmarkConfig, mesh: GenerationResult
    ) -> BenchmarkResult:
        if config.assess_quality:
            metrics = self._assessor.assess(mesh.to_mesh())
            done = replace(done, quality_metrics=metrics)
        if config.save_outputs:
            path = _output_path(config, done.model_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            done = replace(done, output_path=mesh.save(path))
        return done


def _spread(seconds: list[float]) -> float:
    """Return the interquartile range; 0 for none or one."""
    if not seconds:
        return 0.0
    low, high = np.quantile(seconds, [0.25, 0.75])
    return float(high - low)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _median_stages(stages: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for taken in stages for name in taken})
    return {
        name: float(np.median([taken[name] for taken in stages if name in taken])) for name in names
    }


def _output_path(config: BenchmarkConfig, model_name: str) -> Path:
    folder = config.output_dir or get_settings().output_dir / "benchmarks"
    stem = re.sub(r"[^a-z0-9]+", "-", config.prompt.lower()).strip("-")[:_NAME_CHARS] or "mesh"
    return folder / f"{model_name}-{stem}-{config.seed}.glb"


def _environment(result: GenerationResult | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
    }
    found |= _gpu() | _commit()
    if result is not None:
        kept = ("checkpoint", "device", "versions", "precision")
        found |= {key: result.metadata[key] for key in kept if key in result.metadata}
    return found


@lru_cache(maxsize=1)
def _commit() -> dict[str, str]:
    """The commit of this package; nothing where it was installed from a wheel."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # a wheel may lie in somebody else's repository
        return {}
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return {"commit": done.stdout.strip()}
    return {}


def _cpu_name() -> str:
    with contextlib.suppress(OSError):  # no /proc beyond Linux
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> dict[str, Any]:
    """Name and driver of this process's GPU; nothing without one."""
    if not has_nvidia_driver():
        return {}
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(get_settings().gpu_id)
        name, driver = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return {}
    return {"gpu": str(name), "driver": str(driver)}
