"""The manifest: one row for every input row that has ended, well or not.

While a batch runs its rows are small Parquet files under ``manifest/``, written after the mesh
they tell of. At the end they are joined into ``manifest.parquet``. A run that was killed leaves
the small files behind, and the next one continues from them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

import pyarrow as pa
from pyarrow import compute, parquet

from jobs.batch.ids import IdSet
from jobs.batch.storage import Storage

MANIFEST = "manifest.parquet"
PARTS = "manifest"
COMPLETED = "completed"
FAILED = "failed"
_GROUP_ROWS = 10_000
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("index", pa.int64()),
        ("status", pa.string()),
        ("path", pa.string()),
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("image", pa.string()),
        ("seed", pa.int64()),
        ("seconds", pa.float32()),
        ("quality", pa.float32()),
        ("error", pa.string()),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One row of the manifest.

    Attributes:
        id: of the input row.
        index: number of the input row in its file.
        status: ``completed`` or ``failed``.
        path: of the mesh, relative to the output; None if it failed.
        model: the registered name.
        prompt: what was asked for.
        image: what it was made from.
        seed: used for text stage and model.
        seconds: time on text stage, model and finisher together.
        quality: overall score of the mesh, 0 to 100; None where it was not measured.
        error: why it failed.
        finished_at: when it ended.
    """

    id: str
    index: int
    status: str
    path: str | None = None
    model: str | None = None
    prompt: str | None = None
    image: str | None = None
    seed: int | None = None
    seconds: float | None = None
    quality: float | None = None
    error: str | None = None
    finished_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Manifest:
    """The manifest of one output.

    Durable: when ``add`` returns, its rows survive the end of this process.

    Args:
        storage: the output.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, entries: Sequence[Entry]) -> None:
        """Write rows. The same rows written again take the place of the earlier ones.

        Raises:
            StorageError: disk full, no permission.
        """
        if not entries:
            return
        names = hashlib.sha256("".join(entry.id for entry in entries).encode()).hexdigest()[:32]
        table = pa.Table.from_pylist([vars(entry) for entry in entries], schema=_SCHEMA)
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        self._storage.write(f"{PARTS}/{names}.parquet", buffer.getvalue())

    def known_ids(self) -> IdSet:
        """Return the ids that have a row; close them after use."""
        known = IdSet()
        for table in self._tables(["id"]):
            known.update(table.column("id").to_pylist())
        return known

    def join(self, *, drop_failed: bool = False) -> dict[str, int]:
        """Join everything into ``manifest.parquet``, each id once; returns rows by status.

        Memory does not grow with the rows. If this process dies in the middle, nothing is lost.

        Args:
            drop_failed: leave out the rows that failed, so that they are tried again.
        """
        counts = dict.fromkeys((COMPLETED, FAILED), 0)
        with (
            self._storage.replacing(MANIFEST) as stream,
            parquet.ParquetWriter(stream, _SCHEMA) as writer,
            IdSet() as seen,
        ):
            for table in _gathered(self._tables(_SCHEMA.names)):
                first = pa.array([seen.add(text) for text in table.column("id").to_pylist()])
                kept = table.filter(first)
                if drop_failed:
                    kept = kept.filter(compute.equal(kept.column("status"), COMPLETED))
                _count(kept, counts)
                if len(kept):
                    writer.write_table(kept)
        self._storage.delete_folder(PARTS)
        return counts

    def read(self) -> Iterator[Entry]:
        """Yield the rows."""
        names = [item.name for item in fields(Entry)]
        for table in self._tables(names):
            for values in table.to_pylist():
                yield Entry(**values)

    def _tables(self, columns: Iterable[str]) -> Iterator[pa.Table]:
        """Yield the joined manifest by row groups, then the parts; the same order each time."""
        wanted = list(columns)
        if self._storage.exists(MANIFEST):
            with parquet.ParquetFile(self._storage.open_input(MANIFEST)) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=wanted)
        for path in self._storage.list_files(PARTS):
            with parquet.ParquetFile(self._storage.open_input(path)) as file:
                yield file.read(columns=wanted)


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of many small tables in tables of some size: row groups of the file."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table.cast(_SCHEMA))
        rows += len(table)
        if rows >= _GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting)


def _count(table: pa.Table, counts: dict[str, int]) -> None:
    for item in compute.value_counts(table.column("status")).to_pylist():
        counts[item["values"]] += item["counts"]
