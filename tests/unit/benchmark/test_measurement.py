"""What a measurement sees: the process tree's memory, the GPU's by NVML, the device's end."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pynvml
import pytest

from dream_cad.benchmark import measurement
from dream_cad.benchmark.measurement import Measurement

EATER = "import sys; block = b'x' * 300_000_000; print(len(block), flush=True); sys.stdin.read()"


def test_the_memory_of_children_counts() -> None:
    with Measurement() as alone:
        pass
    pipe = subprocess.PIPE
    with (
        Measurement() as measured,
        subprocess.Popen([sys.executable, "-c", EATER], stdin=pipe, stdout=pipe) as child,
    ):
        assert child.stdout is not None
        child.stdout.readline()
        measured._observe()  # a look, as the sampler takes one each second
        child.communicate()
    assert measured.peak_ram_gb > alone.peak_ram_gb + 0.3
    assert (measured.peak_vram_gb, measured.peak_device_gb) == (0.0, 0.0)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An NVIDIA driver whose GPU 0 has ``used`` bytes in use, and no CUDA in torch."""
    driver = SimpleNamespace(used=5 * 10**9)
    monkeypatch.setattr(measurement, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=driver.used)
    )
    return driver


def test_the_peak_of_the_device_is_nvmls(driver: SimpleNamespace) -> None:
    with Measurement() as measured:
        driver.used = 9 * 10**9
        measured._observe()
        driver.used = 10**9
    assert measured.peak_device_gb == 9.0
    assert measured.peak_vram_gb == 0.0  # torch's allocator held nothing


def test_a_driver_that_does_not_answer_measures_nothing(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise pynvml.NVMLError_NotSupported

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", refuse)
    with Measurement() as measured:
        pass
    assert measured.peak_device_gb == 0.0
    assert measured.seconds >= 0.0


def test_the_clock_stops_after_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def clock() -> float:
        order.append("clock")
        return float(len(order))

    monkeypatch.setattr(measurement, "synchronize", lambda *, has_cuda: order.append("wait"))
    monkeypatch.setattr(measurement, "time", SimpleNamespace(perf_counter=clock))
    with Measurement() as measured:
        order.append("work")
    assert order == ["wait", "clock", "work", "wait", "clock"]
    assert measured.seconds == 3.0
