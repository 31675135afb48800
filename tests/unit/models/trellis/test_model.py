from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad import ModelFactory
from dream_cad.exceptions import (
    FileFormatError,
    GenerationCancelledError,
    GenerationError,
    InvalidConfigError,
)
from dream_cad.models.base import GenerationResult
from dream_cad.models.trellis import RepresentationType, Trellis, textured_mesh
from dream_cad.models.trellis.textured_mesh import BakeEffort
from dream_cad.nn.sparse.tensor import SparseTensor, VoxelSet
from dream_cad.splats.ply import parse_ply
from dream_cad.splats.splat_file import parse_splat
from tests.tiny_trellis import PROMPT, SIDE
from tests.tiny_triposr import picture

ALL = {"representation": list(RepresentationType), "preview_size": 16}
FILES = {
    RepresentationType.GAUSSIAN_SPLATTING: {"splats.ply", "splats.splat", "splats.png"},
    RepresentationType.NERF: {"field.npz", "field.png"},
    RepresentationType.SLAT: {"latent.npz", "latent.png"},
}


@pytest.fixture(scope="module")
def result(model: Trellis) -> GenerationResult:
    return model.generate_from_image(picture(), seed=3, **ALL)


def test_factory_creates_it(folder: Path) -> None:
    made = ModelFactory.create_model("trellis", checkpoint=folder, device="cpu")
    assert isinstance(made, Trellis)
    assert made.capabilities.supports_multi_view
    assert made.generate_from_image(picture(), seed=3).model_name == "trellis"
    made.unload_model()
    assert not made.is_loaded


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, dream_cad.models.trellis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_result_is_a_centred_coloured_unit_mesh(result: GenerationResult) -> None:
    assert len(result.faces) > 100
    low, high = result.vertices.min(axis=0), result.vertices.max(axis=0)
    np.testing.assert_allclose(low + high, 0, atol=1e-5)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-5)
    assert result.vertex_colors is not None
    assert result.vertex_colors.std() > 1


def test_every_representation_has_its_files(result: GenerationResult) -> None:
    assert set(result.files) == set().union(*FILES.values())
    voxels = result.metadata["voxels"]
    splats = parse_ply(result.files["splats.ply"])
    assert len(splats) == 8 * voxels
    assert len(parse_splat(result.files["splats.splat"])) == len(splats)
    with np.load(io.BytesIO(result.files["field.npz"])) as field:
        assert field["trivec"].shape == (voxels, 4, 3, 4)
        assert field["density"].shape == (voxels, 4)
        assert field["features_dc"].shape == (voxels, 4, 1, 3)
        assert ((field["position"] > 0) & (field["position"] < 1)).all()
        assert (field["depth"] == 3).all()
        np.testing.assert_array_equal(field["aabb"], [-0.5, -0.5, -0.5, 1, 1, 1])
    with np.load(io.BytesIO(result.files["latent.npz"])) as latent:
        assert latent["coords"].shape == (voxels, 4)
        assert latent["coords"].max() < SIDE
        assert latent["feats"].shape == (voxels, 8)


@pytest.mark.parametrize(
    ("representation", "kinds"),
    [
        ("mesh", []),
        (RepresentationType.SLAT, ["slat"]),
        ("nerf,slat", ["nerf", "slat"]),
        (["gaussian_splatting"], ["gaussian_splatting"]),
    ],
)
def test_representation_takes_one_or_several(
    model: Trellis, result: GenerationResult, representation: object, kinds: list[str]
) -> None:
    latent = result.files["latent.npz"]
    made = model.decode_latent(latent, representation=representation, preview_size=16)
    assert set(made.files) == set().union(*(FILES[RepresentationType(kind)] for kind in kinds))
    assert all(content == result.files[name] for name, content in made.files.items())
    np.testing.assert_array_equal(made.vertices, result.vertices)


@pytest.mark.parametrize("name", ["mesh.glb", "mesh.obj", "mesh.ply", "mesh.stl"])
def test_every_format_is_written(result: GenerationResult, tmp_path: Path, name: str) -> None:
    assert Path(result.save(tmp_path / name)).stat().st_size > 1_000


