from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
    ModelUnavailableError,
)
from dream_cad.models.base import GenerationResult
from dream_cad.models.triposr import TripoSR
from dream_cad.models.triposr.options import TripoSROptions
from dream_cad.models.weights import file_sha256
from dream_cad.settings import reload_settings
from tests.tiny_triposr import picture, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("triposr"))


@pytest.fixture
def model(folder: Path) -> TripoSR:
    return TripoSR(checkpoint=folder, device="cpu")


@pytest.fixture(scope="module")
def result(folder: Path) -> GenerationResult:
    return TripoSR(checkpoint=folder, device="cpu").generate_from_image(picture())


def test_result_is_a_centred_unit_mesh(result: GenerationResult) -> None:
    assert result.vertices.dtype == np.float32
    assert result.faces.dtype == np.int32
    assert result.faces.min() == 0
    assert result.faces.max() == len(result.vertices) - 1
    low, high = result.vertices.min(axis=0), result.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-5)
    assert result.vertex_colors is not None
    assert result.vertex_colors.shape == result.vertices.shape
    assert result.vertex_colors.dtype == np.uint8
    assert result.model_name == "triposr"
    assert result.generation_time > 0


def test_faces_point_outwards(result: GenerationResult) -> None:
    corners = result.vertices[result.faces].astype(np.float64)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.5 < volume < 1.1


def test_receipt(result: GenerationResult, folder: Path) -> None:
    metadata = json.loads(json.dumps(result.metadata))
    assert metadata["model"] == "triposr"
    assert metadata["input"]["kind"] == "image"
    assert len(metadata["input"]["sha256"]) == 64
    assert metadata["options"]["resolution"] == 32
    assert metadata["options"]["threshold"] == 25.0
    assert metadata["checkpoint"] == {
        "kind": "folder",
        "source": str(folder),
        "weights_sha256": file_sha256(folder / "model.ckpt"),
    }
    assert metadata["matting"] == {"method": "alpha", "model": None}
    assert metadata["device"] == "cpu"
    assert metadata["precision"] == "fp32"
    assert metadata["versions"]["torch"] == torch.__version__
    assert "profile" not in metadata


def test_same_input_gives_the_same_mesh(model: TripoSR, result: GenerationResult) -> None:
    again = model.generate_from_image(picture())
    assert np.array_equal(again.vertices, result.vertices)
    assert np.array_equal(again.faces, result.faces)
    assert np.array_equal(again.vertex_colors, result.vertex_colors)
    assert again.metadata == result.metadata


def test_another_picture_gives_another_mesh(model: TripoSR, result: GenerationResult) -> None:
    other = model.generate_from_image(picture("lime"))
    assert other.metadata["input"]["sha256"] != result.metadata["input"]["sha256"]
    assert not np.array_equal(other.vertex_colors, result.vertex_colors)


