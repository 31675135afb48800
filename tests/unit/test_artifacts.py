from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from dream_cad.artifacts import MANIFEST, ArtifactStore
from dream_cad.exceptions import InvalidConfigError, StorageError

FILES = {"mesh.glb": b"glTF...", "preview.png": b"\x89PNG"}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


class ObjectStore(ArtifactStore):
    """The path for stores without an atomic rename, on an in-memory file system."""

    def __init__(self) -> None:
        self._fs, self._base = fs.FileSystem.from_uri("mock:///bucket")
        self._fs.create_dir(self._base, recursive=True)
        self._is_local = False

    def _write(self, path: str, content: bytes) -> None:
        # Object stores need no folders; the in-memory one does.
        self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        super()._write(path, content)


@pytest.fixture(params=["local", "object store"])
def either(request: pytest.FixtureRequest, store: ArtifactStore) -> ArtifactStore:
    return store if request.param == "local" else ObjectStore()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_published_files_can_be_read(either: ArtifactStore) -> None:
    assert either.exists("job-1") is False
    assert either.publish("job-1", FILES) == "job-1"
    assert either.exists("job-1")
    assert either.read("job-1", "mesh.glb") == FILES["mesh.glb"]
    assert b'"sha256"' in either.read("job-1", MANIFEST)


def test_what_was_published_is_listed(either: ArtifactStore) -> None:
    either.publish("job-1", FILES)
    either.put("job-1", "mesh.obj", b"v 0 0 0")
    files = either.files("job-1")
    assert {name: file.bytes for name, file in files.items()} == {"mesh.glb": 7, "preview.png": 4}
    assert files["mesh.glb"].sha256 == hashlib.sha256(b"glTF...").hexdigest()
    with pytest.raises(StorageError):
        either.files("job-2")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": {"size": 1}}', b"\xff"])
def test_a_damaged_list_is_a_storage_error(store: ArtifactStore, content: bytes) -> None:
    store.publish("job-1", FILES)
    store.put("job-1", MANIFEST, content)
    with pytest.raises(StorageError, match="damaged"):
        store.files("job-1")


def test_publishing_again_replaces_everything(either: ArtifactStore) -> None:
    either.publish("job-1", FILES)
    either.publish("job-1", {"mesh.glb": b"new"})
    assert either.read("job-1", "mesh.glb") == b"new"
    assert not either.exists("job-1", "preview.png")


def test_derived_files_join_a_publication(either: ArtifactStore) -> None:
    either.publish("job-1", FILES)
    either.put("job-1", "mesh.obj", b"v 0 0 0")
    either.put("job-1", "mesh.obj", b"v 1 1 1")
    assert either.read("job-1", "mesh.obj") == b"v 1 1 1"


def test_delete(either: ArtifactStore) -> None:
    either.publish("job-1", FILES)
    either.delete("job-1")
    either.delete("job-1")
    assert not either.exists("job-1")
    with pytest.raises(StorageError, match=r"mesh\.glb"):
        either.read("job-1", "mesh.glb")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\x00b", "x" * 129])
def test_unsafe_names_are_refused(store: ArtifactStore, name: str) -> None:
    with pytest.raises(InvalidConfigError):
        store.publish(name, FILES)
    with pytest.raises(InvalidConfigError):
        store.publish("job-1", {name: b""})
    with pytest.raises(InvalidConfigError):
        store.read("job-1", name)
    assert not store.exists("job-1")


def test_readers_see_all_or_nothing(store: ArtifactStore) -> None:
    torn: list[str] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            for number in range(40):
                key = f"job-{number}"
                if store.exists(key) and not store.exists(key, "preview.png"):
                    torn.append(key)

    reader = threading.Thread(target=watch)
    reader.start()
    for number in range(40):
        store.publish(f"job-{number}", FILES)
    is_over.set()
    reader.join()
    assert torn == []


def test_a_full_disk_publishes_nothing(tiny_disk: Path) -> None:
    store = ArtifactStore(tiny_disk)
    store.publish("small", FILES)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        store.publish("large", {"a": b"x" * 300_000, "mesh.glb": b"x" * 2**20})
    assert caught.value.retryable
    assert not store.exists("large")
    with pytest.raises(StorageError, match="the disk is full"):
        store.put("small", "mesh.obj", b"x" * 2**20)
    assert store.read("small", "mesh.glb") == FILES["mesh.glb"]
    store.publish("later", {"a": b"x" * 300_000})  # nothing is left behind to fill the disk


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="writable"):
        ArtifactStore(tmp_path / "file" / "sub").publish("job-1", FILES)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="cannot be kept"):
        ArtifactStore("gopher://hole/jobs")