def test_receipt_says_how_it_was_made(result: GenerationResult) -> None:
    metadata = json.loads(json.dumps(result.metadata))
    assert metadata["seed"] == 3
    assert metadata["conditioning"] == "image"
    assert metadata["matting"] == [{"method": "alpha", "model": None}]
    options = metadata["options"]
    assert options["representation"] == ["mesh", "nerf", "gaussian_splatting", "slat"]
    assert (options["structure_steps"], options["latent_guidance"]) == (3, 2.0)
    assert options["latent_interval"] == [0.5, 1.0]
    assert metadata["files"] == sorted(result.files)
    assert metadata["checkpoint"]["kind"] == "folder"


def test_the_seed_decides(model: Trellis, result: GenerationResult) -> None:
    again = model.generate_from_image(picture(), seed=3, **ALL)
    np.testing.assert_array_equal(again.vertices, result.vertices)
    assert again.files == result.files
    other = model.generate_from_image(picture(), seed=4)
    assert other.vertices.shape != result.vertices.shape or (other.vertices != again.vertices).any()


@torch.no_grad()
def test_one_zero_row_stands_for_a_whole_negative_condition(model: Trellis) -> None:
    networks = model._require_loaded().pipeline.networks
    assert networks.image is not None
    flow = networks.image.flows.structure
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8, 2, 2, 2, generator=random)
    time = torch.tensor([700.0])
    one, many = (flow(x, time, torch.zeros(1, rows, 48)) for rows in (1, 14))
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)
    voxels = VoxelSet(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 5, 5]]))
    latent = SparseTensor(voxels, torch.randn(3, 8, generator=random))
    one, many = (
        networks.image.flows.latent(latent, time, torch.zeros(1, rows, 48)).feats
        for rows in (1, 14)
    )
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "option",
    [
        {"structure_steps": 1},
        {"latent_steps": 2},
        {"structure_guidance": 0.0},
        {"latent_guidance": 9.0},
        {"structure_interval": (0.0, 0.6)},
        {"latent_interval": [0.9, 1.0]},
        {"rescale_t": 1.0},
        {"num_inference_steps": 2},
        {"guidance_scale": 0.5},
    ],
)
def test_options_of_each_stage_matter(
    model: Trellis, result: GenerationResult, option: dict[str, object]
) -> None:
    made = model.generate_from_image(
        picture(), seed=3, representation="slat", preview_size=16, **option
    )
    assert made.files["latent.npz"] != result.files["latent.npz"]


def test_a_stages_own_option_comes_before_that_of_both(model: Trellis) -> None:
    made = model.generate_from_image(
        picture(), seed=3, num_inference_steps=2, latent_steps=1, guidance_scale=1.0
    )
    options = made.metadata["options"]
    assert (options["structure_steps"], options["latent_steps"]) == (2, 1)
    assert options["structure_guidance"] == options["latent_guidance"] == 1.0


def test_faces_are_taken_away(model: Trellis, result: GenerationResult) -> None:
    latent = result.files["latent.npz"]
    fewer = model.decode_latent(latent, simplify=0.5)
    assert len(fewer.faces) == pytest.approx(len(result.faces) / 2, rel=0.1)
    assert fewer.vertex_colors is not None
    assert len(model.decode_latent(latent, target_faces=5000, simplify=0.1).faces) <= 5500


@pytest.mark.parametrize(("source", "bake"), [("gaussian_splatting", "opt"), ("nerf", "fast")])
def test_a_texture_is_baked_from_views(
    model: Trellis,
    result: GenerationResult,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    bake: str,
) -> None:
    quick = BakeEffort(views=6, view_size=48, steps=5, hidden_views=4, hidden_size=48)
    for name in ("QUICK_EFFORT", "QUICK_FIELD_EFFORT"):
        monkeypatch.setattr(textured_mesh, name, quick)
    seen: list[float] = []
    made = model.decode_latent(
        result.files["latent.npz"],
        texture=True,
        texture_size=256,
        texture_source=source,
        bake=bake,
        simplify=0.98,
        progress=lambda fraction, stage: seen.append(fraction),
    )
    assert made.texture is not None
    assert made.texture.shape == (256, 256, 3)
    assert made.texture.std() > 1
    assert made.vertex_colors is None
    assert len(made.faces) < len(result.faces) / 10
    assert np.ptp(made.vertices, axis=0).max() == pytest.approx(1.0, abs=1e-5)
    assert seen == sorted(seen)
    assert made.files == {}


