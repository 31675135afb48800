"""From a prompt to a mesh on a laptop: start Ray and the server, ask it over HTTP, stop.

python -m deployments.demo ["a red wooden chair"]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from dream_cad.exceptions import DreamCadError, GenerationError, ServiceUnavailableError
from dream_cad.prompts import check_prompt
from dream_cad.settings import get_settings

DEFAULT_PROMPT = "a red wooden chair"
DEFAULT_SEED = 1
_START_TIMEOUT_S = 300.0
_JOB_TIMEOUT_S = 900.0
_POLL_S = 0.1


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = _parse(argv)
    try:
        prompt = check_prompt(options.prompt)
        with tempfile.TemporaryDirectory(prefix="dream-cad-demo-") as folder:
            _run(prompt, options, folder)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (DreamCadError, httpx.HTTPError, OSError, RuntimeError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m deployments.demo", description=__doc__)
    parser.add_argument("prompt", nargs="?", default=DEFAULT_PROMPT)
    parser.add_argument("--model", default=settings.default_model)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--module", action="append", default=[], help="module with own models")
    parser.add_argument("--output", type=Path, default=settings.output_dir / "demo")
    return parser.parse_args(argv)


def _run(prompt: str, options: argparse.Namespace, folder: str) -> None:
    began = time.monotonic()
    settings = {
        "models": [{"name": options.model}],
        "modules": options.module,
        "output_dir": folder,
        "database_url": f"sqlite:///{folder}/jobs.sqlite3",
    }
    with _Line() as line:
        line.show("starting Ray and the server")
        from deployments.args import AppArgs
        from deployments.local import serve_locally  # seconds of imports: after the first line

        args = AppArgs.model_validate(settings)
        with serve_locally(args, "demo") as url, httpx.Client(base_url=url, timeout=60.0) as client:
            _wait_until_ready(client, options.model, line)
            started_s = time.monotonic() - began
            line.end(f"{options.model} is ready at {url} after {started_s:.1f} s")
            asked = time.monotonic()
            job = _generate(client, prompt, options.seed, line)
            took_s = time.monotonic() - asked
            line.end(f'"{prompt}" took {took_s:.1f} s')
            paths = _download(client, job, options.output, prompt)
    print(f"mesh     {paths[0]}")
    print(f"preview  {paths[1]}")


def _wait_until_ready(client: httpx.Client, model: str, line: _Line) -> None:
    def ready() -> bool:
        if client.get("/readyz").status_code == 200:
            return True
        models = client.get("/v1/models").raise_for_status().json()["models"]
        state = next(entry for entry in models if entry["name"] == model)
        if state["state"] in ("failed", "not-deployed"):
            raise ServiceUnavailableError(f"Model {model!r} cannot run here: {state['reason']}")
        line.show(f"loading {model}")
        return False

    _poll(ready, _START_TIMEOUT_S, "The server did not become ready")


def _generate(client: httpx.Client, prompt: str, seed: int, line: _Line) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"prompt": prompt, "options": {"seed": seed}})
    job: dict[str, Any] = answer.json()
    if answer.status_code != 202:
        raise GenerationError(str(job.get("detail", answer.text)))

    def ended() -> bool:
        nonlocal job
        job = client.get(job["links"]["self"]).raise_for_status().json()
        line.show(f"{job['progress']:4.0%}  {job['stage'] or job['status']}")
        return job["status"] in ("completed", "failed", "cancelled")

    _poll(ended, _JOB_TIMEOUT_S, "The job did not end")
    if job["status"] != "completed":
        problem = job["error"] or {}
        raise GenerationError(f"The job is {job['status']}: {problem.get('detail', 'no reason')}")
    return job


def _download(
    client: httpx.Client, job: dict[str, Any], folder: Path, prompt: str
) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "result"
    mesh, preview = folder / f"{slug}.glb", folder / f"{slug}.png"
    mesh.write_bytes(client.get(job["links"]["result"]).raise_for_status().content)
    preview.write_bytes(client.get(job["links"]["preview"]).raise_for_status().content)
    return mesh, preview


def _poll(condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(f"{failure} within {timeout_s:g} s.")
        time.sleep(_POLL_S)


class _Line:
    """One line of progress: rewritten on a terminal, one line a change elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._shown = ""

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal and self._shown:
            print()

    def show(self, text: str) -> None:
        """Replace the line."""
        if text != self._shown:
            self._shown = text
            print(f"\r\x1b[K{text}" if self._is_terminal else text, end=self._end, flush=True)

    def end(self, text: str) -> None:
        """Replace the line for good."""
        print(f"\r\x1b[K{text}" if self._is_terminal else text, flush=True)
        self._shown = ""

    @property
    def _end(self) -> str:
        return "" if self._is_terminal else "\n"


if __name__ == "__main__":
    sys.exit(main())
