from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dream_cad.cli import run
from dream_cad.images.hub import find_repository
from dream_cad.images.matting_model import ONNX_FILE
from dream_cad.images.pipeline_folder import MODEL_INDEX
from dream_cad.models import weights
from dream_cad.models.weights import PublishedCheckpoint, PublishedFile
from dream_cad.settings import get_settings
from tests.unit.loopback import Answer, Request, serve

WEIGHTS = bytes(range(256)) * 1024
COMMIT = "1" * 40
MIT = b"MIT License\nPermission is hereby granted"
REPOSITORIES = {
    "authors/model": {"config.yaml": b"a: 1\n", "model.ckpt": WEIGHTS, "LICENSE": MIT},
    "authors/gated": {"config.yaml": b"a: 2\n"},
    "owner/drawing": {MODEL_INDEX: b"{}", "unet/x.safetensors": WEIGHTS, "code.py": b"never"},
    "owner/matting": {"config.json": b"{}", ONNX_FILE: WEIGHTS, "LICENSE": b"Apache License"},
}


class Hub:
    """Four repositories, one of them gated."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.fetched: list[tuple[str, str | None]] = []

    def respond(self, request: Request) -> Answer:
        path = request.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            return self._describe("/".join(path.split("/")[2:4]), is_tree="/tree/" in path)
        if "/resolve/" not in path:
            return Answer(404)
        owner, name, _, _, *rest = path.split("/")
        files = REPOSITORIES[f"{owner}/{name}"]
        file = "/".join(rest)
        if name == "gated":
            return Answer(403)
        if file not in files:
            return Answer(404, headers={"X-Error-Code": "EntryNotFound"})
        content = files[file]
        tag = hashlib.sha256(content).hexdigest()
        facts = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
        if request.method == "HEAD":
            return Answer(body=content, headers=facts)
        wanted = request.headers.get("range")
        self.fetched.append((file, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        cut = self.cuts.pop() if file == "model.ckpt" and self.cuts else None
        return Answer(206 if wanted else 200, content[start:], facts, cut_at=cut)

    def _describe(self, name: str, *, is_tree: bool) -> Answer:
        files = REPOSITORIES[name].items()
        tree = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files]
        siblings = [{"rfilename": file, "size": len(c)} for file, c in files]
        facts = {"id": name, "sha": COMMIT, "siblings": siblings}
        body = json.dumps(tree if is_tree else facts).encode()
        return Answer(body=body, headers={"Content-Type": "application/json"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = (PublishedFile("config.yaml"), PublishedFile("model.ckpt"))
    published = {
        "triposr": PublishedCheckpoint("authors/model", "0" * 40, files, "MIT"),
        "stable-fast-3d": PublishedCheckpoint("authors/gated", "0" * 40, files, "Community"),
        "hunyuan3d-paint": PublishedCheckpoint("authors/model", "0" * 40, files, "MIT"),
    }
    for place in (
        "dream_cad.models.weights",
        "dream_cad.models.download",
        "dream_cad.cli.pull_all",
    ):
        monkeypatch.setattr(f"{place}.PUBLISHED", published)
    monkeypatch.setenv("DREAM_CAD_TEXT_TO_IMAGE", "owner/drawing")
    monkeypatch.setenv("DREAM_CAD_MATTING_MODEL", "owner/matting")
    hub = Hub()
    with serve(hub.respond) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)  # read when it was imported
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def pull_all(folder: Path, *more: str) -> int:
    return run(["pull", "--all", "--to", str(folder), "--yes", *more])


def test_a_mirror_holds_all_that_can_be_had_and_the_settings_find_it(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    assert pull_all(mirror) == 1
    said = capsys.readouterr()
    assert said.out == f"{mirror}\n", said.err
    assert "  | Permission is hereby granted" in said.err
    assert "owner/drawing has no licence file" in said.err
    assert "stable-fast-3d was not pulled: The hub does not give out" in said.err
    assert "mvdream was not pulled: this version knows no published weights" in said.err
    assert (mirror / "triposr" / "LICENSE").read_bytes() == MIT
    assert (mirror / "hunyuan3d-paint" / "model.ckpt").read_bytes() == WEIGHTS
    assert not (mirror / "drawing" / "code.py").exists()
    monkeypatch.setenv("DREAM_CAD_MODEL_PATH", str(mirror))
    get_settings.cache_clear()
    assert weights.find_published("triposr") == mirror / "triposr"
    assert weights.find_published("stable-fast-3d") is None
    assert find_repository("owner/drawing", required=MODEL_INDEX) == mirror / "drawing"
    assert find_repository("owner/matting", required=ONNX_FILE) == mirror / "matting"


def test_an_interrupted_mirror_goes_on(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "triposr").mkdir()
    (tmp_path / "triposr" / "model.ckpt.part").write_bytes(WEIGHTS[:1000])
    pull_all(tmp_path)
    assert ("model.ckpt", "bytes=1000-") in hub.fetched
    assert (tmp_path / "triposr" / "model.ckpt").read_bytes() == WEIGHTS
    hub.fetched.clear()
    pull_all(tmp_path)
    assert {file for file, _ in hub.fetched} == {"LICENSE"}


def test_a_failure_in_one_leaves_the_others_alone(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "triposr").touch()  # a file where a folder has to be
    assert pull_all(tmp_path) == 1
    assert "triposr was not pulled" in capsys.readouterr().err
    assert (tmp_path / "matting" / ONNX_FILE).read_bytes() == WEIGHTS


def test_a_stage_that_is_a_folder_here_is_named(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_CAD_TEXT_TO_IMAGE", str(tmp_path))
    get_settings.cache_clear()
    pull_all(tmp_path / "mirror")
    assert "is on this machine already: copy it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--all"], ["--all", "triposr", "--to", "x"], []])
def test_one_model_or_all_into_a_folder(words: list[str]) -> None:
    assert run(["pull", *words]) != 0
