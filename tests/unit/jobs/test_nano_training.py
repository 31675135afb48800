from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dream_cad.images.text_to_image import TextToImage
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from jobs.nano import train_text_to_image
from jobs.nano.catalogue import CATEGORIES, make_item
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.dataset import make_shard
from jobs.nano.optimizer import Optimizer, Schedule, WeightAverage
from jobs.nano.pretrain_text_encoder import load_captions, pretrain_text_encoder
from jobs.nano.recognize import (
    CategoryClassifier,
    mesh_points,
    occupancy_of_points,
    recognize_color,
    surface_points,
)
from jobs.nano.train_reconstruction import (
    Samples,
    batches,
    density_threshold_logit,
    hidden_matrices,
    initialize,
    reconstruction_loss,
)


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("jobs.nano.dataset.SHARD_ITEMS", 4)
    make_shard(tmp_path, 0)
    return tmp_path


def test_schedule_rises_holds_and_falls() -> None:
    schedule = Schedule(steps=1000, minutes=1e6, warmup_steps=100)
    factors = [schedule.factor(step) for step in (0, 99, 500, 750, 1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[1] == factors[2] == pytest.approx(1.0)
    assert factors[3] == pytest.approx(0.505, abs=0.01)
    assert factors[4] == pytest.approx(0.01)


def test_schedule_ends_with_the_time_budget() -> None:
    assert Schedule(steps=1000, minutes=1e-9).progress(1) == 1.0


def test_average_follows_the_weights() -> None:
    module = torch.nn.Linear(2, 2)
    average = WeightAverage(module)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for _ in range(200):
        average.update(module)
    torch.testing.assert_close(average.state["weight"], torch.ones(2, 2), atol=0.05, rtol=0)


def test_untrained_network_starts_near_empty_space() -> None:
    config = TripoSRConfig.tiny()
    network = TripoSRNetwork(config)
    initialize(network, 0)
    raw, _ = network(torch.rand(1, 3, 32, 32), torch.rand(1, 64, 3) - 0.5)
    occupied = torch.sigmoid(raw - density_threshold_logit(config))
    assert 0.05 < occupied.mean() < 0.6


def test_training_steps_reduce_the_loss(shards: Path) -> None:
    config = TripoSRConfig.tiny()
    network = TripoSRNetwork(config)
    initialize(network, 0)
    network.train()
    source = batches(Samples(shards), 4, 256, np.random.default_rng(0))
    pictures, *rest = next(source)
    small = torch.nn.functional.interpolate(pictures, size=(32, 32))
    batch = (small, *rest)
    optimizer = Optimizer(network, hidden_matrices(network), 1e-2)
    losses = []
    for _ in range(40):
        loss, _ = reconstruction_loss(network, batch)
        losses.append(loss.item())
        optimizer.step(loss, 1.0)
    assert losses[-1] < 0.8 * losses[0]


def test_checkpoint_is_half_precision_with_its_config(tmp_path: Path) -> None:
    config = TripoSRConfig.tiny()
    write_checkpoint(config.to_yaml, TripoSRNetwork(config).state_dict(), tmp_path)
    assert TripoSRConfig.from_yaml(tmp_path / "config.yaml") == config
    weights = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_text_pipeline_is_learnt_saved_and_drawn_from(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_text_to_image, "WIDTH", 32)
    monkeypatch.setattr(train_text_to_image, "HEADS", 1)
    monkeypatch.setattr(train_text_to_image, "DEPTH", 1)
    folder = tmp_path / "pipeline"
    schedule = Schedule(steps=2, minutes=1e6)
    train_text_to_image.train_text_to_image(
        shards, folder, schedule=schedule, batch_size=2, encoder_steps=2
    )
    stage = TextToImage(folder, device="cpu")
    drawn = stage.generate("a red wooden dragon", seed=1, num_inference_steps=2)
    assert drawn.image.size == (train_text_to_image.SIZE,) * 2
    assert drawn.unknown_words == ["dragon"]
    again = stage.generate("a red wooden dragon", seed=1, num_inference_steps=2)
    assert drawn.image.tobytes() == again.image.tobytes()
    stage.generate("a chair", seed=1, num_inference_steps=1, guidance_scale=0.5)


def test_text_encoder_learns_what_captions_say(shards: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_text_to_image.create_tokenizer()
    encoder = train_text_to_image.create_text_encoder(len(tokenizer))
    captions = load_captions(shards)
    assert captions.thumbnails.shape == (4, 3, 12, 12)
    assert captions.thumbnails.abs().max() <= 1.0

    def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
        encoded = tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    first = pretrain_text_encoder(encoder, tokenize, captions, steps=1)
    learnt = pretrain_text_encoder(encoder, tokenize, captions, steps=20)
    assert learnt < 0.5 * first


def test_unknown_and_known_words_have_different_tokens() -> None:
    tokenizer = train_text_to_image.create_tokenizer()
    red, blue, dragon = (tokenizer(word)["input_ids"] for word in ("Red", "blue", "dragon"))
    assert red != blue
    assert dragon[1] == tokenizer.unk_token_id


def test_classifier_grid_is_independent_of_place_and_size() -> None:
    points = surface_points(make_item(1), np.random.default_rng(0))
    np.testing.assert_array_equal(
        occupancy_of_points(points), occupancy_of_points((points * 4.0).astype(np.float32))
    )
    assert CategoryClassifier().classify(points) in CATEGORIES


def test_mesh_points_return_to_the_model_frame() -> None:
    vertices = np.array([[0, 0, 1], [0, 0.1, 1], [0.1, 0, 1]], np.float32)  # in front (+z in glTF)
    points = mesh_points(vertices, np.array([[0, 1, 2]], np.int32), np.random.default_rng(0))
    np.testing.assert_allclose(points[:, 0], 1.0)  # front is +x in the model frame
    assert points[:, 2].max() > 0.05  # height is z


def test_color_is_judged_by_area() -> None:
    vertices = np.array(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [5.1, 0, 0], [5, 0.1, 0]], np.float32
    )
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    colors = np.array([[200, 30, 30]] * 3 + [[30, 60, 200]] * 3, np.uint8)
    assert recognize_color(vertices, faces, colors) == "red"
