"""Read the whole input once, and cut what is left to do into small parts of work."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from dream_cad.exceptions import InvalidConfigError
from jobs.batch.ids import IdSet
from jobs.batch.manifest import FAILED, Entry, Manifest
from jobs.batch.reading import Record
from jobs.batch.rows import BadRow, Row, RowChecker
from jobs.batch.storage import Storage

WORK = "work"
PARTS_OF_A_SIZE = 48
"""Parts of 1 row, of 2, of 4 and so on: each costs some milliseconds to hand out and collect."""
_BAD_ROWS_AT_ONCE = 1000


@dataclass
class ModelWork:
    """What is left to do for one model.

    Attributes:
        parts: paths of its parts, the largest first: small ones at the end keep all busy.
        rows: in all parts.
        prompts: rows that begin with a text.
    """

    parts: list[str] = field(default_factory=list)
    rows: int = 0
    prompts: int = 0


@dataclass
class Work:
    """What reading the input found.

    Attributes:
        by_model: work to do.
        read: records of the input.
        finished: rows that the manifest has already.
        repeated: rows that stand in the input more than once; they are made once.
        first_repeated: number of the first such row.
        bad: rows that cannot be made; the manifest says why.
        first_error: of the first bad row.
    """

    by_model: dict[str, ModelWork] = field(default_factory=dict)
    read: int = 0
    finished: int = 0
    repeated: int = 0
    first_repeated: int | None = None
    bad: int = 0
    first_error: str | None = None

    @property
    def rows(self) -> int:
        """Rows to make."""
        return sum(work.rows for work in self.by_model.values())


class Cutter:
    """Writes the rows of one model in parts that grow: 1 row at first, at most ``max_rows``.

    So a small batch spreads over many workers, and a large one does not cost a task a row.
    """

    def __init__(
        self, storage: Storage, model: str, max_rows: int, parts_of_a_size: int = PARTS_OF_A_SIZE
    ) -> None:
        self._parts_of_a_size = parts_of_a_size
        self._storage = storage
        self._model = model
        self._max_rows = max_rows
        self._waiting: list[Row] = []
        self.work = ModelWork()

    def add(self, row: Row) -> None:
        """Take a row."""
        self._waiting.append(row)
        size = 1 << min(len(self.work.parts) // self._parts_of_a_size, 20)
        if len(self._waiting) >= min(size, self._max_rows):
            self._write()

    def finish(self) -> ModelWork:
        """Write what waits, and return the work."""
        if self._waiting:
            self._write()
        self.work.parts.reverse()
        return self.work

    def _write(self) -> None:
        path = f"{WORK}/{self._model}/{len(self.work.parts):07d}.json"
        content = json.dumps([row.to_json() for row in self._waiting])
        self._storage.write(path, content.encode())
        self.work.parts.append(path)
        self.work.rows += len(self._waiting)
        self.work.prompts += sum(row.prompt is not None for row in self._waiting)
        self._waiting = []


def read_part(storage: Storage, path: str) -> list[Row]:
    """Return the rows of a part."""
    return [Row(**values) for values in json.loads(storage.read(path))]


def take_in(
    records: Iterable[Record],
    checker: RowChecker,
    storage: Storage,
    *,
    max_part_rows: int,
    parts_of_a_size: int = PARTS_OF_A_SIZE,
    is_strict: bool = False,
) -> Work:
    """Check every record, skip what is finished, and write the rest as parts of work.

    Memory does not grow with the rows (``IdSet``), but for the paths of the parts.

    Args:
        records: the input.
        checker: turns them into rows.
        storage: the output.
        max_part_rows: most rows in a part.
        parts_of_a_size: after so many, parts have twice the rows; some for each worker.
        is_strict: refuse the input at its first bad row.

    Raises:
        InvalidConfigError: there is no record, or none is usable; nothing is written to the
            manifest then.
        StorageError: the input cannot be read, or the output not written.
    """
    storage.delete_folder(WORK)
    manifest = Manifest(storage)
    cutters: dict[str, Cutter] = {}
    work, bad = Work(), list[Entry]()
    with manifest.known_ids() as known, IdSet() as seen:
        for record in records:
            work.read += 1
            row = checker.check(record)
            if not seen.add(row.id):
                work.repeated += 1
                work.first_repeated = work.first_repeated or record.index
                continue
            if row.id in known:
                work.finished += 1
                continue
            if isinstance(row, Row):
                if row.model not in cutters:
                    cutters[row.model] = Cutter(storage, row.model, max_part_rows, parts_of_a_size)
                cutters[row.model].add(row)
                continue
            _note_bad(work, bad, row)
            if is_strict:
                raise InvalidConfigError(f"{work.first_error}", hint="Nothing was made (--strict).")
            if work.bad < work.read and len(bad) >= _BAD_ROWS_AT_ONCE:
                manifest.add(bad)
                bad.clear()
    work.by_model = {name: cutter.finish() for name, cutter in cutters.items()}
    _refuse_useless(work)
    manifest.add(bad)
    return work


def _note_bad(work: Work, bad: list[Entry], row: BadRow) -> None:
    work.bad += 1
    if work.first_error is None:
        work.first_error = f"row {row.index + 1}: {row.error}"
    bad.append(
        Entry(
            row.id,
            row.index,
            FAILED,
            model=row.model,
            prompt=row.prompt,
            image=row.image,
            error=row.error,
        )
    )


def _refuse_useless(work: Work) -> None:
    if work.read == 0:
        raise InvalidConfigError("The input has no rows.")
    if work.bad == work.read:
        raise InvalidConfigError(
            f"None of the {work.read:,} rows can be used; the first: {work.first_error}"
        )
