from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dream_cad.exceptions import CheckpointError, DownloadError, InvalidConfigError
from dream_cad.images import hub
from dream_cad.images.pipeline_folder import (
    DOWNLOAD_PATTERNS,
    count_weight_bytes,
    find_variant,
    read_defaults,
    read_model_index,
)


def _make_folder(folder: Path, index: dict[str, object], card: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize(
    ("index", "source", "steps", "guidance", "side"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "stabilityai/sdxl-turbo", 4, 0.0, 512),
        ({"_class_name": "StableDiffusionXLPipeline"}, "stabilityai/sdxl-base", 30, 6.0, 1024),
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": True}, "a/b", 4, 1.0, 768),
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": False}, "a/klein", 28, 4.0, 768),
        ({"_class_name": "SomeNewPipeline"}, "a/b", 30, 5.0, None),
    ],
)
def test_call_defaults_of_families(
    tmp_path: Path,
    index: dict[str, object],
    source: str,
    steps: int,
    guidance: float,
    side: int | None,
) -> None:
    defaults = read_defaults(_make_folder(tmp_path, index), source)
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, guidance)
    assert (defaults.height, defaults.width) == (side, side)


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\nlicense: gpl\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: sai-nc-community\n---\n", "sai-nc-community"),
        ("no front matter", "unknown"),
        (None, "unknown"),
    ],
)
def test_licence_comes_from_the_model_card(tmp_path: Path, card: str | None, license: str) -> None:
    folder = _make_folder(tmp_path, {"_class_name": "FluxPipeline"}, card)
    assert read_defaults(folder, "a/b").license == license


def test_old_pipelines_with_a_safety_checker_are_plain(tmp_path: Path) -> None:
    entry = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": entry}
    assert read_model_index(_make_folder(tmp_path, index)) == index


def test_half_precision_copies_are_found_and_counted(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"x" * 100)
    assert find_variant(tmp_path) is None
    assert count_weight_bytes(tmp_path, None) == 100
    (tmp_path / "unet" / "model.fp16.safetensors").write_bytes(b"x" * 50)
    assert find_variant(tmp_path) == "fp16"
    assert count_weight_bytes(tmp_path, "fp16") == 50


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name@1a2b3c", ("owner/name", "1a2b3c")),
        ("owner/name-1.0@refs/pr/3", ("owner/name-1.0", "refs/pr/3")),
    ],
)
def test_sources_are_split(source: str, expected: tuple[str, str | None]) -> None:
    assert hub.split_source(source) == expected


@pytest.mark.parametrize("source", ["", "name", "a/b/c", "../x", "/etc/passwd", "a/b@", "ä/b"])
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(InvalidConfigError, match="repository id"):
        hub.split_source(source)


def _fill_cache(cache: Path, name: str, revision: str) -> Path:
    """Lay a file out as the Hugging Face cache does."""
    root = cache / ("models--" + name.replace("/", "--"))
    snapshot = root / "snapshots" / revision
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    return snapshot


def test_lookup_order_is_folder_model_path_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DREAM_CAD_MODEL_PATH", str(tmp_path / "models"))
    required = "model_index.json"

    assert hub.find_repository("owner/name", required=required) is None
    snapshot = _fill_cache(tmp_path / "cache" / "hub", "owner/name", "f" * 40)
    assert hub.find_repository("owner/name", required=required) == snapshot
    assert hub.find_repository(f"owner/name@{'f' * 40}", required=required) == snapshot
    assert hub.find_repository(f"owner/name@{'0' * 40}", required=required) is None
    placed = _make_folder(tmp_path / "models" / "name", {})
    assert hub.find_repository("owner/name", required=required) == placed
    assert hub.find_repository(placed, required=required) == placed
    with pytest.raises(CheckpointError, match=r"holds no other\.json"):
        hub.find_repository(placed, required="other.json")


def test_failed_download_is_retryable_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(DownloadError, match="no route to host") as caught:
        hub.download_repository("owner/name", patterns=["*.json"])
    assert caught.value.retryable


def test_download_asks_for_the_pinned_revision_and_safe_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, object] = {}

    def fetch(repository: str, **kwargs: object) -> str:
        asked.update(kwargs, repository=repository)
        return str(tmp_path)

    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert hub.download_repository("a/b@v1", patterns=["*.safetensors"]) == tmp_path
    assert (asked["repository"], asked["revision"]) == ("a/b", "v1")
    assert asked["allow_patterns"] == ["*.safetensors"]
    assert asked["cache_dir"] == tmp_path / "hub"


def test_listing_names_the_files_to_fetch_with_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    files = {"model_index.json": 10, "unet/w.safetensors": 500, "unet/w.bin": 500, "x.py": 1}

    def model_info(api: object, repository: str, **kwargs: object) -> SimpleNamespace:
        assert (repository, kwargs["revision"]) == ("a/b", "v1")
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
        return SimpleNamespace(siblings=siblings)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    listed = hub.list_repository("a/b@v1", patterns=DOWNLOAD_PATTERNS)
    assert listed == {"model_index.json": 10, "unet/w.safetensors": 500}
