"""Checkpoints of several repositories whose commits this version does not know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tenacity import wait_none

from dream_cad.cli import run
from dream_cad.exceptions import DownloadError, InvalidConfigError, StorageError
from dream_cad.models import weights
from dream_cad.models.download import CheckpointDownloader, DownloadPlan
from dream_cad.models.weights import (
    REVISIONS_FILE,
    FileOrigin,
    PublishedCheckpoint,
    PublishedFile,
    published_source,
    read_revisions,
)
from tests.unit.loopback import Answer, Request, serve

FIRST, SECOND, PINNED = "a" * 40, "b" * 40, "c" * 40
NAMES = {"unet/weights.bin", "lgm/weights.bin", "extra.bin"}
UNPINNED = PublishedCheckpoint(
    "authors/views",
    None,
    (
        PublishedFile("unet/weights.bin"),
        PublishedFile("lgm/weights.bin", origin=FileOrigin("authors/splats", None, "big.bin")),
        PublishedFile("extra.bin", origin=FileOrigin("authors/pinned", PINNED, "extra.bin")),
    ),
    "MIT",
)


@dataclass
class Hub:
    """Two repositories whose main branches move."""

    commits: dict[str, str] = field(
        default_factory=lambda: {"authors/views": FIRST, "authors/splats": SECOND}
    )
    paths: list[str] = field(default_factory=list)

    def respond(self, request: Request) -> Answer:
        self.paths.append(request.path)
        repository, _, rest = request.path.strip("/").partition("/resolve/")
        revision = rest.partition("/")[0]
        commit = self.commits.get(repository, PINNED) if revision == "main" else revision
        return Answer(body=f"{repository} {commit}".encode(), headers={"X-Repo-Commit": commit})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for place in ("dream_cad.models.weights.PUBLISHED", "dream_cad.models.download.PUBLISHED"):
        monkeypatch.setattr(place, {"mvdream": UNPINNED})
    hub = Hub()
    with serve(hub.respond) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield hub


def pull(folder: Path, *, latest: bool = False) -> DownloadPlan:
    with closing(CheckpointDownloader(wait=wait_none())) as downloader:
        plan = downloader.plan("mvdream", folder, latest=latest)
        downloader.fetch(plan, lambda name, done: None)
    return plan


def test_nothing_is_asked_of_the_hub_unless_the_newest_is_wanted(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="knows no commit of authors/views") as caught:
        pull(tmp_path)
    assert "--latest" in (caught.value.hint or "")
    assert hub.paths == []


def test_the_newest_commit_of_each_repository_is_taken_and_kept_to(
    hub: Hub, tmp_path: Path
) -> None:
    plan = pull(tmp_path, latest=True)
    assert plan.revisions == {
        "authors/views": FIRST,
        "authors/splats": SECOND,
        "authors/pinned": PINNED,
    }
    files = {name: (tmp_path / name).read_text() for name in NAMES}
    assert files["unet/weights.bin"] == f"authors/views {FIRST}"
    assert files["lgm/weights.bin"] == f"authors/splats {SECOND}"
    assert files["extra.bin"] == f"authors/pinned {PINNED}"
    assert f"/authors/splats/resolve/{SECOND}/big.bin" in hub.paths
    assert f"/authors/pinned/resolve/main/{'extra.bin'}" not in hub.paths
    assert read_revisions(tmp_path) == plan.revisions

    hub.commits["authors/views"] = "d" * 40
    assert pull(tmp_path).missing == ()
    assert pull(tmp_path, latest=True).revisions["authors/views"] == "d" * 40
    assert read_revisions(tmp_path)["authors/views"] == "d" * 40


def test_receipts_name_the_commits(hub: Hub, tmp_path: Path) -> None:
    pull(tmp_path, latest=True)
    pinned = f"authors/pinned@{PINNED}"
    assert published_source("mvdream", tmp_path) == (
        f"authors/views@{FIRST} authors/splats@{SECOND} {pinned}"
    )
    for content in ("", "[]", "{", "null", '{"authors/views": "../x", "authors/splats": 1}'):
        (tmp_path / REVISIONS_FILE).write_text(content)
        assert published_source("mvdream", tmp_path) == (
            f"authors/views@unknown authors/splats@unknown {pinned}"
        )


def test_a_hub_that_names_no_commit_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.commits["authors/splats"] = "../main"
    with pytest.raises(DownloadError, match="names no commit"):
        pull(tmp_path, latest=True)
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_cannot_be_written_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / REVISIONS_FILE).mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        pull(tmp_path, latest=True)


def test_the_command(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "mvdream", "--to", str(tmp_path), "--yes"]) == 2
    assert "--latest" in capsys.readouterr().err
    assert run(["pull", "mvdream", "--to", str(tmp_path), "--yes", "--latest"]) == 0
    told = capsys.readouterr().err
    assert f"authors/views at {FIRST[:12]}" in told
    assert f"authors/splats at {SECOND[:12]}" in told
    assert json.loads((tmp_path / REVISIONS_FILE).read_text())["authors/views"] == FIRST
    assert weights.find_published("mvdream") is None  # it was put elsewhere
