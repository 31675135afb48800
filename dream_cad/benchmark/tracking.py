"""Benchmark suites in MLflow: one experiment a suite, one parent run a pass, one child a prompt.

Without a server everything goes to SQLite and a folder beside it; MLFLOW_TRACKING_URI names another
place in the standard way. This is the only module that imports mlflow, and only when it is used.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.benchmark.pages import mesh_page
from dream_cad.benchmark.results import BenchmarkResult, result_metrics, result_params
from dream_cad.exceptions import InvalidConfigError, StorageError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.render import render_turntable
from dream_cad.settings import get_settings

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
_BATCH = 1000  # metrics of one request, MLflow's own limit
_MAX_PARAM_CHARS = 6000
_SYSTEM_INTERVAL_S = 5.0
_PAGE_SIZE = 1000


@dataclass(frozen=True)
class TrackedRun:
    """A run as it was recorded.

    Attributes:
        run_id: MLflow's identifier.
        started: when it began, UTC.
        metrics: last value of each metric.
        params: as logged.
        tags: without MLflow's own.
    """

    run_id: str
    started: datetime
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


class Tracking:
    """A place for runs.

    Args:
        folder: of the embedded store, DREAM_CAD_OUTPUT_DIR / "mlflow" when None. It is not used
            where MLFLOW_TRACKING_URI is set or ``uri`` is given.
        uri: a tracking URI; None for the rule above.

    Raises:
        InvalidConfigError: mlflow is not installed.
        StorageError: the store cannot be opened.
    """

    def __init__(self, folder: Path | None = None, *, uri: str | None = None) -> None:
        mlflow = _import_mlflow()
        given = uri or mlflow.environment_variables.MLFLOW_TRACKING_URI.get()
        self._artifacts: str | None = None
        if given:
            self.uri = str(given)
        else:
            home = (folder or get_settings().output_dir / "mlflow").absolute()
            self.uri = f"sqlite:///{home / 'mlflow.db'}"
            self._artifacts = (home / "artifacts").as_uri()
            home.mkdir(parents=True, exist_ok=True)
        try:
            self.client: Any = mlflow.MlflowClient(tracking_uri=self.uri)
        except mlflow.exceptions.MlflowException as error:
            raise StorageError(f"MLflow at {self.uri} does not open: {error}.") from error

    @property
    def ui_command(self) -> str:
        """The command that shows the runs in a browser."""
        return f"mlflow ui --backend-store-uri {self.uri}"

    def experiment_id(self, name: str) -> str:
        """Return the identifier of an experiment, made on first use."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = f"{self._artifacts}/{_slug(name)}" if self._artifacts else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # else the UI thinks of chats
        return str(self.client.create_experiment(name, artifact_location=place, tags=kind))

    @contextmanager
    def suite(
        self,
        experiment: str,
        *,
        name: str,
        params: Mapping[str, Any],
        prompts: Sequence[Mapping[str, Any]],
        run_id: str | None = None,
    ) -> Iterator[SuiteRun]:
        """Open the parent run of a pass over a suite; it ends FAILED where the block raises.

        Args:
            experiment: name of the suite's experiment.
            name: of the run.
            params: what the pass was asked to do.
            prompts: its prompts with their tags; logged as a dataset and as ``prompts.json``.
            run_id: an earlier parent run to go on with.
        """
        experiment_id = self.experiment_id(experiment)
        if run_id is None:
            run = self.client.create_run(experiment_id, run_name=name)
            run_id = str(run.info.run_id)
            self.log(run_id, params=params)
            self._log_prompts(run_id, experiment, prompts)
        self.client.update_run(run_id, status="RUNNING")
        monitor = _monitor(run_id, self.uri)
        try:
            yield SuiteRun(self, experiment_id, run_id)
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        else:
            self.client.set_terminated(run_id, "FINISHED")
        finally:
            monitor.finish()

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | Sequence[float]] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Log parameters and metrics in one request; a sequence gives one value a step."""
        from mlflow.entities import Metric, Param

        stamp = int((at or datetime.now(UTC)).timestamp() * 1000)
        points = [
            Metric(key, float(value), stamp, step)
            for key, values in (metrics or {}).items()
            for step, value in enumerate(values if isinstance(values, Sequence) else [values])
        ]
        texts = [Param(key, str(v)[:_MAX_PARAM_CHARS]) for key, v in (params or {}).items()]
        self.client.log_batch(run_id, metrics=points[:_BATCH], params=texts)
        for start in range(_BATCH, len(points), _BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + _BATCH])

    def record(
        self,
        experiment: str,
        *,
        name: str,
        metrics: Mapping[str, float],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        at: datetime,
    ) -> str:
        """Write a finished run of one moment and return its identifier."""
        run = self.client.create_run(
            self.experiment_id(experiment),
            run_name=name,
            tags=dict(tags),
            start_time=int(at.timestamp() * 1000),
        )
        self.log(run.info.run_id, params=params, metrics=metrics, at=at)
        self.client.set_terminated(run.info.run_id, end_time=int(at.timestamp() * 1000))
        return str(run.info.run_id)

    def runs(
        self, experiment: str, *, days: float | None = None, tags: Mapping[str, str] | None = None
    ) -> list[TrackedRun]:
        """Return the runs of an experiment, oldest first; none where it does not exist."""
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return []
        since = 0.0 if days is None else (datetime.now(UTC) - timedelta(days=days)).timestamp()
        result: list[TrackedRun] = []
        token = None
        while True:
            page = self.client.search_runs(
                [found.experiment_id],
                f"attributes.start_time >= {int(since * 1000)}",
                max_results=_PAGE_SIZE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            result += [_tracked(run) for run in page]
            token = page.token
            if not token:
                wanted = (tags or {}).items()
                return [run for run in result if wanted <= run.tags.items()]

    def _log_prompts(self, run_id: str, suite: str, prompts: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        text = json.dumps([dict(prompt) for prompt in prompts], indent=1)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        source = json.dumps({"artifact": "prompts.json"})
        dataset = Dataset(suite, digest, "local", source, profile=json.dumps({"n": len(prompts)}))
        self.client.log_inputs(run_id, [DatasetInput(dataset, [])])
        self.client.log_text(run_id, text, "prompts.json")


@dataclass(frozen=True)
class SuiteRun:
    """The open parent run of a pass.

    Attributes:
        tracking: where it is recorded.
        experiment_id: of the suite.
        run_id: of the parent run.
    """

    tracking: Tracking
    experiment_id: str
    run_id: str

    def log_result(
        self,
        result: BenchmarkResult,
        *,
        mesh: MeshData | None = None,
        turntable: NDArray[np.uint8] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """Log one result as a child run, FAILED where the generation failed.

        Artifacts with a mesh: ``mesh.glb``, ``turntable.png``, and ``viewer.html``, which holds
        everything it needs. ``metrics`` are further ones, for example against a ground truth;
        ``turntable`` spares rendering it again.
        """
        client = self.tracking.client
        parent = {"mlflow.parentRunId": self.run_id}
        run = client.create_run(
            self.experiment_id,
            run_name=f"{result.model_name}: {result.prompt}"[:120],
            tags={**parent, **(tags or {})},
        )
        run_id = str(run.info.run_id)
        values = {**result_metrics(result), **(metrics or {})}
        series: dict[str, float | Sequence[float]] = {**values, "run_seconds": result.run_seconds}
        self.tracking.log(run_id, params=result_params(result), metrics=series)
        if result.quality_metrics is not None:
            client.log_dict(run_id, result.quality_metrics.to_dict(), "quality.json")
        if mesh is not None:
            pictures = render_turntable(mesh) if turntable is None else turntable
            self._log_mesh(run_id, result, mesh, pictures, values)
        client.set_terminated(run_id, "FINISHED" if result.success else "FAILED")
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics of the whole pass, for example its progress."""
        for key, value in metrics.items():
            self.tracking.client.log_metric(self.run_id, key, value, step=step)

    def log_page(self, html: str, name: str) -> None:
        """Log an HTML page of the whole pass."""
        self.tracking.client.log_text(self.run_id, html, name)

    def _log_mesh(
        self,
        run_id: str,
        result: BenchmarkResult,
        mesh: MeshData,
        turntable: NDArray[np.uint8],
        values: Mapping[str, float],
    ) -> None:
        client = self.tracking.client
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mesh.glb"
            path.write_bytes(mesh_bytes(mesh, "glb"))
            client.log_artifact(run_id, str(path))
        client.log_image(run_id, Image.fromarray(turntable), artifact_file="turntable.png")
        title = f"{result.prompt} ({result.model_name})"
        client.log_text(run_id, mesh_page(mesh, turntable, title, values), "viewer.html")


def _import_mlflow() -> Any:
    try:
        import mlflow
        import mlflow.environment_variables
        import mlflow.exceptions
    except ImportError as error:
        raise InvalidConfigError(
            "Tracking benchmarks needs the package mlflow.",
            hint='Run `pip install "dream-cad[bench]"`.',
        ) from error
    return mlflow


def _monitor(run_id: str, uri: str) -> Any:
    """Start MLflow's thread of system metrics (CPU, memory, disk, network, and GPUs with NVML)."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    make: Any = SystemMetricsMonitor
    monitor = make(
        run_id, sampling_interval=_SYSTEM_INTERVAL_S, resume_logging=True, tracking_uri=uri
    )
    monitor.start()
    return monitor


def _tracked(run: Any) -> TrackedRun:
    return TrackedRun(
        run_id=run.info.run_id,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        tags={k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")},
    )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
