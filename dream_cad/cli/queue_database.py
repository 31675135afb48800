"""The queue's database, opened for one administrative command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from dream_cad.queue import JobQueue

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def opened_queue() -> Iterator[JobQueue]:
    """Open the queue of DREAM_CAD_DATABASE_URL, or the one in DREAM_CAD_OUTPUT_DIR."""
    queue = JobQueue()
    try:
        yield queue
    finally:
        queue.close()
