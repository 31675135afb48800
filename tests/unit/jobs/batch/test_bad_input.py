"""Each kind of bad input: told before a GPU is taken where it can be known, else by its row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from dream_cad.exceptions import CheckpointError, FileFormatError, InvalidConfigError, StorageError
from jobs.batch.attempts import Tally
from jobs.batch.intake import Work, take_in
from jobs.batch.items import PART, raise_problem
from jobs.batch.manifest import COMPLETED, FAILED, Manifest
from jobs.batch.planning import Planner
from jobs.batch.reading import open_source, read_records
from jobs.batch.rows import RowChecker
from jobs.batch.stages import FinishMeshes, GenerateMeshes, StageSetup
from jobs.batch.storage import Storage, check_kept
from tests.cluster.echo_model import EchoModel

TEN_GB = 10 * 10**9
NOBODY = 65534


@pytest.fixture(autouse=True)
def echo(clean_registry: None) -> None:
    from dream_cad.models.base import ModelCapabilities
    from dream_cad.models.factory import register_model

    register_model("echo", ModelCapabilities(0.0, 0.0))(EchoModel)


def take(source: Path, output: Path, **more: Any) -> Work:
    found = open_source(str(source))
    checker = RowChecker(Planner([]).plan, "echo", found.folder)
    storage = Storage(str(output))
    storage.probe()
    return take_in(read_records(found), checker, storage, max_part_rows=8, **more)


def make(work: Work, output: Path) -> dict[str, Any]:
    """Run the stages in this process; returns the manifest's rows by prompt or picture."""
    storage = Storage(str(output))
    plan = Planner([]).plan("echo")
    setup = StageSetup(
        storage,
        Tally(),
        "echo",
        plan.options,
        (),
        plan.finish_options,
        plan.text_options,
        "stl",
        has_quality=False,
    )
    generate, finish = GenerateMeshes(setup), FinishMeshes(setup)
    for path in work.by_model["echo"].parts if work.by_model else ():
        for block in generate(pa.table({PART: [path]})):
            raise_problem(finish(block))
    Manifest(storage).join()
    return {str(entry.prompt or entry.image): entry for entry in Manifest(storage).read()}


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sparse(path: Path, head: bytes = b"") -> Path:
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(TEN_GB)
    return path


