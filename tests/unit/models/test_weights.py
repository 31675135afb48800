from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dream_cad.exceptions import InvalidConfigError, ModelUnavailableError, StorageError
from dream_cad.models import weights
from dream_cad.models.weights import (
    PUBLISHED,
    Checkpoint,
    choose_checkpoint,
    file_sha256,
    find_published,
    published_folders,
    weights_hash,
)
from dream_cad.settings import reload_settings

BIG, SMALL = 24.0, 4.0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Model path, cache and nano folder inside tmp_path; nothing in them yet."""
    monkeypatch.setenv("DREAM_CAD_MODEL_PATH", str(tmp_path / "models"))
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DREAM_CAD_CHECKPOINT", raising=False)
    monkeypatch.setattr("dream_cad.checkpoints._NANO", tmp_path / "nano")
    reload_settings()
    yield tmp_path
    monkeypatch.undo()
    reload_settings()


def put(folder: Path, names: tuple[str, ...] = ("config.yaml", "model.ckpt")) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def choose(choice: str | Path = "auto", vram_gb: float = 0.0) -> Checkpoint:
    return choose_checkpoint("triposr", choice, min_vram_gb=6.0, vram_gb=vram_gb)


def test_table_pins_what_the_reference_states() -> None:
    path = Path(__file__).parents[2] / "reference/data/triposr/checkpoint.json"
    stated = json.loads(path.read_text())["sources"][0]
    published = PUBLISHED["triposr"]
    assert published.repo_id == stated["repo_id"]
    assert stated["revision"].startswith(published.revision)
    sums = {file.name: file.sha256 for file in published.files}
    assert set(sums) == {"config.yaml", "model.ckpt"}
    assert stated["sha256_reported"].startswith(str(sums["model.ckpt"]))


def test_model_path_wins_over_cache(folders: Path) -> None:
    assert published_folders("triposr") == [
        folders / "models/triposr",
        folders / "cache/models/triposr",
    ]
    cached = put(folders / "cache/models/triposr")
    assert find_published("triposr") == cached
    own = put(folders / "models/triposr")
    assert find_published("triposr") == own


def test_incomplete_folder_does_not_count(folders: Path) -> None:
    put(folders / "models/triposr", ("config.yaml",))
    assert find_published("triposr") is None
    assert find_published("no-such-model") is None


def test_auto_takes_published_on_a_large_gpu_with_files(folders: Path) -> None:
    put(folders / "nano/triposr")
    folder = put(folders / "models/triposr")
    assert choose(vram_gb=BIG) == Checkpoint("published", folder)


def test_auto_takes_nano_without_gpu_or_without_files(folders: Path) -> None:
    nano = put(folders / "nano/triposr")
    assert choose(vram_gb=BIG) == Checkpoint("nano", nano)
    put(folders / "models/triposr")
    assert choose(vram_gb=SMALL) == Checkpoint("nano", nano)
    assert choose(vram_gb=0.0) == Checkpoint("nano", nano)


def test_auto_says_what_is_missing(folders: Path) -> None:
    put(folders / "models/triposr")
    with pytest.raises(ModelUnavailableError, match=r"6 GB of GPU memory \(4.0 GB here\)"):
        choose(vram_gb=SMALL)


def test_explicit_choices_never_fall_back(folders: Path) -> None:
    put(folders / "nano/triposr")
    with pytest.raises(ModelUnavailableError, match="dream-cad pull triposr"):
        choose("published", vram_gb=BIG)


def test_missing_nano_is_told(folders: Path) -> None:
    put(folders / "models/triposr")
    with pytest.raises(ModelUnavailableError, match="No nano checkpoint"):
        choose("nano", vram_gb=BIG)


def test_published_runs_without_gpu_when_asked_for(folders: Path) -> None:
    folder = put(folders / "models/triposr")
    assert choose("published", vram_gb=0.0) == Checkpoint("published", folder)


def test_setting_fixes_auto(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nano = put(folders / "nano/triposr")
    put(folders / "models/triposr")
    monkeypatch.setenv("DREAM_CAD_CHECKPOINT", "nano")
    reload_settings()
    assert choose(vram_gb=BIG) == Checkpoint("nano", nano)


def test_folder_is_taken_as_given(folders: Path) -> None:
    folder = put(folders / "mine")
    assert choose(folder) == Checkpoint("folder", folder)
    assert choose(str(folder)) == Checkpoint("folder", folder)


def test_unknown_choice_names_the_legal_ones() -> None:
    with pytest.raises(InvalidConfigError, match="'auto', 'published', 'nano'"):
        choose("publisched")


def test_sha256_of_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc" * 1000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 1000).hexdigest()
    with pytest.raises(StorageError):
        file_sha256(tmp_path / "none")
    with pytest.raises(StorageError):
        weights_hash(tmp_path / "none")


def test_hash_of_small_file_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = weights_hash(path)
    path.write_bytes(b"three")
    assert weights_hash(path) != first
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_hash_of_large_file_is_kept_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_HASH_SIDECAR_BYTES", 4)
    path, sidecar = tmp_path / "weights", tmp_path / "weights.sha256"
    path.write_bytes(b"large enough")
    digest = weights_hash(path)
    assert sidecar.read_text().startswith(digest)
    weights._cached_hash.cache_clear()
    known = "0" * 64
    sidecar.write_text(sidecar.read_text().replace(digest, known))
    assert weights_hash(path) == known  # not hashed again
    path.write_bytes(b"other, large enough")
    assert weights_hash(path) == file_sha256(path)  # the stamp no longer fits


def test_damaged_sidecar_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_HASH_SIDECAR_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"large enough, again")
    path.with_name("weights.sha256").write_bytes(b"\xff\xfe")
    assert weights_hash(path) == file_sha256(path)
