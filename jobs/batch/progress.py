"""What is seen of a running batch: a bar on a terminal, two lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.batch.pipeline import Advance


@contextmanager
def batch_bar(total: int) -> Iterator[Callable[[Advance], None]]:
    """Yield the function that takes news; shows rows, rows/s, time left and GPU load.

    Args:
        total: rows to make.
    """
    console = Console(file=sys.stderr, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[gpu]}"),
    )
    started = time.monotonic()
    done = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("meshes", total=total, rate="", gpu="")

        def advance(news: Advance) -> None:
            nonlocal done
            done += news.completed + news.failed
            rate = done / max(time.monotonic() - started, 1e-9)
            gpu = "" if news.gpu_percent is None else f"GPU {news.gpu_percent:.0f} %"
            bar.update(task, completed=done, rate=f"{rate:.2f} rows/s", gpu=gpu)

        yield advance
