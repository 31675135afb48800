from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from dream_cad.exceptions import InvalidConfigError, ModelNotFoundError
from dream_cad.queue import GPUInfo, ResourceManager
from dream_cad.queue.resources import read_gpus

NEEDS = {"small": 4.0, "large": 20.0, "huge": 90.0}


def manager(*totals: float, used: float = 0.0) -> ResourceManager:
    gpus = [GPUInfo(index, "card", total, used, 0.0, 40.0) for index, total in enumerate(totals)]
    return ResourceManager(discover=lambda: gpus, memory_of=NEEDS.__getitem__)


def test_jobs_are_packed_by_memory() -> None:
    resources = manager(10.0, 24.0)
    assert resources.assign_job_to_gpu("a", "large") == 1
    assert [resources.assign_job_to_gpu(name, "small") for name in "bcde"] == [1, 0, 0, None]
    resources.release_gpu(1, "a")
    assert resources.assign_job_to_gpu("f", "large") == 1


def test_a_job_keeps_its_gpu() -> None:
    resources = manager(10.0)
    assert resources.assign_job_to_gpu("a", "small") == 0
    assert resources.assign_job_to_gpu("a", "small") == 0
    assert resources.assign_job_to_gpu("b", "small") == 0
    assert resources.assign_job_to_gpu("c", "small") is None
    resources.release_gpu(0, "nobody")
    resources.release_gpu(7, "a")
    assert resources.assign_job_to_gpu("c", "small") is None


def test_memory_of_others_is_left_alone() -> None:
    resources = manager(24.0, used=6.0)
    assert not resources.can_model_run("large", 0)
    assert resources.can_model_run("small", 0)
    assert resources.assign_job_to_gpu("a", "large") is None
    assert not resources.fits_an_empty_gpu("large")


def test_what_would_fit_an_empty_gpu() -> None:
    resources = manager(24.0)
    resources.assign_job_to_gpu("a", "large")
    assert not resources.can_model_run("large", 0)
    assert resources.fits_an_empty_gpu("large")
    assert not resources.fits_an_empty_gpu("huge")


def test_no_gpu() -> None:
    resources = manager()
    assert resources.discover_gpus() == []
    assert resources.assign_job_to_gpu("a", "small") is None
    with pytest.raises(InvalidConfigError, match="no GPU 0"):
        resources.can_model_run("small", 0)


def test_needs_come_from_the_registry() -> None:
    gpu = GPUInfo(0, "card", 24.0, 0.0, None, None)
    resources = ResourceManager(discover=lambda: [gpu])
    assert resources.can_model_run("triposr", 0)
    with pytest.raises(ModelNotFoundError):
        resources.can_model_run("nobody", 0)


def test_visible_devices_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = manager(10.0, 10.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.id for gpu in resources.discover_gpus()] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resources.discover_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8a1b")
    assert len(resources.discover_gpus()) == 2


class FakeNvml:
    """Two cards; the second tells no temperature."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_temperature(handle: int, _: int) -> int:
            if handle:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return 51

        answers: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: f"card {handle}",
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=24 * 10**9, used=10**9),
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=30),
            "nvmlDeviceGetTemperature": no_temperature,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)


def test_nvml_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch)
    first, second = read_gpus()
    assert first == GPUInfo(0, "card 0", 24.0, 1.0, 30.0, 51.0)
    assert first.memory_free_gb == 23.0
    assert second.temperature_c is None


def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert read_gpus() == []
