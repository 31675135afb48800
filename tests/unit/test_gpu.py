from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
import torch

from dream_cad import gpu
from dream_cad.exceptions import InvalidConfigError
from tests.conftest import SetSettings


def use_devices(monkeypatch: pytest.MonkeyPatch, *total_bytes: int) -> None:
    monkeypatch.setattr(gpu, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(total_bytes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(total_bytes))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(total_memory=total_bytes[index]),
    )


def test_without_a_driver_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert gpu.has_nvidia_driver() is False
    assert gpu.get_total_vram() == 0.0


def test_a_driver_whose_devices_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    use_devices(monkeypatch)
    assert gpu.get_total_vram() == 0.0


def test_gpu_id_chooses_the_device(
    monkeypatch: pytest.MonkeyPatch, set_settings: SetSettings
) -> None:
    use_devices(monkeypatch, 8_000_000_000, 24_500_000_000)
    assert gpu.get_total_vram() == 8.0
    set_settings(gpu_id=1)
    assert gpu.get_total_vram() == 24.5
    set_settings(gpu_id=2)
    with pytest.raises(InvalidConfigError, match="DREAM_CAD_GPU_ID is 2, but CUDA shows 2"):
        gpu.get_total_vram()
