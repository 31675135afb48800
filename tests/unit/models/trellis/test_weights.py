from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dream_cad.exceptions import CheckpointError
from dream_cad.models.trellis import Trellis
from dream_cad.models.trellis.dinov2_keys import from_hub
from dream_cad.models.trellis.image_encoder import ImageEncoder, ImageEncoderConfig
from dream_cad.models.trellis.network import Residence, torso_keys
from dream_cad.models.trellis.pipeline_file import build_network
from dream_cad.models.trellis.weights import (
    LoadTarget,
    is_text_variant,
    load_networks,
    receipt_file,
)
from dream_cad.models.weights import PUBLISHED
from tests.conftest import SetSettings
from tests.reference.cases import reference_folder
from tests.tiny_trellis import hub_state
from tests.tiny_triposr import picture

STRUCTURE_FLOW = "ckpts/ss_flow_img_dit_L_16l8_fp16"
LATENT_FLOW = "ckpts/slat_flow_img_dit_L_64l8p2_fp16"
STRUCTURE_DECODER = "ckpts/ss_dec_conv3d_16l8_fp16"
FIELD_DECODER = "ckpts/slat_dec_rf_swin8_B_64l8r16_fp16"

CPU = LoadTarget(torch.device("cpu"))
Spoil = Callable[[Path], None]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder.parent, tmp_path / "root")) / folder.name


def test_variants_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert not is_text_variant(folder)
    assert is_text_variant(folder.parent / "text")
    assert not is_text_variant(tmp_path)
    assert receipt_file(folder) == folder / f"{LATENT_FLOW}.safetensors"


def test_the_published_files_are_found_by_their_names(
    folder: Path, tmp_path: Path, set_settings: SetSettings
) -> None:
    shutil.copytree(folder, tmp_path / "trellis")
    set_settings(model_path=tmp_path)
    model = Trellis(checkpoint="published", device="cpu")
    metadata = model.generate_from_image(picture(), seed=1).metadata
    assert metadata["checkpoint"]["kind"] == "published"
    assert metadata["checkpoint"]["source"].startswith("microsoft/TRELLIS-image-large@")


def test_pinned_sizes_are_those_of_the_manifest() -> None:
    listed = json.loads((reference_folder("trellis") / "checkpoint.json").read_text())["sources"]
    sizes = {
        row["filename"]: row["published_file_bytes"]
        for row in listed
        if row["repo_id"].endswith("image-large") and row["used_by_released_pipelines"]
    }
    pinned = {file.name: file.size for file in PUBLISHED["trellis"].files if file.size}
    assert pinned == sizes


@pytest.mark.parametrize("size", ["base", "large", "xlarge"])
def test_text_variants_are_pulled_by_the_names_of_the_manifest(size: str) -> None:
    listed = json.loads((reference_folder("trellis") / "checkpoint.json").read_text())["sources"]
    published = PUBLISHED[f"trellis-text-{size}"]
    ours = {file.name for file in published.files if file.origin is None}
    weights = {r["filename"] for r in listed if r["repo_id"] == published.repo_id}
    assert len(weights) == 2
    configs = {name.replace(".safetensors", ".json") for name in weights}
    assert ours == weights | configs | {"pipeline.json"}
    # commits are not known: pull refuses without --latest rather than guess
    assert set(published.revisions().values()) == {None}