def test_previews_are_turntables(result: GenerationResult) -> None:
    for name in ("splats.png", "field.png", "latent.png"):
        sheet = np.asarray(Image.open(io.BytesIO(result.files[name])))
        assert sheet.shape == (16, 64, 3)
        assert sheet.std() > 1


def test_several_pictures_guide_in_both_modes(model: Trellis) -> None:
    views = [picture("red"), picture("blue")]
    one, two, both = (
        model.generate_from_views(
            pictures, seed=1, representation="slat", preview_size=16, **options
        )
        for pictures, options in (
            (views[:1], {}),
            (views, {}),
            (views, {"multi_image": "multidiffusion"}),
        )
    )
    alone = model.generate_from_image(views[0], seed=1, representation="slat", preview_size=16)
    assert one.files == alone.files
    assert "multi_image" not in one.metadata
    assert two.metadata["multi_image"] == "stochastic"
    assert len({made.files["latent.npz"] for made in (one, two, both)}) == 3
    assert len(two.metadata["input"]["sha256"]) == len(two.metadata["matting"]) == 2


@pytest.mark.parametrize("count", [0, 17])
def test_the_number_of_pictures_is_checked(model: Trellis, count: int) -> None:
    with pytest.raises(InvalidConfigError, match=f"There are {count} pictures"):
        model.generate_from_views([picture()] * count)


def test_text_is_read_by_a_text_variant(text_model: Trellis, folder: Path) -> None:
    made = text_model.generate_from_text(PROMPT, seed=1, representation="slat", preview_size=16)
    assert made.metadata["conditioning"] == "text"
    assert made.metadata["input"]["prompt"] == PROMPT
    assert made.metadata["text_checkpoint"]["source"] == str(folder.parent / "text")
    weights = made.metadata["text_checkpoint"]["weights_sha256"]
    assert weights != made.metadata["checkpoint"]["weights_sha256"]
    alone = Trellis(checkpoint=folder.parent / "text", device="cpu")
    same = alone.generate_from_text(PROMPT, seed=1, representation="slat", preview_size=16)
    assert same.files == made.files
    assert same.metadata["checkpoint"]["weights_sha256"] == weights
    with pytest.raises(InvalidConfigError, match="takes no pictures"):
        alone.generate_from_image(picture())


def test_prompts_and_negative_prompts_matter(text_model: Trellis) -> None:
    def latent(prompt: str = PROMPT, **options: object) -> bytes:
        made = text_model.generate_from_text(
            prompt, seed=1, representation="slat", preview_size=16, **options
        )
        return made.files["latent.npz"]

    plain = latent()
    assert latent("a blue vase") != plain
    assert latent(negative_prompt="ugly") != plain
    assert latent(negative_prompt="") == plain


def test_a_prompt_beyond_the_window_is_told(text_model: Trellis) -> None:
    with pytest.raises(InvalidConfigError, match="text encoder reads 75"):
        text_model.generate_from_text("red " * 80)


def test_options_of_a_picture_are_refused_where_none_is_made(text_model: Trellis) -> None:
    with pytest.raises(InvalidConfigError, match="picture_steps concern a picture"):
        text_model.generate_from_text(PROMPT, picture_steps=3)


def test_text_becomes_a_picture_without_a_text_variant(
    folder: Path, tiny_text_to_image_folder: Path
) -> None:
    model = Trellis(checkpoint=folder, device="cpu", text_to_image=tiny_text_to_image_folder)
    made = model.generate_from_text(
        "a cube",
        seed=1,
        picture_steps=1,
        remove_background=False,
        representation="slat",
        preview_size=16,
    )
    assert made.metadata["text_to_image"]["seed"] == 1
    assert made.metadata["conditioning"] == "image"
    assert made.metadata["matting"] == [None]


