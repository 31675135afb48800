"""Artifacts: named files of a job, published all at once on a local disk or an object store.

A publication is a folder of small files with a manifest. On a local file system it is written
aside, flushed and renamed into place; on an object store the manifest is written last. Either
way a reader sees the whole publication or none, and a crash leaves only garbage in ``.staging``.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from dream_cad.exceptions import InvalidConfigError, StorageError

MANIFEST = "manifest.json"
_STAGING = ".staging"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class StoredFile:
    """A published file, as its manifest tells.

    Attributes:
        bytes: its length.
        sha256: of its content, in hexadecimal digits.
    """

    bytes: int
    sha256: str


class ArtifactStore:
    """Files under one root, addressed by (key, name).

    Durable: when ``publish`` or ``put`` returns, the bytes are on disk (local) or accepted by the
    object store.

    Args:
        root: a local folder, or a URI such as ``s3://bucket/prefix``.
    """

    def __init__(self, root: str | Path) -> None:
        text = str(root)
        try:
            if "://" in text:
                self._fs, self._base = fs.FileSystem.from_uri(text)
            else:
                self._fs, self._base = fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
        except (ValueError, OSError) as error:
            raise InvalidConfigError(
                f"Artifacts cannot be kept at {text!r}: {error}.",
                hint="Give a folder, or a URI such as s3://bucket/prefix.",
            ) from error
        self._is_local = isinstance(self._fs, fs.LocalFileSystem)

    def publish(self, key: str, files: Mapping[str, bytes]) -> str:
        """Publish ``files`` under ``key``, replacing an earlier publication; returns ``key``.

        Args:
            key: name of the publication, for example ``<job id>-<attempt>``.
            files: name → content.

        Raises:
            InvalidConfigError: a key or name holds anything but ``A-Za-z0-9._-``.
            StorageError: disk full, no permission; nothing is visible then.
        """
        target = self._path(key)
        manifest = {name: _fingerprint(content) for name, content in files.items()}
        contents = {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}
        with _storage_errors(f"publish {key}"):
            if self._is_local:
                self._publish_by_rename(target, contents)
            else:
                self._delete_if_there(target)
                for name, content in contents.items():
                    self._write(f"{target}/{_checked(name)}", content)
        return key

    def put(self, key: str, name: str, content: bytes) -> None:
        """Add one derived file to a publication, for example another format of its mesh."""
        path = f"{self._path(key)}/{_checked(name)}"
        with _storage_errors(f"write {key}/{name}"):
            if not self._is_local:
                self._write(path, content)
                return
            staged = self._staged()
            try:
                self._write(staged, content)
                self._fs.move(staged, path)
            except OSError:
                self._discard(staged)
                raise

    def read(self, key: str, name: str) -> bytes:
        """Return a file's content.

        Raises:
            StorageError: it is not there, or cannot be read.
        """
        path = f"{self._path(key)}/{_checked(name)}"
        with _storage_errors(f"read {key}/{name}"), self._fs.open_input_file(path) as stream:
            return bytes(stream.read())

    def files(self, key: str) -> dict[str, StoredFile]:
        """Return what was published under a key, by name, in the order of publication.

        Files that ``put`` added later are derived, and not among them.

        Raises:
            StorageError: there is no such publication, or its manifest is damaged.
        """
        manifest = self.read(key, MANIFEST)
        try:
            return {name: StoredFile(**facts) for name, facts in json.loads(manifest).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise StorageError(
                f"The manifest of {key} is damaged: {error}.", hint="Make the result again."
            ) from error

    def exists(self, key: str, name: str = MANIFEST) -> bool:
        """Return whether a publication (or one file of it) is there and complete."""
        with _storage_errors(f"look for {key}/{name}"):
            info = self._fs.get_file_info(f"{self._path(key)}/{_checked(name)}")
        return bool(info.type == fs.FileType.File)

    def delete(self, key: str) -> None:
        """Remove a publication; removing a missing one is harmless."""
        with _storage_errors(f"delete {key}"):
            self._delete_if_there(self._path(key))

    def keys(self) -> list[str]:
        """Return the keys under which anything is."""
        with _storage_errors("list what is stored"):
            found = self._fs.get_file_info(fs.FileSelector(self._base, allow_not_found=True))
        names = [info.base_name for info in found if info.type == fs.FileType.Directory]
        return sorted(name for name in names if _SAFE_NAME.fullmatch(name))

    def newest(self, key: str, suffix: str) -> str | None:
        """Return the name of the file under a key that was written last, of those with a suffix."""
        with _storage_errors(f"list {key}"):
            found = self._fs.get_file_info(fs.FileSelector(self._path(key), allow_not_found=True))
        files = [
            info
            for info in found
            if info.type == fs.FileType.File and info.base_name.endswith(suffix)
        ]
        newest = max(files, key=lambda info: (info.mtime_ns or 0, info.base_name), default=None)
        return None if newest is None else str(newest.base_name)

    def within(self, name: str) -> ArtifactStore:
        """Return a store of its own in a folder of this one, which does not list it as a key.

        Args:
            name: begins with a dot.
        """
        inner = copy.copy(self)
        inner._base = f"{self._base}/.{_checked(name.removeprefix('.'))}"
        return inner

    def local_folder(self, key: str) -> Path | None:
        """Return the folder of a key; None on an object store."""
        return Path(self._path(key)) if self._is_local else None

    def probe(self) -> None:
        """Write and remove a small file.

        Raises:
            StorageError: the store cannot be written.
        """
        with _storage_errors("write a probe file"):
            staged = self._staged()
            try:
                self._write(staged, b"probe")
            finally:
                self._discard(staged)

    def _path(self, key: str) -> str:
        return f"{self._base}/{_checked(key)}"

    def _staged(self) -> str:
        return f"{self._base}/{_STAGING}/{uuid.uuid4().hex}"

    def _publish_by_rename(self, target: str, contents: Mapping[str, bytes]) -> None:
        staged = self._staged()
        try:
            self._fs.create_dir(staged, recursive=True)
            for name, content in contents.items():
                self._write(f"{staged}/{_checked(name)}", content)
            self._delete_if_there(target)
            self._fs.move(staged, target)
            _flush(Path(target).parent)
        except (OSError, InvalidConfigError):
            self._discard(staged)
            raise

    def _write(self, path: str, content: bytes) -> None:
        if self._is_local:
            self._fs.create_dir(str(Path(path).parent), recursive=True)
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)
        if self._is_local:
            _flush(Path(path))

    def _delete_if_there(self, path: str) -> None:
        kind = self._fs.get_file_info(path).type
        if kind == fs.FileType.Directory:
            self._fs.delete_dir(path)
        elif kind == fs.FileType.File:
            self._fs.delete_file(path)

    def _discard(self, path: str) -> None:
        # The error that brought us here matters more than litter that could not be removed.
        with contextlib.suppress(OSError):
            self._delete_if_there(path)


def _checked(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise InvalidConfigError(
            f"{name[:80]!r} is not a valid artifact name.", hint="Use 1-128 of A-Z a-z 0-9 . _ -."
        )
    return name


def _fingerprint(content: bytes) -> dict[str, int | str]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(action: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if is_full else str(error)
        hint = "Free some space." if is_full else "Check that the folder exists and is writable."
        raise StorageError(f"Could not {action}: {reason}.", hint=hint) from error