def test_a_text_variant_shares_the_decoders_beside_it(folder: Path) -> None:
    both = load_networks(folder, folder.parent / "text", target=CPU)
    alone = load_networks(folder.parent / "text", target=CPU)
    assert both.image is not None
    assert alone.image is None
    for ours, theirs in zip(
        both.decoders.mesh.parameters(), alone.decoders.mesh.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_only_the_torso_is_in_half_precision(folder: Path) -> None:
    networks = load_networks(folder, target=LoadTarget(torch.device("cpu"), torch.bfloat16))
    assert networks.image is not None
    parts: list[nn.Module] = [networks.image.flows.structure, networks.image.flows.latent]
    parts += [networks.decoders.mesh, networks.decoders.gaussian]
    for part in parts:
        half = {k for k, v in part.state_dict().items() if v.dtype is torch.bfloat16}
        assert half == torso_keys(part) != set()
    assert all(p.dtype is torch.float32 for p in networks.image.encoder.parameters())


@torch.no_grad()
def test_the_hubs_dinov2_is_ours() -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 42}
    theirs = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(patch_size=14, **sizes)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = ImageEncoder(ImageEncoderConfig(img_size=42, embed_dim=48, depth=2, num_heads=3))
    ours.load_state_dict(from_hub(theirs.state_dict()))
    images = torch.rand(1, 3, 42, 42)
    normed = (images - ours.mean) / ours.std
    seen = theirs(normed, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(ours.eval().tokens(images), seen, rtol=1e-4, atol=1e-4)
    assert from_hub(hub_state(ours)).keys() == ours.state_dict().keys()


def test_keys_of_something_else_are_told() -> None:
    with pytest.raises(CheckpointError, match="'head' is not a key"):
        from_hub({"head": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'norm9\.weight' is not a key of a block"):
        from_hub({"encoder.layer.0.norm9.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="lacks its query, key or value"):
        from_hub({"encoder.layer.0.attention.attention.key.bias": torch.zeros(1)})


def test_the_original_dinov2_file_gives_the_same(copy: Path) -> None:
    hub = copy / "dinov2" / "model.safetensors"
    before = load_networks(copy, target=CPU)
    save_file(from_hub(load_file(hub)), hub)  # the original's keys under the same name
    after = load_networks(copy, target=CPU)
    assert before.image is not None
    assert after.image is not None
    pairs = zip(
        before.image.encoder.state_dict().values(),
        after.image.encoder.state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(first, second) for first, second in pairs)


def test_a_folder_may_name_what_another_holds(copy: Path) -> None:
    data = json.loads((copy.parent / "text" / "pipeline.json").read_text())
    assert "someone/" in data["args"]["models"]["slat_decoder_mesh"]
    shutil.rmtree(copy)
    with pytest.raises(CheckpointError, match=rf"holds no {STRUCTURE_DECODER}\.json"):
        load_networks(copy.parent / "text", target=CPU)


def test_variants_are_not_mixed_up(folder: Path) -> None:
    text = folder.parent / "text"
    with pytest.raises(CheckpointError, match="is itself a text variant"):
        load_networks(text, text, target=CPU)
    with pytest.raises(CheckpointError, match="is no text variant"):
        load_networks(folder, folder, target=CPU)


def truncate(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-100])

    return spoil


def rewrite(name: str, change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        data = json.loads(path.read_text())
        path.write_text(json.dumps(change(data) or data))

    return spoil


NO_MESH = {"name": "SLatMeshDecoder", "args": {}}


def without_latent_flow(data: dict[str, Any]) -> None:
    del data["args"]["models"]["slat_flow_model"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate(f"{LATENT_FLOW}.safetensors"), "p2_fp16.safetensors is damaged"),
        (truncate("dinov2/model.safetensors"), "model.safetensors is damaged"),
        (truncate("pipeline.json"), "pipeline.json cannot be read as JSON"),
        (truncate(f"{STRUCTURE_DECODER}.json"), "16l8_fp16.json cannot be read as JSON"),
        (rewrite("pipeline.json", lambda d: [1]), "holds list"),
        (rewrite("pipeline.json", lambda d: d.update(name="Other")), "describes 'Other'"),
        (rewrite("pipeline.json", lambda d: d.update(args={})), "lacks or misstates"),
        (
            rewrite("pipeline.json", without_latent_flow),
            "names no slat_flow_model",
        ),
        (
            rewrite(f"{STRUCTURE_FLOW}.json", lambda d: d.update(name="SLatFlow")),
            "describes 'SLatFlow'",
        ),
        (
            rewrite(f"{STRUCTURE_FLOW}.json", lambda d: d.update(args={"wings": 2})),
            "no field wings",
        ),
        (
            rewrite(f"{STRUCTURE_FLOW}.json", lambda d: d["args"].update(num_blocks=2)),
            "missing",
        ),
        (
            rewrite(f"{STRUCTURE_DECODER}.json", lambda d: d.update(NO_MESH)),
            "describes a MeshDecoder; SparseStructureDecoder was expected",
        ),
    ],
)
def test_damage_is_told(copy: Path, spoil: Spoil, message: str) -> None:
    spoil(copy)
    with pytest.raises(CheckpointError, match=message):
        Trellis(checkpoint=copy, device="cpu").load_model()


def test_missing_files_are_told(copy: Path) -> None:
    (copy / "dinov2" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"dinov2/model\.safetensors or dinov2_vitl14"):
        load_networks(copy, target=CPU)
    (copy / f"{FIELD_DECODER}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"holds no {FIELD_DECODER}\.safetensors"):
        load_networks(copy, target=CPU)
    with pytest.raises(CheckpointError, match=r"pipeline\.json"):
        load_networks(copy.parent, target=CPU)


def test_elastic_names_are_the_same_networks(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / f"{LATENT_FLOW}.json").read_text())
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(data | {"name": "ElasticSLatFlowModel"}))
    assert type(build_network(path)).__name__ == "StructuredLatentFlow"


def test_networks_stay_where_they_are_on_a_cpu() -> None:
    home = Residence("cpu", offload=True)
    layer = nn.Linear(2, 2)
    with home.use(layer):
        assert layer.weight.device.type == "cpu"
    assert not home.offload
    assert home.home.type == "cpu"
