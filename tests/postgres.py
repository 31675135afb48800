"""A real PostgreSQL for tests: own data directory, own socket, no TCP port; gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

TEMPLATE = "queue_template"
_START_TIMEOUT_S = 60


def find_binaries() -> Path | None:
    """Return the folder of initdb and pg_ctl, newest version first; None if not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(folders, key=lambda path: float(path.parts[4]), default=None)
    return None if newest is None else newest.parent


class PostgresServer:
    """One server; usable as a context manager.

    Postgres refuses to run as root: under root it runs as the user ``postgres``, else ``nobody``.
    """

    def __init__(self, binaries: Path, *, fsync: bool = False) -> None:
        self._binaries = binaries
        # Off by default: the machine does not lose its power during a test.
        self._fsync = "on" if fsync else "off"
        self._folder = Path(tempfile.mkdtemp(prefix="dcad-pg-", dir="/tmp"))
        self._data = self._folder / "data"
        self._as_user = _other_user()
        if self._as_user:
            os.chown(self._folder, self._as_user["user"], self._as_user["group"])
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate", check=False)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start, or start again, and wait until it answers."""
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' "
            f"-c fsync={self._fsync} -c max_connections=60 -c shared_buffers=64MB"
        )
        log = self._folder / "log"
        arguments = ("-D", self._data, "-l", log, "-o", options, "-w", "-t", _START_TIMEOUT_S)
        self._run("pg_ctl", "start", *arguments)

    def kill(self) -> None:
        """Kill it as a crash would: every process of it, at once."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = _children_of(postmaster)
        for pid in (postmaster, *children):
            os.kill(pid, signal.SIGKILL)
        while any(_is_alive(pid) for pid in (postmaster, *children)):
            os.sched_yield()
        # In a container nobody may reap the dead, whom a new server would then take for alive.
        for stale in (self._data / "postmaster.pid", *self._folder.glob(".s.PGSQL.*.lock")):
            stale.unlink()

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database and return its URL."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database whoever is connected to it."""
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(
            host=str(self._folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        # A file, not a pipe: the server inherits it and would keep a pipe open.
        output = self._folder / f"{program}.out"
        with output.open("wb") as stream:
            done = subprocess.run(
                [str(self._binaries / program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                check=False,
                **self._as_user,
            )
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} failed: {output.read_text()}")


def _other_user() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    names = [entry.pw_name for entry in pwd.getpwall()]
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
