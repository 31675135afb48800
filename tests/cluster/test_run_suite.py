"""The suite runner with a real Ray of its own, as a user calls it: twice, and with a gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dream_cad.benchmark.tracking import Tracking
from tests.cluster.conftest import DEADLINE_S

# mlflow 3.17 still uses what its dependencies deprecate.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def run_suite(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.run_suite", "--models", "echo"]
    words += ["--module", "tests.cluster.echo_model", "--suite", "smoke", "--name", "first"]
    environment = {**os.environ, "DREAM_CAD_OUTPUT_DIR": str(folder)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [*words, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )


def test_a_pass_is_taken_up_again_and_recorded_once(tmp_path: Path) -> None:
    began = run_suite(tmp_path, "--limit", "2")
    assert began.returncode == 0, began.stderr[-3000:]
    assert "[2/2] echo" in began.stderr
    done = run_suite(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[2/8]" not in done.stderr
    assert "[3/8] echo" in done.stderr
    assert "[8/8] echo" in done.stderr

    folder = tmp_path / "suites" / "smoke" / "first"
    records = [json.loads(path.read_text()) for path in (folder / "records").glob("*.json")]
    assert len(records) == 8
    assert all(record["success"] for record in records)
    truth = next(record for record in records if record["case"]["key"] == "truth-0")
    assert truth["metrics"]["truth/chamfer"] > 0.01  # the cube is not what the picture shows
    assert truth["metrics"]["quality/overall_mesh_quality"] > 99
    page = (folder / "comparison.html").read_text()
    assert page.count('class="stage"') == 8

    tracking = Tracking(tmp_path / "mlflow")
    runs = tracking.client.search_runs([tracking.experiment_id("suite-smoke")])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + 8
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.metrics["echo/success_rate"] == 1
    assert len(tracking.runs("performance", tags={"model": "echo"})) == 2