def test_chunk_size_does_not_matter(model: TripoSR, result: GenerationResult) -> None:
    other = model.generate_from_image(picture(), chunk_size=1024)
    assert np.array_equal(other.faces, result.faces)
    np.testing.assert_allclose(other.vertices, result.vertices, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_gives_nearly_the_same(
    precision: Any, folder: Path, result: GenerationResult
) -> None:
    with TripoSR(checkpoint=folder, device="cpu", precision=precision) as model:
        half = model.generate_from_image(picture())
    assert half.metadata["precision"] == precision
    assert abs(len(half.faces) - len(result.faces)) < 0.05 * len(result.faces)


def test_precision_setting_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_PRECISION", "bf16")
    reload_settings()
    model = TripoSR(checkpoint=folder, device="cpu")
    assert model.generate_from_image(picture()).metadata["precision"] == "bf16"
    monkeypatch.undo()
    reload_settings()


def test_texture_replaces_vertex_colors(model: TripoSR) -> None:
    result = model.generate_from_image(picture(), texture=True, texture_size=256)
    assert result.vertex_colors is None
    assert result.texture is not None
    assert result.texture.shape == (256, 256, 3)
    assert result.texture.dtype == np.uint8
    assert result.uv_coords is not None
    assert result.uv_coords.shape == (len(result.vertices), 2)
    assert 0 <= result.uv_coords.min() <= result.uv_coords.max() <= 1


def test_texture_holds_the_colors_of_the_field(model: TripoSR, result: GenerationResult) -> None:
    textured = model.generate_from_image(picture(), texture=True, texture_size=512)
    distances, nearest = cKDTree(result.vertices).query(textured.vertices)
    assert distances.max() < 1e-5
    texel = np.clip((textured.uv_coords * 512).astype(int), 0, 511)
    seen = textured.texture[511 - texel[:, 1], texel[:, 0]].astype(int)
    wanted = result.vertex_colors[nearest].astype(int)
    assert np.percentile(np.abs(seen - wanted).max(axis=1), 90) <= 3


def test_target_faces(model: TripoSR, result: GenerationResult) -> None:
    small = model.generate_from_image(picture(), target_faces=500)
    assert len(small.faces) <= 550 < len(result.faces)


def test_picture_is_taken_as_it_is_without_matting(model: TripoSR) -> None:
    flat = picture().convert("RGB")
    result = model.generate_from_image(flat, remove_background=False)
    assert len(result.faces) > 0
    assert result.metadata["matting"] is None


def test_empty_surface_is_an_error_with_a_hint(model: TripoSR) -> None:
    with pytest.raises(GenerationError, match="no surface at threshold 1e\\+06"):
        model.generate_from_image(picture(), threshold=1e6)


def test_transparent_picture_is_refused(model: TripoSR) -> None:
    clear = picture()
    clear.putalpha(0)
    with pytest.raises(InvalidConfigError):
        model.generate_from_image(clear)


def test_unknown_option_is_refused_before_loading(model: TripoSR) -> None:
    with pytest.raises(InvalidConfigError, match="no option 'resolutions'"):
        model.generate_from_image(picture(), resolutions=64)
    assert not model.is_loaded


def test_progress_rises_from_zero_to_one(model: TripoSR) -> None:
    seen: list[tuple[float, str]] = []
    model.generate_from_image(picture(), progress=lambda f, s: seen.append((f, s)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len({stage for _, stage in seen}) >= 4


@pytest.mark.parametrize("after", [0.0, 0.15, 0.45, 0.8])
def test_cancelling_stops_at_the_next_step(model: TripoSR, after: float) -> None:
    def cancel(fraction: float, stage: str) -> None:
        if fraction >= after:
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.generate_from_image(picture(), progress=cancel)
    assert len(model.generate_from_image(picture()).faces) > 0


def test_unload_frees_the_weights_and_reload_works(
    model: TripoSR, result: GenerationResult
) -> None:
    model.load_model()
    assert model.is_loaded
    network = model._require_loaded().pipeline.network
    dead = [weakref.ref(parameter) for parameter in network.parameters()]
    del network
    model.unload_model()
    gc.collect()
    assert not model.is_loaded
    assert all(reference() is None for reference in dead)
    assert np.array_equal(model.generate_from_image(picture()).vertices, result.vertices)


def test_result_does_not_keep_the_model_alive(folder: Path) -> None:
    model = TripoSR(checkpoint=folder, device="cpu")
    kept = [model.generate_from_image(picture(), texture=t) for t in (False, True)]
    network = weakref.ref(model._require_loaded().pipeline.network)
    model.unload_model()
    gc.collect()
    assert network() is None
    assert len(kept[0].faces) > 0


def test_profile_setting_records_seconds(model: TripoSR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_PROFILE", "true")
    reload_settings()
    profile = model.generate_from_image(picture()).metadata["profile"]
    assert set(profile) == {"preprocess", "encode", "surface", "finish"}
    assert all(seconds >= 0 for seconds in profile.values())
    monkeypatch.undo()
    reload_settings()


def test_batch_size_setting_multiplies_the_query_chunk(
    model: TripoSR, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.load_model()
    pipeline = model._require_loaded().pipeline
    once = pipeline.chunk_size(TripoSROptions())
    monkeypatch.setenv("DREAM_CAD_BATCH_SIZE", "4")
    reload_settings()
    assert pipeline.chunk_size(TripoSROptions()) == 4 * once
    assert pipeline.chunk_size(TripoSROptions(chunk_size=2048)) == 2048
    monkeypatch.undo()
    reload_settings()


def test_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / "model.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        TripoSR(checkpoint=folder, device="cpu").load_model()


def test_published_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path))
    reload_settings()
    with pytest.raises(ModelUnavailableError, match="dream-cad pull triposr"):
        TripoSR(checkpoint="published", device="cpu").load_model()
    monkeypatch.undo()
    reload_settings()


def test_nan_weights_are_told(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    state = torch.load(folder / "model.ckpt", weights_only=True)
    state["backbone.proj_out.bias"][0] = float("nan")
    torch.save(state, folder / "model.ckpt")
    with pytest.raises(GenerationError, match="not finite"):
        TripoSR(checkpoint=folder, device="cpu").generate_from_image(picture())


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="fp32, fp16, bf16"):
        TripoSR(precision="fp8")


def test_factory_creates_it(folder: Path) -> None:
    model = ModelFactory.create_model("triposr", checkpoint=folder, device="cpu")
    assert isinstance(model, TripoSR)
    assert model.options_model() is TripoSROptions
    assert model.capabilities.max_resolution == 512


def test_importing_the_class_does_not_import_torch() -> None:
    code = "import sys, dream_cad.models.triposr; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
