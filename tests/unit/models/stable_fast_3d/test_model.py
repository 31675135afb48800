from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import load_file, save_file

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    CheckpointError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
)
from dream_cad.mesh.texels import count_overlaps
from dream_cad.models.base import GenerationResult
from dream_cad.models.stable_fast_3d import StableFast3D
from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.pipeline import StableFast3DPipeline
from dream_cad.models.stable_fast_3d.preprocess import crop_foreground
from tests.tiny_stable_fast_3d import make_network, write_checkpoint
from tests.tiny_triposr import picture
from tests.unit.mesh.gltf import needs_validator, problems

OPTIONS = {"texture_size": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("stable_fast_3d"))


@pytest.fixture(scope="module")
def model(folder: Path) -> StableFast3D:
    return StableFast3D(checkpoint=folder, device="cpu")


@pytest.fixture(scope="module")
def result(model: StableFast3D) -> GenerationResult:
    return model.generate_from_image(picture(), **OPTIONS)


def test_factory_creates_it(folder: Path) -> None:
    made = ModelFactory.create_model("stable-fast-3d", checkpoint=folder, device="cpu")
    assert isinstance(made, StableFast3D)
    assert made.capabilities.license_type == "Stability AI Community License"
    assert made.capabilities.has_pbr_materials


def test_result_is_a_centred_unit_mesh_that_faces_outwards(result: GenerationResult) -> None:
    low, high = result.vertices.min(axis=0), result.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-5)
    mesh = trimesh.Trimesh(result.vertices, result.faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(np.pi / 6, rel=0.25)  # the ball, positive: outwards


def test_result_is_an_asset_with_maps_and_material(result: GenerationResult) -> None:
    assert result.texture is not None
    assert result.texture.shape == (256, 256, 3)
    assert result.texture.std() > 0
    assert result.materials is not None
    assert 0 <= result.materials["roughness"] <= 1
    assert 0 <= result.materials["metallic"] <= 1
    normal = result.materials["normal_texture"]
    assert normal.shape == (256, 256, 3)
    assert normal.dtype == np.uint8
    assert result.vertex_colors is None


@pytest.mark.parametrize("unwrap", ["packed", "box"])
def test_islands_do_not_overlap(model: StableFast3D, unwrap: str) -> None:
    made = model.generate_from_image(picture(), unwrap=unwrap, **OPTIONS)
    assert made.uv_coords is not None
    overlapping, covered = count_overlaps(made.faces, made.uv_coords, texture_size=256)
    assert overlapping == 0
    assert covered > {"packed": 0.5, "box": 0.15}[unwrap] * 256**2


@needs_validator
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normal_map": False},
        {"texture": False},
        {"unwrap": "box"},
        {"remesh": "triangle", "target_vertices": 120},
        {"target_faces": 100},
    ],
)
def test_glb_passes_the_khronos_validator(
    model: StableFast3D, tmp_path: Path, changes: dict[str, bool | str | int]
) -> None:
    made = model.generate_from_image(picture(), **OPTIONS | changes)
    path = Path(made.save(tmp_path / "asset.glb"))
    assert problems(path.read_bytes()) == []


def test_receipt_says_how_it_was_made(result: GenerationResult) -> None:
    metadata = json.loads(json.dumps(result.metadata))
    assert metadata["model"] == "stable-fast-3d"
    assert metadata["options"]["resolution"] == 16
    assert metadata["options"]["threshold"] == 10.0
    assert metadata["checkpoint"]["kind"] == "folder"
    assert metadata["matting"] == {"method": "alpha", "model": None}
    assert "sg_amplitudes" not in metadata


def test_the_picture_decides_and_nothing_else(
    model: StableFast3D, result: GenerationResult
) -> None:
    again = model.generate_from_image(picture(), **OPTIONS)
    np.testing.assert_array_equal(again.vertices, result.vertices)
    np.testing.assert_array_equal(again.texture, result.texture)
    other = model.generate_from_image(picture("blue"), **OPTIONS)
    assert other.vertices.shape != result.vertices.shape or (
        np.abs(other.vertices - result.vertices).max() > 1e-6
    )


