from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from tenacity import wait_none

from dream_cad.cli import run
from dream_cad.exceptions import (
    DownloadError,
    ModelNotFoundError,
    ModelUnavailableError,
    StorageError,
)
from dream_cad.models import weights
from dream_cad.models.download import CheckpointDownloader, DownloadPlan
from dream_cad.models.weights import FileOrigin, PublishedCheckpoint, PublishedFile
from tests.unit.loopback import Answer, Request, serve

CONFIG = b"radius: 0.87\n"
WEIGHTS = bytes(range(256)) * 4096
REVISION = "0" * 40


@dataclass
class Hub:
    """Answers like the hub: sizes and tags on HEAD, ranges on GET; ``cuts`` break connections."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    ignores_ranges: bool = False
    ranges: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def respond(self, request: Request) -> Answer:
        self.paths.append(request.path)
        name = request.path.rpartition("/")[2]
        if self.status != 200 or name not in self.files:
            return Answer(self.status if self.status != 200 else 404)
        content = self.files[name]
        if request.method == "HEAD":
            tag = hashlib.sha256(content).hexdigest() if name == "model.ckpt" else "abc"
            return Answer(body=content, headers={"ETag": f'"{tag}"'})
        wanted = request.headers.get("range")
        self.ranges.append(wanted)
        if wanted and not self.ignores_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            return self._cut(Answer(206, content[start:]))
        return self._cut(Answer(200, content))

    def _cut(self, answer: Answer) -> Answer:
        if not self.cuts:
            return answer
        return Answer(answer.status, answer.body, cut_at=self.cuts.pop(0))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    published = PublishedCheckpoint(
        "authors/model",
        REVISION,
        (PublishedFile("config.yaml"), PublishedFile("model.ckpt")),
        "MIT",
    )
    monkeypatch.setattr(weights, "PUBLISHED", {"triposr": published})
    monkeypatch.setattr("dream_cad.models.download.PUBLISHED", {"triposr": published})
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    hub = Hub({"config.yaml": CONFIG, "model.ckpt": WEIGHTS})
    with serve(hub.respond) as url:
        hub.url = url
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield hub


def pull(folder: Path, seen: list[tuple[str, int]] | None = None) -> DownloadPlan:
    with closing(CheckpointDownloader(wait=wait_none())) as downloader:
        plan = downloader.plan("triposr", folder)
        downloader.fetch(plan, lambda name, done: seen.append((name, done)) if seen else None)
    return plan


def check_complete(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.yaml": CONFIG,
        "model.ckpt": WEIGHTS,
    }


def test_fetches_the_pinned_revision_into_the_folder(hub: Hub, tmp_path: Path) -> None:
    plan = pull(tmp_path / "new" / "triposr")
    assert plan.missing == plan.files
    assert [(file.name, file.size) for file in plan.files] == [
        ("config.yaml", len(CONFIG)),
        ("model.ckpt", len(WEIGHTS)),
    ]
    check_complete(tmp_path / "new" / "triposr")
    assert set(hub.paths) == {
        f"/authors/model/resolve/{REVISION}/{name}" for name in ("config.yaml", "model.ckpt")
    }


def test_default_folder_is_where_models_look(hub: Hub, tmp_path: Path) -> None:
    with closing(CheckpointDownloader(wait=wait_none())) as downloader:
        plan = downloader.plan("triposr")
        downloader.fetch(plan, lambda name, done: None)
    assert weights.find_published("triposr") == plan.folder


def test_what_is_there_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    pull(tmp_path)
    hub.ranges.clear()
    assert pull(tmp_path).missing == ()
    assert hub.ranges == []


def test_a_broken_connection_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [len(CONFIG), 300_000, 200_000]
    seen: list[tuple[str, int]] = [("start", 0)]
    pull(tmp_path, seen)
    check_complete(tmp_path)
    assert hub.ranges[0] is None
    assert hub.ranges[-1] == "bytes=500000-"
    assert seen[-1] == ("model.ckpt", len(WEIGHTS))


def test_a_later_run_goes_on_where_an_earlier_one_stopped(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.part").write_bytes(WEIGHTS[:100_000])
    with closing(CheckpointDownloader()) as downloader:
        plan = downloader.plan("triposr", tmp_path)
        assert plan.bytes_to_fetch == len(CONFIG) + len(WEIGHTS) - 100_000
    pull(tmp_path)
    check_complete(tmp_path)
    assert hub.ranges[-1] == "bytes=100000-"


def test_a_server_without_ranges_starts_the_file_anew(hub: Hub, tmp_path: Path) -> None:
    hub.ignores_ranges = True
    (tmp_path / "model.ckpt.part").write_bytes(WEIGHTS[:100_000])
    pull(tmp_path)
    check_complete(tmp_path)


@pytest.mark.parametrize("left_over", [WEIGHTS, WEIGHTS + b"more"])
def test_a_whole_or_too_long_part_is_handled(hub: Hub, tmp_path: Path, left_over: bytes) -> None:
    (tmp_path / "model.ckpt.part").write_bytes(left_over)
    pull(tmp_path)
    check_complete(tmp_path)


def test_wrong_content_is_refused_and_deleted(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.part").write_bytes(b"\xff" * 1000)
    with pytest.raises(DownloadError, match="SHA-256 differs"):
        pull(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}
    pull(tmp_path)
    check_complete(tmp_path)


def test_a_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    pull(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(WEIGHTS[:-1] + b"?")
    assert [file.name for file in pull(tmp_path).missing] == ["model.ckpt"]
    check_complete(tmp_path)


def test_a_pinned_hash_wins_over_the_hubs(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = PublishedFile("config.yaml", sha256="0" * 64)
    published = PublishedCheckpoint("authors/model", REVISION, (pinned,), "MIT")
    monkeypatch.setattr("dream_cad.models.download.PUBLISHED", {"triposr": published})
    with pytest.raises(DownloadError, match=r"config\.yaml is not what was published"):
        pull(tmp_path)


def test_a_pinned_size_is_compared_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = PublishedFile("config.yaml", size=5)
    published = PublishedCheckpoint("authors/model", REVISION, (pinned,), "MIT")
    monkeypatch.setattr("dream_cad.models.download.PUBLISHED", {"triposr": published})
    with pytest.raises(DownloadError, match="expected 5"):
        pull(tmp_path)


def test_redirects_of_the_hub_to_its_storage_and_to_another_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(request: Request) -> Answer:
        if request.path.startswith("/storage/"):
            return Answer(body=WEIGHTS)  # no tag, no linked size
        if request.path.startswith("/authors/model/"):
            return Answer(307, headers={"Location": request.path.replace("model/", "renamed/", 1)})
        if request.path.endswith("config.yaml"):
            return Answer(body=CONFIG)
        facts = {"X-Linked-Size": str(len(WEIGHTS)), "X-Linked-ETag": f'"{tag}"'}
        return Answer(302, b"moved", {"Location": "/storage/blob"} | facts)

    tag = hashlib.sha256(WEIGHTS).hexdigest()
    with serve(respond) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        pull(tmp_path)
    check_complete(tmp_path)


def test_it_gives_up_after_a_few_broken_connections(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [0] * 100
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        pull(tmp_path)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ModelUnavailableError), (403, ModelUnavailableError), (500, DownloadError)],
)
def test_refusals_of_the_hub(hub: Hub, tmp_path: Path, status: int, error: type[Exception]) -> None:
    hub.status = status
    with pytest.raises(error):
        pull(tmp_path)


def test_too_little_disk_is_found_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match="are needed"):
        pull(tmp_path)
    assert hub.ranges == []


def test_a_folder_that_cannot_be_made(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        pull(tmp_path / "file" / "models")


def test_models_without_a_checkpoint_and_unreachable_hubs(tmp_path: Path) -> None:
    with closing(CheckpointDownloader("http://127.0.0.1:9", wait=wait_none())) as downloader:
        with pytest.raises(ModelNotFoundError, match="Models: triposr"):
            downloader.plan("no-such-model")
        with pytest.raises(DownloadError, match="cannot be reached"):
            downloader.plan("triposr", tmp_path)


def test_a_file_may_lie_in_another_repository(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = FileOrigin("others/encoder", "1" * 40, "model.ckpt")
    files = (PublishedFile("config.yaml"), PublishedFile("encoder/weights.bin", origin=origin))
    published = PublishedCheckpoint("authors/model", REVISION, files, "MIT")
    monkeypatch.setattr("dream_cad.models.download.PUBLISHED", {"triposr": published})
    pull(tmp_path)
    assert (tmp_path / "encoder" / "weights.bin").read_bytes() == WEIGHTS
    assert f"/others/encoder/resolve/{'1' * 40}/model.ckpt" in hub.paths


def test_the_command_shows_sizes_and_licence_first(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pull", "triposr", "--to", str(tmp_path), "--yes"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{tmp_path}\n"
    assert "licence of the weights: MIT" in output.err
    assert "1.0 MB  model.ckpt" in output.err
    check_complete(tmp_path)
    assert run(["pull", "triposr", "--to", str(tmp_path)]) == 0
    assert "model.ckpt  (already there)" in capsys.readouterr().err


def test_the_command_asks_and_takes_no_for_an_answer(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *args, **kwargs: (_ for _ in ()).throw(_abort()))
    assert run(["pull", "triposr", "--to", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


def _abort() -> Exception:
    import typer

    return typer.Abort()