def test_missing_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("text\na chair\n")
    with pytest.raises(InvalidConfigError, match="no column prompt or image"):
        take(tmp_path / "p.csv", tmp_path / "out")
    parquet.write_table(pa.table({"text": ["a chair"]}), tmp_path / "p.parquet")
    with pytest.raises(InvalidConfigError, match="no column prompt or image"):
        take(tmp_path / "p.parquet", tmp_path / "out")
    lines = write_rows(tmp_path / "p.jsonl", {"text": "a chair"}, {"text": "a table"})
    with pytest.raises(InvalidConfigError, match="None of the 2 rows"):
        take(lines, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest").exists()


def test_mixed_types_fail_by_their_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a chair"}, {"prompt": 5}, {"prompt": ["x"]}, {"prompt": "b", "seed": "x"}]
    work = take(write_rows(tmp_path / "p.jsonl", *rows), tmp_path / "out")
    assert (work.rows, work.bad) == (1, 3)
    made = make(work, tmp_path / "out")
    assert made["a chair"].status == COMPLETED
    assert "text is needed" in made["5"].error
    assert "whole number" in made["b"].error


def test_rows_with_the_same_id_are_made_once(tmp_path: Path) -> None:
    twice = {"prompt": "a chair", "options": {"half": True}}
    source = write_rows(tmp_path / "p.jsonl", twice, {"prompt": "a table"}, twice, twice)
    work = take(source, tmp_path / "out")
    assert (work.read, work.rows, work.repeated, work.first_repeated) == (4, 2, 2, 2)
    assert len(make(work, tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("name", "content"), [("p.txt", " \n\n"), ("p.csv", "prompt,seed\n"), ("p.jsonl", "\n")]
)
def test_files_without_rows(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidConfigError, match="no rows"):
        take(tmp_path / name, tmp_path / "out")
    (tmp_path / name).write_text("")
    with pytest.raises(InvalidConfigError, match="is empty"):
        take(tmp_path / name, tmp_path / "out")


def test_ten_gigabytes_are_not_read_into_memory(tmp_path: Path) -> None:
    """Holes of a sparse file: one endless line after the first, as of a file that is no text."""
    lines = sparse(tmp_path / "p.txt", b"a chair\n")
    table = sparse(tmp_path / "p.csv", b"prompt\na chair\n")
    tracemalloc.start()
    for source in (lines, table):
        first, endless = islice(read_records(open_source(str(source))), 2)
        assert first.values == {"prompt": "a chair"}
        assert endless.problem is not None
    with pytest.raises(FileFormatError, match="no header line"):
        open_source(str(sparse(tmp_path / "h.csv")))
    with pytest.raises(FileFormatError, match="not a Parquet file"):
        open_source(str(sparse(tmp_path / "p.parquet", b"PAR1")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_unreadable_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    sparse(tmp_path / "huge.png")
    names = ["good.png", "gone.png", "empty.png", "huge.png", ".", "text.png", "half.png"]
    source = write_rows(tmp_path / "p.jsonl", *({"image": name} for name in names))
    work = take(source, tmp_path / "out")
    assert (work.rows, work.bad) == (3, 4)  # what a look at the file tells, before any GPU
    made = {Path(name).name: entry for name, entry in make(work, tmp_path / "out").items()}
    assert [name for name, entry in made.items() if entry.status == COMPLETED] == ["good.png"]
    assert "No such file" in made["gone.png"].error
    assert "is empty" in made["empty.png"].error
    assert "10,000,000,000 bytes" in made["huge.png"].error
    for name in ("text.png", "half.png"):
        assert made[name].status == FAILED
        assert made[name].error


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret.txt").write_text("a chair\n")
    (tmp_path / "secret.txt").chmod(0o600)
    (tmp_path / "locked").mkdir(mode=0o500)
    with as_nobody():
        with pytest.raises(StorageError, match="Permission denied"):
            Storage(str(tmp_path / "locked" / "out")).probe()
        with pytest.raises(StorageError, match="Permission denied"):
            list(read_records(open_source(str(tmp_path / "secret.txt"))))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    filler = folder / "filler"
    filler.write_bytes(bytes(max(shutil.disk_usage(folder).free - leave, 0)))
    return filler


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "p.jsonl", *({"prompt": f"cube {n}"} for n in range(40)))
    filler = fill(small_disk, 0)
    with pytest.raises(StorageError, match="the disk is full"):
        take(source, small_disk / "out")  # before any GPU
    filler.unlink()
    work = take(source, small_disk / "out")
    filler = fill(small_disk, 16 * 1024)
    with pytest.raises(StorageError, match="the disk is full"):  # while it runs: what is
        make(work, small_disk / "out")  # finished is kept, and the batch stops with the reason
    filler.unlink()
    rows = make(take(source, small_disk / "out"), small_disk / "out")
    assert len(rows) == 40
    ended = {entry.status for entry in rows.values()}
    assert COMPLETED in ended
    for entry in rows.values():
        assert entry.status == COMPLETED or "the disk is full" in str(entry.error)


def test_a_model_that_cannot_load_ends_the_batch_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = take(write_rows(tmp_path / "p.jsonl", {"prompt": "a chair"}), tmp_path / "out")

    def load(self: EchoModel) -> None:
        raise CheckpointError("The weights are damaged.")

    monkeypatch.setattr(EchoModel, "load_model", load)
    with pytest.raises(CheckpointError, match="The weights are damaged"):
        make(work, tmp_path / "out")


def test_an_output_that_ray_would_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submitted job's working directory is a copy under working_dir_files."""
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(InvalidConfigError, match=r"outputs/batch .* deletes") as caught:
        check_kept("outputs/batch")
    assert "absolute path" in str(caught.value.hint)
    check_kept(str(tmp_path / "outputs"))
    check_kept("s3://bucket/working_dir_files")
    monkeypatch.chdir(tmp_path)
    check_kept("outputs/batch")