def test_vertex_colours_instead_of_maps(model: StableFast3D) -> None:
    made = model.generate_from_image(picture(), texture=False)
    assert made.texture is None
    assert made.uv_coords is None
    assert made.vertex_colors is not None
    assert made.vertex_colors.shape == made.vertices.shape


def test_remeshing_and_simplifying(model: StableFast3D, result: GenerationResult) -> None:
    evened = model.generate_from_image(
        picture(), remesh="triangle", target_vertices=120, texture=False
    )
    assert len(evened.vertices) == pytest.approx(120, rel=0.3)
    fewer = model.generate_from_image(picture(), target_faces=100, texture=False)
    assert len(fewer.faces) <= 110 < len(result.faces)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"remesh": "quad"}, "Quad remeshing is not available"),
        ({"target_vertices": 100}, "remesh"),
        ({"resolution": 30}, "resolution"),
        ({"texture_size": 100}, "texture_size"),
        ({"unwrap": "xatlas"}, "unwrap"),
        ({"guidance_scale": 3.0}, "only concern generation from text"),
    ],
)
def test_wrong_options_are_refused(
    model: StableFast3D, options: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidConfigError, match=text):
        model.generate_from_image(picture(), **options)


def test_illumination_is_estimated_when_asked_for(model: StableFast3D) -> None:
    made = model.generate_from_image(picture(), estimate_illumination=True, texture=False)
    assert len(made.metadata["sg_amplitudes"]) == 24
    assert min(made.metadata["sg_amplitudes"]) > 0


def test_illumination_is_refused_without_its_weights() -> None:
    tiny = StableFast3DConfig.tiny()
    config = replace(tiny, estimators=replace(tiny.estimators, amplitudes=0))
    pipeline = StableFast3DPipeline(make_network(config))
    with pytest.raises(InvalidConfigError, match="cannot estimate illumination"):
        pipeline.encode([picture()], illumination=True)


def test_a_batch_gives_what_single_pictures_give(model: StableFast3D) -> None:
    pipeline = StableFast3DPipeline(make_network())
    both = pipeline.encode([picture(), picture("blue")])
    single = pipeline.encode([picture("blue")])[0]
    torch.testing.assert_close(both[1].planes, single.planes, rtol=1e-4, atol=1e-5)
    assert both[1].roughness == pytest.approx(single.roughness, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same(
    folder: Path, result: GenerationResult, precision: str
) -> None:
    made = StableFast3D(checkpoint=folder, device="cpu", precision=precision)
    half = made.generate_from_image(picture(), texture=False)
    volumes = [
        trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume for mesh in (half, result)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


def test_a_threshold_beyond_the_density_says_so(model: StableFast3D) -> None:
    with pytest.raises(GenerationError, match="the density reaches"):
        model.generate_from_image(picture(), threshold=1e6)


def test_cancelling_stops_the_work(model: StableFast3D) -> None:
    def cancel(fraction: float, stage: str) -> None:
        if stage == "texture":
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.generate_from_image(picture(), progress=cancel, **OPTIONS)


def test_an_empty_picture_is_refused() -> None:
    empty = picture()
    empty.putalpha(0)
    with pytest.raises(InvalidConfigError, match="Nothing is left"):
        crop_foreground(empty, 0.85)
    with pytest.raises(InvalidConfigError, match="no alpha"):
        crop_foreground(empty.convert("RGB"), 0.85)


def test_tied_weights_load_under_either_name(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = "image_tokenizer.model.encoder.layer.1.norm2_modulation.linear2.weight"
    tied = "image_tokenizer.modulations.3.linear2.weight"
    state[tied] = state.pop(name)
    other = write_checkpoint(tmp_path)
    save_file(state, other / "model.safetensors")
    StableFast3D(checkpoint=other, device="cpu").load_model()
    state[name] = state[tied] + 1
    save_file(state, other / "model.safetensors")
    with pytest.raises(CheckpointError, match="stored twice"):
        StableFast3D(checkpoint=other, device="cpu").load_model()


def test_damaged_checkpoints_are_named(folder: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path)
    state = load_file(other / "model.safetensors")
    del state["tokenizer.embeddings"]
    save_file(state, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tokenizer\.embeddings"):
        StableFast3D(checkpoint=other, device="cpu").load_model()
    (other / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="dream-cad pull stable-fast-3d"):
        StableFast3D(checkpoint=other, device="cpu").load_model()
