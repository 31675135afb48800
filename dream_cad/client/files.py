"""Downloads as files that appear only when they are whole."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dream_cad.exceptions import StorageError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears only when the block ends well, replacing one of that name.

    Raises:
        StorageError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # gone already, or the folder never was
            part.unlink()


def format_of(path: Path, format: str | None) -> str | None:
    """Return the format of a file: as told, else by its suffix, else None (the job's own)."""
    return format or path.suffix.removeprefix(".").lower() or None
