"""The GPUs of this machine, and which jobs share them by memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pynvml

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue.entry import MODEL_REGISTRY, resolve

_GB = 10**9


@dataclass(frozen=True)
class GPUInfo:
    """One GPU as NVML sees it.

    Attributes:
        id: NVML's index, which is CUDA's under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
        name: product name.
        memory_total_gb: memory in GB (10^9 bytes).
        memory_used_gb: memory that any process holds, in GB.
        utilization_percent: share of time in which it computed; None where NVML does not tell.
        temperature_c: in degrees Celsius; None where NVML does not tell.
    """

    id: int
    name: str
    memory_total_gb: float
    memory_used_gb: float
    utilization_percent: float | None
    temperature_c: float | None

    @property
    def memory_free_gb(self) -> float:
        """Memory that no process holds, in GB."""
        return self.memory_total_gb - self.memory_used_gb


def read_gpus() -> list[GPUInfo]:
    """Ask NVML for the GPUs; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = [_read_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    return [gpu for gpu in found if gpu is not None]


def _read_gpu(index: int) -> GPUInfo | None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return None  # unified memory: there is nothing to divide
    return GPUInfo(
        id=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_total_gb=memory.total / _GB,
        memory_used_gb=memory.used / _GB,
        utilization_percent=_ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        temperature_c=_ask(
            lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        ),
    )


def _ask(question: Callable[[], float]) -> float | None:
    try:
        return float(question())
    except pynvml.NVMLError:
        return None


def memory_of_model(model_name: str) -> float:
    """Return the GPU memory that a model needs at least, in GB.

    Raises:
        ModelNotFoundError: no model of that name.
    """
    registry = resolve(MODEL_REGISTRY)()
    return float(registry.require_capabilities(model_name).min_vram_gb)


class ResourceManager:
    """Divides GPU memory among jobs; safe to use from several threads.

    What others use of a GPU is measured while no job of ours is on it; ours count by what their
    models need.

    Args:
        discover: lists the GPUs; by default through NVML, limited to CUDA_VISIBLE_DEVICES.
        memory_of: model name → GB needed; by default from the registry of models.
    """

    def __init__(
        self,
        discover: Callable[[], list[GPUInfo]] = read_gpus,
        memory_of: Callable[[str], float] = memory_of_model,
    ) -> None:
        self._discover = discover
        self._memory_of = memory_of
        self._assigned: dict[int, dict[str, float]] = {}
        self._others: dict[int, float] = {}
        self._lock = threading.Lock()

    def discover_gpus(self) -> list[GPUInfo]:
        """Return the GPUs that this process may use, as they are now."""
        allowed = _visible_devices()
        return [gpu for gpu in self._discover() if allowed is None or gpu.id in allowed]

    def assign_job_to_gpu(self, job_id: str, model_name: str) -> int | None:
        """Reserve memory for a job on the fullest GPU that has room for its model.

        A job that has a GPU already keeps it.

        Returns:
            The GPU's id; None if none has room, or there is no GPU.

        Raises:
            ModelNotFoundError: no model of that name.
        """
        with self._lock:
            for gpu_id, held in self._assigned.items():
                if job_id in held:
                    return gpu_id
            rooms = self._rooms()
            if not rooms:
                return None
            needed = self._memory_of(model_name)
            fitting = [(room, gpu_id) for gpu_id, room in rooms.items() if room >= needed]
            if not fitting:
                return None
            _, chosen = min(fitting)
            self._assigned.setdefault(chosen, {})[job_id] = needed
            return chosen

    def release_gpu(self, gpu_id: int, job_id: str) -> None:
        """Give a job's reservation back; one that it does not hold is ignored."""
        with self._lock:
            self._assigned.get(gpu_id, {}).pop(job_id, None)

    def can_model_run(self, model_name: str, gpu_id: int) -> bool:
        """Return whether a GPU has room for the model beside the jobs that it has.

        Raises:
            ModelNotFoundError: no model of that name.
            InvalidConfigError: no GPU of that id.
        """
        needed = self._memory_of(model_name)
        with self._lock:
            rooms = self._rooms()
        if gpu_id not in rooms:
            raise InvalidConfigError(
                f"There is no GPU {gpu_id}.", hint=f"GPUs: {sorted(rooms) or 'none'}."
            )
        return rooms[gpu_id] >= needed

    def fits_an_empty_gpu(self, model_name: str) -> bool:
        """Return whether some GPU could take the model if our other jobs left it."""
        with self._lock:
            rooms = self._rooms()
            held = {gpu_id: sum(self._assigned.get(gpu_id, {}).values()) for gpu_id in rooms}
        return any(
            room + held[gpu_id] >= self._memory_of(model_name) for gpu_id, room in rooms.items()
        )

    def _rooms(self) -> dict[int, float]:
        rooms = {}
        for gpu in self.discover_gpus():
            held = self._assigned.get(gpu.id, {})
            if not held:
                self._others[gpu.id] = gpu.memory_used_gb
            others = self._others.get(gpu.id, gpu.memory_used_gb)
            rooms[gpu.id] = gpu.memory_total_gb - others - sum(held.values())
        return rooms


def _visible_devices() -> set[int] | None:
    """Return the indices in CUDA_VISIBLE_DEVICES; None where it does not limit by index."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return {int(part) for part in parts} if all(part.isdigit() for part in parts) else None
