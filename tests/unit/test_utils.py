from __future__ import annotations

import subprocess
import sys
import types

import pytest

from dream_cad import utils
from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import reload_settings


class _FakeCuda:
    """Stands in for torch.cuda of a machine with ``count`` GPUs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: list[str] = []

    def is_available(self) -> bool:
        return self.count > 0

    def device_count(self) -> int:
        return self.count

    def mem_get_info(self, device: int) -> tuple[int, int]:
        return (device + 1) * 5 * 10**9, 80 * 10**9

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    def ipc_collect(self) -> None:
        self.calls.append("ipc_collect")


def _install_cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> _FakeCuda:
    cuda = _FakeCuda(count)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    return cuda


def test_vram_is_zero_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _install_cuda(monkeypatch, 0)
    vram = utils.get_available_vram()
    assert vram == 0.0
    assert isinstance(vram, float)


@pytest.mark.parametrize(("gpu_id", "free_gb"), [("0", 5.0), ("1", 10.0)])
def test_vram_is_that_of_the_selected_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu_id: str, free_gb: float
) -> None:
    _install_cuda(monkeypatch, 2)
    monkeypatch.setenv("DREAM_CAD_GPU_ID", gpu_id)
    reload_settings()
    try:
        assert utils.get_available_vram() == pytest.approx(free_gb)
    finally:
        monkeypatch.undo()
        reload_settings()


def test_gpu_id_beyond_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _install_cuda(monkeypatch, 1)
    monkeypatch.setenv("DREAM_CAD_GPU_ID", "3")
    reload_settings()
    try:
        with pytest.raises(InvalidConfigError, match="DREAM_CAD_GPU_ID is 3"):
            utils.get_available_vram()
    finally:
        monkeypatch.undo()
        reload_settings()


def test_clearing_the_cache_reaches_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _install_cuda(monkeypatch, 1)
    utils.clear_gpu_cache()
    assert cuda.calls == ["empty_cache", "ipc_collect"]


def test_clearing_the_cache_without_a_gpu_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = _install_cuda(monkeypatch, 0)
    utils.clear_gpu_cache()
    assert cuda.calls == []


def test_module_and_cache_clearing_do_not_import_torch() -> None:
    code = "import sys, dream_cad.utils as u; u.clear_gpu_cache(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("prompt", "valid"), [("a wooden chair", True), ("", False), ("a\x00", False)]
)
def test_validate_prompt(prompt: str, valid: bool) -> None:
    assert utils.validate_prompt(prompt) is valid


def test_module_has_exactly_the_functions_of_the_contract() -> None:
    functions = {
        name
        for name, value in vars(utils).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == utils.__name__
        and not name.startswith("_")
    }
    assert functions == {"clear_gpu_cache", "get_available_vram", "validate_prompt"}
