"""The batch job with a real Ray of its own: one process each, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs, parquet

from dream_cad.mesh.loading import load_mesh
from tests.cluster.conftest import DEADLINE_S, Server, until


def command(source: Path, output: object, *more: str) -> list[str]:
    words = [sys.executable, "-W", "ignore", "-m", "jobs.generate_batch"]
    words += ["--input", str(source), "--output", str(output), "--model", "echo"]
    return [*words, "--module", "tests.cluster.echo_model", "--contact-sheet", "4", *more]


def generate(source: Path, output: object, *more: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command(source, output, *more),
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    rows = parquet.read_table(folder / "manifest.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["prompt"]: row for row in rows}


def test_killed_it_goes_on_where_it_was_and_bad_rows_fail_alone(tmp_path: Path) -> None:
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    quick = [{"prompt": f"cube {number}", "options": {"log": str(log)}} for number in range(6)]
    bad = [
        {"prompt": "bug", "options": {"fail": "bug", "log": str(log)}},
        {"prompt": "deadly", "options": {"crash": "always"}},
        {"prompt": "wrong", "options": {"brightness": 7}},
    ]
    slow = {"prompt": "held", "options": {"hold": str(hold), "log": str(log)}}
    # Parts are worked on in reverse: the held one comes last.
    source = write_rows(tmp_path / "in.jsonl", slow, *bad, *quick, quick[0])
    output = tmp_path / "out"
    with subprocess.Popen(
        command(source, output, "--actors", "1"), stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: log.exists() and "held" in log.read_text(), "the held row")
        parts = output / "manifest"
        until(lambda: len(list(parts.glob("*.parquet"))) >= 6, "six rows of the manifest")
        os.kill(process.pid, signal.SIGKILL)
    hold.unlink()
    said = generate(source, output)
    assert "11 rows read" in said
    assert "rows failed" in said
    rows = manifest_of(output)
    completed = {prompt for prompt, row in rows.items() if row["status"] == "completed"}
    assert completed == {"held", *(row["prompt"] for row in quick)}
    assert rows["wrong"]["error"].count("brightness")
    assert "ZeroDivisionError" in rows["bug"]["error"]
    assert "process died" in rows["deadly"]["error"]
    made = log.read_text().split("\n")
    assert made.count("held") == 2  # begun, killed, and done again
    assert sum(made.count(row["prompt"]) for row in quick) <= len(quick) + 1
    mesh = load_mesh(output / rows["cube 1"]["path"])
    assert len(mesh.faces) == 12
    assert (output / "contact_sheet.png").stat().st_size > 0
    assert not (output / "work").exists()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    where = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    fs.FileSystem.from_uri(f"s3://results?{where}&allow_bucket_creation=true")[0].create_dir(
        "results"
    )
    yield f"s3://results/batch?{where}", env
    server.stop()


def test_an_s3_server_holds_the_results(tmp_path: Path, bucket: tuple[str, dict[str, str]]) -> None:
    uri, env = bucket
    source = tmp_path / "in.txt"
    source.write_text("a chair\na table\n")
    generate(source, uri, env=env)
    store, base = fs.FileSystem.from_uri(uri)
    with store.open_input_file(f"{base}/manifest.parquet") as stream:
        rows = parquet.read_table(stream).to_pylist()
    assert {row["prompt"] for row in rows} == {"a chair", "a table"}
    for row in rows:
        assert 0 < row["quality"] <= 100
        assert row["seconds"] > 0
        with store.open_input_file(f"{base}/{row['path']}") as stream:
            assert stream.read(4) == b"glTF"


def test_a_running_service_makes_the_batch(tmp_path: Path, server: Server) -> None:
    rows = [{"prompt": f"cube {number}"} for number in range(5)]
    rows += [{"prompt": "fails", "options": {"fail": "error"}}]
    source = write_rows(tmp_path / "in.jsonl", *rows)
    output = tmp_path / "out"
    via = ["--via", str(server.client.base_url)]
    said = generate(source, output, *via)
    assert "6 rows read" in said
    made = manifest_of(output)
    assert [row["status"] for row in made.values()].count("completed") == 5
    assert "round" in made["fails"]["error"]
    assert len(load_mesh(output / made["cube 1"]["path"]).faces) == 12
    assert (output / "contact_sheet.png").stat().st_size > 0
    assert "6 rows read, 0 to make" in generate(source, output, *via)
    jobs = server.client.get("/v1/jobs", params={"limit": 100}).json()["jobs"]
    ours = [job for job in jobs if job["prompt"].startswith("cube ")]
    assert {job["priority"] for job in ours} == {"low"}


def test_bad_input_is_told_before_ray_starts(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\na chair\n")
    done = subprocess.run(
        command(source, tmp_path / "out"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no column prompt" in done.stderr
    assert not (tmp_path / "out").exists()
