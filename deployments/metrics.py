"""What Prometheus sees of the router (through ray.util.metrics; Ray adds ``ray_`` to the names)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from deployments.process import gpu_total_bytes
from dream_cad.queue import JobPriority
from dream_cad.queue.jobs import Depth

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class RouterMetrics:
    """Counters, gauges and histograms of one router process."""

    def __init__(self) -> None:
        by_priority = ("model", "priority")
        self._depth = Gauge("dream_cad_queue_depth", "Jobs that can start.", by_priority)
        self._age = Gauge(
            "dream_cad_queue_oldest_age_seconds", "Age of the oldest waiting job.", by_priority
        )
        self._running = Gauge("dream_cad_jobs_running", "Jobs under way.", ("model",))
        self._jobs = Counter("dream_cad_jobs_total", "Ends of attempts.", ("model", "status"))
        self._retries = Counter("dream_cad_job_retries_total", "Jobs put back.", ("model",))
        self._gates = Counter(
            "dream_cad_gate_results_total", "Jobs by acceptance.", ("model", "accepted")
        )
        self._stage = Histogram(
            "dream_cad_stage_seconds", "Seconds of a stage.", _SECONDS, ("model", "stage")
        )
        self.loads = Counter(
            "dream_cad_model_loads_total", "Times a model became ready.", ("model",)
        )
        self._shown: set[tuple[str, str]] = set()

    def ended(
        self, model: str, status: str, timings: Mapping[str, float], problem: Mapping[str, Any]
    ) -> None:
        """Count the end of an attempt."""
        self._jobs.inc(tags={"model": model, "status": status})
        if status == "pending":
            self._retries.inc(tags={"model": model})
        if status == "completed" or problem.get("type") == "not-accepted":
            accepted = str(status == "completed").lower()
            self._gates.inc(tags={"model": model, "accepted": accepted})
        for name, seconds in timings.items():
            stage = name.removesuffix("_s")
            self._stage.observe(max(seconds, 1e-6), tags={"model": model, "stage": stage})

    def show_queue(self, depths: Iterable[Depth], running: Mapping[str, int]) -> None:
        """Show what waits and what runs."""
        now = datetime.now(UTC)
        shown: set[tuple[str, str]] = set()
        for entry in depths:
            key = (entry.model_name, JobPriority(entry.priority).name.lower())
            shown.add(key)
            tags = {"model": key[0], "priority": key[1]}
            self._depth.set(entry.count, tags=tags)
            age = (now - entry.oldest_created_at).total_seconds()
            self._age.set(max(age, 0.0), tags=tags)
        for model, priority in self._shown - shown:
            self._depth.set(0, tags={"model": model, "priority": priority})
            self._age.set(0, tags={"model": model, "priority": priority})
        self._shown = shown
        for model, count in running.items():
            self._running.set(count, tags={"model": model})


class ReplicaMetrics:
    """What a model's replica shows of itself.

    Args:
        model: the model's name.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._headroom = Gauge(
            "dream_cad_gpu_headroom_bytes", "Memory left at the peak of the last job.", ("model",)
        )

    def show_headroom(self, gpu_share: float, peak_bytes: int | None) -> None:
        """Show what was left of the replica's share of the GPU; nothing without a GPU.

        Args:
            gpu_share: the replica's ``num_gpus``.
            peak_bytes: allocated at most during the job.
        """
        if peak_bytes is not None:
            cap = gpu_total_bytes() * min(gpu_share, 1.0)
            self._headroom.set(cap - peak_bytes, tags={"model": self._model})
