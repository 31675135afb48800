from __future__ import annotations

import json
import socket
import subprocess
import sys

import pynvml
import pytest

from dream_cad import __version__
from dream_cad.cli import doctor, run
from dream_cad.models.factory import register_model
from tests.conftest import SetSettings
from tests.unit.cli.stub_model import Tetrahedron

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("clean_registry")


def test_version(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"dream-cad {__version__}\n"


def test_no_command_shows_the_help(capsys: Capture) -> None:
    assert run([]) == 0
    output = capsys.readouterr().out
    for command in ("generate", "submit", "status", "fetch", "cancel", "models", "pull", "doctor"):
        assert command in output


def test_unknown_command_is_wrong_usage(capsys: Capture) -> None:
    assert run(["frob"]) == 2
    assert capsys.readouterr().err == "error: No such command 'frob'.\n"


def test_models_lists_every_model_with_its_reason(capsys: Capture) -> None:
    register_model("tetrahedron")(Tetrahedron)
    assert run(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines)[1:] == [
        "mvdream",
        "triposr",
        "stable-fast-3d",
        "trellis",
        "hunyuan3d-mini",
        "tetrahedron",
    ]
    assert "no checkpoint for this machine" in lines["trellis"]
    assert "Stability AI Community License" in lines["stable-fast-3d"]
    assert "yes" in lines["tetrahedron"]


def test_models_as_json(capsys: Capture) -> None:
    register_model("tetrahedron")(Tetrahedron)
    assert run(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    availability = rows["trellis"]["availability"]
    assert availability.pop("reason").startswith("trellis has no checkpoint for this machine")
    assert availability == {"available": False, "checkpoint": None, "device": None}
    assert rows["mvdream"]["capabilities"]["min_vram_gb"] == 16.0
    assert rows["tetrahedron"]["availability"]["available"] is True


@pytest.mark.parametrize(("default", "code"), [("tetrahedron", 0), ("trellis", 1), ("none", 1)])
def test_doctor_exit_code_tells_whether_the_default_model_runs(
    capsys: Capture, set_settings: SetSettings, default: str, code: int
) -> None:
    register_model("tetrahedron")(Tetrahedron)
    set_settings(default_model=default)
    assert run(["doctor"]) == code
    output = capsys.readouterr().out
    assert "trellis: does not run here: trellis has no checkpoint" in output
    assert "tetrahedron: runs here" in output


def test_doctor_as_json_covers_the_machine(capsys: Capture, set_settings: SetSettings) -> None:
    register_model("tetrahedron")(Tetrahedron)
    set_settings(default_model="tetrahedron")
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in report["checks"]}
    assert {"python", "torch", "CUDA", "memory", "cache folder", "output folder", "ray"} <= set(
        checks
    )
    assert checks["python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert "GB free" in checks["memory"]["found"]
    assert any(row["name"] == "triposr" for row in report["models"])


def test_doctor_names_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total, free = 24_000_000_000, 20_000_000_000

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: "Test GPU")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: Memory)
    found = {check.name: check.found for check in doctor.collect_checks(24.0)}
    assert found["GPU 0"] == "Test GPU, 24.0 GB, 20.0 GB free"
    assert found["CUDA"] == "24.0 GB for this process"


def test_doctor_sees_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "SERVER_PORTS", (("test", port),))
        found = {check.name: check.found for check in doctor.collect_checks(0.0)}
    assert found[f"port {port}"] == "in use (test)"


def test_doctor_counts_too_little_disk_as_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)
    bad = {check.name for check in doctor.collect_checks(0.0) if not check.is_good}
    assert {"memory", "cache folder", "output folder"} <= bad


def test_the_console_script_starts_without_torch() -> None:
    code = (
        "import sys, dream_cad.cli as cli; code = cli.run(['models']); "
        "sys.exit(3 if 'torch' in sys.modules else code)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
