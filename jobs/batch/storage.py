"""Files under one root on a local disk or an object store, each written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from dream_cad.exceptions import InvalidConfigError, PayloadTooLargeError, StorageError
from dream_cad.images.loading import ImageLimits

_STAGING = ".staging"
_COPIES = "working_dir_files"


def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path in it of a local path or URI (``file://``, ``s3://``).

    An S3 server of one's own is named in the URI:
    ``s3://bucket/path?endpoint_override=host:port&scheme=http``.

    Raises:
        InvalidConfigError: no such kind of storage, or a malformed URI.
    """
    try:
        if "://" in uri:
            found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(uri)
            return found
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    except (ValueError, OSError) as error:
        raise InvalidConfigError(
            f"{uri!r} cannot be opened: {error}.",
            hint="Give a path, file:///path or s3://bucket/path.",
        ) from error


def check_kept(uri: str) -> None:
    """Refuse an output in the copy of the working directory that Ray makes for a submitted job.

    Ray deletes the copy some time after the job: what was made would be gone.

    Raises:
        InvalidConfigError: it is a path in such a copy, as every relative path is there.
    """
    if "://" not in uri and _COPIES in Path(uri).expanduser().absolute().parts:
        raise InvalidConfigError(
            f"--output {uri} lies in the copy of the working directory that Ray made for this job "
            "and deletes after it.",
            hint='Give an absolute path ("$PWD/..."), or a URI that all nodes can write.',
        )


def read_limited(uri: str, max_bytes: int) -> bytes:
    """Return the content of a file that a row names.

    Raises:
        InvalidConfigError: malformed, or a kind of storage that rows may not name.
        PayloadTooLargeError: it has more than ``max_bytes``.
        StorageError: it is not there or cannot be read.
    """
    filesystem, path = open_filesystem(uri)
    with storage_errors(f"read {uri}"):
        _check_size(uri, filesystem.get_file_info(path).size, max_bytes)
        with filesystem.open_input_file(path) as stream:
            return bytes(stream.read())


def check_readable(uri: str) -> None:
    """Refuse a local picture that is not there, empty, too large, or not this user's to read.

    One on an object store is looked at when it is needed: to ask about each costs a round trip.

    Raises:
        StorageError: it cannot be read.
        PayloadTooLargeError: it is larger than any picture may be.
        InvalidConfigError: malformed, or it is empty.
    """
    if "://" in uri and not uri.startswith("file://"):
        return
    _, path = open_filesystem(uri)
    with storage_errors(f"read {uri}"), open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
    _check_size(uri, size, ImageLimits.from_settings().max_bytes)
    if size == 0:
        raise InvalidConfigError(f"{uri} is empty.")


def _check_size(uri: str, size: int | None, max_bytes: int) -> None:
    if size is not None and size > max_bytes:
        raise PayloadTooLargeError(f"{uri} has {size:,} bytes; at most {max_bytes:,} are accepted.")


class Storage:
    """Files under one root. Travels between processes as its URI.

    Args:
        root: a local folder or a URI.
    """

    def __init__(self, root: str) -> None:
        # Workers have another working directory: a relative path would lead them astray.
        self.root = root if "://" in root else str(Path(root).expanduser().absolute())
        self._fs, self._base = open_filesystem(self.root)
        self._is_local = isinstance(self._fs, fs.LocalFileSystem)

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.root,)

    def write(self, path: str, content: bytes) -> None:
        """Write a file; a reader sees all of it or nothing.

        Raises:
            StorageError: disk full, no permission.
        """
        with storage_errors(f"write {path}"):
            target = f"{self._base}/{path}"
            if self._is_local:
                self._replace(target, content)
                return
            with self._fs.open_output_stream(target) as stream:
                stream.write(content)

    def _replace(self, target: str, content: bytes) -> None:
        """Write a local file beside and move it; in plain calls, since each mesh comes here."""
        staged = f"{self._base}/{_STAGING}/{uuid.uuid4().hex}"
        try:
            with _open_new(staged) as stream:
                stream.write(content)
            try:
                os.replace(staged, target)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(staged, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            StorageError: it is not there or cannot be read.
        """
        with storage_errors(f"read {path}"), self.open_input(path) as stream:
            return bytes(stream.read())

    def open_input(self, path: str) -> Any:
        """Open a file for random access."""
        return self._fs.open_input_file(f"{self._base}/{path}")

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[Any]:
        """Yield a stream whose content takes the place of ``path`` when the block ends well.

        Raises:
            StorageError: it could not be written; ``path`` is as before.
        """
        staged = f"{self._base}/{_STAGING}/{uuid.uuid4().hex}"
        with storage_errors(f"write {path}"):
            self._fs.create_dir(f"{self._base}/{_STAGING}", recursive=True)
            with self._fs.open_output_stream(staged) as stream:
                yield stream
            self._fs.move(staged, f"{self._base}/{path}")

    def exists(self, path: str) -> bool:
        """Tell whether a file is there."""
        with storage_errors(f"look for {path}"):
            info = self._fs.get_file_info(f"{self._base}/{path}")
        return bool(info.type == fs.FileType.File)

    def list_files(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder, sorted; none if there is no such folder."""
        selector = fs.FileSelector(f"{self._base}/{folder}", allow_not_found=True, recursive=True)
        with storage_errors(f"list {folder}"):
            found = self._fs.get_file_info(selector)
        skipped = len(self._base) + 1
        return sorted(info.path[skipped:] for info in found if info.type == fs.FileType.File)

    def delete(self, path: str) -> None:
        """Remove a file."""
        with storage_errors(f"delete {path}"):
            self._fs.delete_file(f"{self._base}/{path}")

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all in it; harmless if it is not there."""
        with storage_errors(f"delete {folder}"):
            if self._fs.get_file_info(f"{self._base}/{folder}").type == fs.FileType.Directory:
                self._fs.delete_dir(f"{self._base}/{folder}")

    def probe(self) -> None:
        """Write and remove a small file.

        Raises:
            StorageError: nothing can be written here.
        """
        name = f"{_STAGING}/probe-{uuid.uuid4().hex}"
        self.write(name, b"probe")
        self.delete(name)


def _open_new(path: str) -> BinaryIO:
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


@contextlib.contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn errors of the file system into StorageError, which says what was being done."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if is_full else str(error)
        hint = "Free some space." if is_full else "Check that the place exists and is writable."
        raise StorageError(f"Could not {action}: {reason}.", hint=hint) from error
