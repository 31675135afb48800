"""Hundreds of jobs under way while leases lapse, the clock is set, and the disk is full."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.cluster.conftest import Server, app_args, serving, until
from tests.postgres import PostgresServer

pytestmark = pytest.mark.long

JOBS = 520
_HOUR_S = 3600


class Clock:
    """The wall clock of the server's Python code."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    def shift(self, seconds: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


@dataclass
class Disturbed:
    """The server, its clock and its database."""

    server: Server
    clock: Clock
    database: str

    def submit(self) -> str:
        items = [{"prompt": f"job {n}"} for n in range(JOBS)]
        body = {"items": items, "use_cache": False}
        answer = self.server.client.post("/v1/batches", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def counts(self, batch_id: str) -> dict[str, int]:
        return dict(self.server.client.get(f"/v1/batches/{batch_id}").json()["counts"])

    def go_on(self, batch_id: str, number: int = 20) -> None:
        """Wait until some more are completed; there must be some left then."""
        goal = self.counts(batch_id)["completed"] + number
        until(lambda: self.counts(batch_id)["completed"] >= goal, f"{goal} completed")
        assert self.counts(batch_id)["completed"] < JOBS

    def check_each_completed_once(self, batch_id: str) -> None:
        until(lambda: self.counts(batch_id)["completed"] == JOBS, "all completed")
        ends = self.query(
            "SELECT count(*), count(DISTINCT job_id) FROM job_events JOIN jobs"
            " ON jobs.id = job_events.job_id WHERE batch_id = %s"
            " AND kind IN ('completed', 'failed', 'cancelled')",
            batch_id,
        )
        assert ends == (JOBS, JOBS)

    def query(self, statement: str, *values: object) -> tuple[object, ...]:
        with psycopg.connect(self.database) as connection:
            row = connection.execute(statement, values).fetchone()
        assert row is not None
        return row


@pytest.fixture(scope="module")
def disturbed(
    tmp_path_factory: pytest.TempPathFactory, small_disk: Path | None, postgres: PostgresServer
) -> Iterator[Disturbed]:
    if shutil.which("cc") is None:
        pytest.skip("setting a program's clock needs a C compiler")
    folder = tmp_path_factory.mktemp("disturbed")
    library, file = folder / "shifted_clock.so", folder / "shift"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    clock = Clock(file)
    url = postgres.create_database("disturbances")
    args = app_args(
        folder,
        database_url=url,
        output_dir=str(small_disk or folder / "outputs"),
        queue={"lease_s": 3, "retry_backoff_s": 0.05, "cancel_grace_s": 300},
        finisher={"preview_size": 16},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("CLOCK_SHIFT_FILE", str(file))
        with serving(folder, args, small_disk) as server:
            patch.undo()
            yield Disturbed(server, clock, str(url).replace("postgresql+psycopg", "postgresql"))


def test_leases_that_lapse_give_no_job_two_results(disturbed: Disturbed) -> None:
    batch_id = disturbed.submit()
    disturbed.go_on(batch_id)
    for _ in range(2):
        (router,) = disturbed.server.find_replicas("router")
        os.kill(router, signal.SIGSTOP)
        try:
            until(
                lambda: (
                    disturbed.query(
                        "SELECT count(*) FROM jobs WHERE status = 'running' AND lease_until < %s",
                        time.time(),
                    )
                    > (0,)
                ),
                "a lease that has lapsed",
            )
        finally:
            os.kill(router, signal.SIGCONT)
        disturbed.go_on(batch_id)
    disturbed.check_each_completed_once(batch_id)


def test_a_clock_that_is_set_loses_nothing(disturbed: Disturbed) -> None:
    batch_id = disturbed.submit()
    try:
        disturbed.go_on(batch_id)
        disturbed.clock.shift(_HOUR_S)
        disturbed.go_on(batch_id)
        disturbed.server.kill_replica("router")  # its successor begins with the clock as it is
        disturbed.go_on(batch_id)
        # Serve measures the pause between its health checks by the wall clock: while that is
        # behind it replaces nobody, so nothing is killed now.
        disturbed.clock.shift(-_HOUR_S)
        disturbed.go_on(batch_id)
    finally:
        disturbed.clock.shift(0)
    disturbed.check_each_completed_once(batch_id)


def test_a_full_disk_fails_with_its_reason_and_the_rest_goes_on(disturbed: Disturbed) -> None:
    disk = disturbed.server.disk
    if disk is None:
        pytest.skip("mounting a small file system needs root")
    batch_id = disturbed.submit()
    disturbed.go_on(batch_id)
    filler = disk / "filler"
    try:
        with contextlib.suppress(OSError):  # until there is no room left
            filler.write_bytes(bytes(shutil.disk_usage(disk).total))
        until(lambda: disturbed.counts(batch_id)["failed"] > 3, "failures")
    finally:
        filler.unlink()
    until(
        lambda: sum(disturbed.counts(batch_id)[name] for name in ("completed", "failed")) == JOBS,
        "all ended",
    )
    failed = disturbed.query(
        "SELECT count(*) FROM jobs WHERE batch_id = %s AND status = 'failed'"
        " AND problem::text LIKE %s",
        batch_id,
        "%the disk is full%",
    )
    assert failed == (disturbed.counts(batch_id)["failed"],)
    answer = disturbed.server.client.post(f"/v1/batches/{batch_id}/retry")
    assert answer.status_code in (200, 202), answer.text
    until(lambda: disturbed.counts(batch_id)["completed"] == JOBS, "all completed")