def test_a_server_draws_pictures_only_where_they_are_needed(folder: Path, tmp_path: Path) -> None:
    text = folder.parent / "text"
    assert Trellis.draws_picture_first({})
    assert Trellis.draws_picture_first({"checkpoint": str(folder)})
    assert not Trellis.draws_picture_first({"checkpoint": str(text)})
    assert not Trellis.draws_picture_first({"text_checkpoint": str(text)})
    (tmp_path / "pipeline.json").write_text("damaged")
    assert Trellis.draws_picture_first({"checkpoint": str(tmp_path)})


def test_a_variant_keeps_the_voxels_of_its_mesh(
    text_model: Trellis, result: GenerationResult
) -> None:
    made = text_model.generate_variant(
        result, prompt=PROMPT, seed=2, representation="slat", preview_size=16
    )
    again = text_model.generate_variant(
        result, image=picture(), seed=2, representation="slat", preview_size=16
    )
    with (
        np.load(io.BytesIO(made.files["latent.npz"])) as first,
        np.load(io.BytesIO(again.files["latent.npz"])) as second,
    ):
        np.testing.assert_array_equal(first["coords"], second["coords"])
        assert (first["feats"] != second["feats"]).any()
    assert made.metadata["input"]["kind"] == "variant"


def test_a_variant_is_told_what_it_needs(
    model: Trellis, result: GenerationResult, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfigError, match="either a prompt or an image"):
        model.generate_variant(result)
    with pytest.raises(InvalidConfigError, match="reads no text"):
        model.generate_variant(result, prompt=PROMPT)
    (tmp_path / "mesh.stl").write_bytes(b"no mesh")
    with pytest.raises(FileFormatError):
        model.generate_variant(tmp_path / "mesh.stl", image=picture())


def test_progress_rises_and_cancels(model: Trellis) -> None:
    seen: list[tuple[float, str]] = []

    def watch(fraction: float, stage: str) -> None:
        seen.append((fraction, stage))
        if stage == "latent 2/3":
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.generate_from_image(picture(), progress=watch)
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert [stage for _, stage in seen][-5:] == [
        "structure 1/3",
        "structure 2/3",
        "structure 3/3",
        "latent 1/3",
        "latent 2/3",
    ]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_near(folder: Path, result: GenerationResult, precision: str) -> None:
    made = Trellis(checkpoint=folder, device="cpu", precision=precision)
    half = made.generate_from_image(picture(), seed=3)
    assert half.metadata["precision"] == precision
    assert half.metadata["voxels"] == pytest.approx(result.metadata["voxels"], rel=0.1)
    network = made._require_loaded().pipeline.networks.decoders.mesh
    assert network.blocks[0].attn.to_qkv.weight.dtype is not torch.float32
    assert network.out_layer.weight.dtype is torch.float32


def spoiled(folder: Path, stage: str, value: float) -> Trellis:
    model = Trellis(checkpoint=folder, device="cpu")
    networks = model._require_loaded().pipeline.networks
    assert networks.image is not None
    flows, decoders = networks.image.flows, networks.decoders
    layer = {
        "structure": flows.structure.out_layer,
        "latent": flows.latent.out_layer,
        "occupancy": decoders.structure.out_layer[2],
        "surface": decoders.mesh.out_layer,
        "field": decoders.field.out_layer,
        "splats": decoders.gaussian.out_layer,
    }[stage]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(value)
    return model


@pytest.mark.parametrize(
    ("stage", "value", "message"),
    [
        ("structure", float("nan"), "structure latent became NaN or infinite in step 1 of 3"),
        ("latent", float("inf"), "latent latent became NaN or infinite in step 1 of 3"),
        ("occupancy", -1.0, "structure has 0 occupied voxels"),
        ("surface", 5.0, "has no surface"),
        ("field", float("nan"), "radiance field is not finite"),
        ("splats", float("nan"), "Gaussians are not finite"),
    ],
)
def test_failures_name_their_stage(folder: Path, stage: str, value: float, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        spoiled(folder, stage, value).generate_from_image(picture(), seed=3, **ALL)


def test_a_picture_without_an_object_is_refused(model: Trellis) -> None:
    with pytest.raises(InvalidConfigError, match="no pixel is opaque enough"):
        model.generate_from_image(Image.new("RGBA", (20, 20), (9, 9, 9, 100)))
