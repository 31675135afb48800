"""LitServe doing durable work: the job's row is on disk before it runs, its result after.

python litserve_app.py PORT FOLDER
"""

from __future__ import annotations

import sqlite3
import sys
import uuid
from pathlib import Path

import litserve

RESULT = b"x" * 1000


class DurableNoop(litserve.LitAPI):  # type: ignore[misc]
    """Inserts a row, does nothing, writes the result, completes the row."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)

    def setup(self, device: str) -> None:
        """Open the database as dream_cad does: WAL, flushed at each commit."""
        self._database = sqlite3.connect(self._folder / "jobs.sqlite3", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, prompt TEXT, status TEXT)"
        )

    # Not annotated: LitServe would take the type for a FastAPI parameter.
    def decode_request(self, request) -> str:  # type: ignore[no-untyped-def]
        """Make the job durable."""
        job_id = uuid.uuid4().hex
        row = (job_id, request["prompt"], "running")
        self._database.execute("INSERT INTO jobs VALUES (?, ?, ?)", row)
        return job_id

    def predict(self, job_id: str) -> str:
        """Do nothing but publish a result."""
        (self._folder / job_id).write_bytes(RESULT)
        return job_id

    def encode_response(self, job_id: str) -> dict[str, str]:
        """Complete the job."""
        self._database.execute("UPDATE jobs SET status = 'completed' WHERE id = ?", (job_id,))
        return {"id": job_id, "result": RESULT.decode()}


if __name__ == "__main__":
    server = litserve.LitServer(DurableNoop(sys.argv[2]), accelerator="cpu", timeout=600)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
