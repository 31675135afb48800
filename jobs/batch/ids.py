"""Sets of row ids in bounded memory: the rest of them lies in a private temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dream_cad.exceptions import StorageError

_CACHE_KIB = 64 * 1024
"""Pages kept in memory, those of some two million ids; the rest is in a file that SQLite makes,
unlinks and so never leaves, where an id costs several times as much."""


class IdSet:
    """Ids of rows (32 hexadecimal digits), exact, some 30 bytes each, at most 64 MiB of memory.

    A Python set takes some 90 bytes of memory an id, without end. The file is where SQLite puts
    temporary files (SQLITE_TMPDIR, TMPDIR, /var/tmp, /tmp).
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        for name, value in {"cache_size": -_CACHE_KIB, "journal_mode": "OFF"}.items():
            self._db.execute(f"PRAGMA {name} = {value}")
        self._db.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")  # one for ever: nobody else reads it, nothing outlives us

    def add(self, row_id: str) -> bool:
        """Add an id; returns whether it is new.

        Raises:
            StorageError: the disk of temporary files is full.
        """
        with _storage_errors():
            key = (bytes.fromhex(row_id),)
            return self._db.execute("INSERT OR IGNORE INTO ids VALUES (?)", key).rowcount == 1

    def update(self, row_ids: Iterable[str]) -> None:
        """Add many ids."""
        with _storage_errors():
            keys = ((bytes.fromhex(row_id),) for row_id in row_ids)
            self._db.executemany("INSERT OR IGNORE INTO ids VALUES (?)", keys)

    def __contains__(self, row_id: str) -> bool:
        key = (bytes.fromhex(row_id),)
        found = self._db.execute("SELECT 1 FROM ids WHERE id = ?", key)
        return found.fetchone() is not None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM ids").fetchone()[0])

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def __enter__(self) -> IdSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"Could not note the ids of rows in a temporary file: {error}.",
            hint="Free some space, or set TMPDIR to a folder that has some.",
        ) from error
