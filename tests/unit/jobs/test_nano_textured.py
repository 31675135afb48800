from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from dream_cad.models.stable_fast_3d.weights import load_network
from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from jobs.nano import train_reconstruction
from jobs.nano.catalogue import make_item
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.dataset import BOX, make_shard
from jobs.nano.material_data import LOOKS, SIZE, make_material_data
from jobs.nano.normals import inward_normals, shard_normals
from jobs.nano.optimizer import Optimizer, Schedule
from jobs.nano.train_textured import (
    Batch,
    TexturedSamples,
    adopt_encoder,
    batches,
    hidden_matrices,
    initialize,
    reconstruction_loss,
    rim_points,
    show_materials,
    train_textured,
)


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("jobs.nano.dataset.SHARD_ITEMS", 4)
    make_shard(tmp_path, 0)
    return tmp_path


@pytest.fixture
def triposr(tmp_path: Path) -> Path:
    config = TripoSRConfig.nano()
    folder = tmp_path / "triposr"
    network = TripoSRNetwork(config)
    train_reconstruction.initialize(network, 0)
    write_checkpoint(config.to_yaml, network.state_dict(), folder)
    return folder


def first_batch(shards: Path, points: int = 256) -> Batch:
    return next(batches(TexturedSamples(shards), 4, points, np.random.default_rng(0)))


def test_normals_point_inwards() -> None:
    item = make_item(3)
    points = np.array([[0.0, 0.0, 0.9], [0.0, 0.9, 0.0]], np.float16)
    normals = inward_normals(item, points) / 127
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=0.02)
    assert (np.einsum("pc,pc->p", normals, points.astype(np.float32)) < 0).all()


def test_normals_are_kept_beside_the_shards(shards: Path) -> None:
    samples = TexturedSamples(shards)
    (kept,) = (shards / "normals").glob("normals_*.npy")
    stored = np.load(kept)
    assert stored.shape == (4, 6144, 3)
    np.testing.assert_array_equal(np.stack(samples.normals), stored)
    np.save(kept, stored * 0)
    shard = train_reconstruction.load_shard(shards / "shard_0000.npz")
    assert not shard_normals(shard, shards / "normals").any()  # read, not computed again


def test_the_rim_is_empty_space() -> None:
    points = rim_points(3, 50, np.random.default_rng(0))
    farthest = np.abs(points).max(axis=-1)
    assert points.shape == (3, 50, 3)
    assert farthest.min() >= BOX - 1e-6
    assert farthest.max() <= StableFast3DConfig.nano().radius


def test_batches_hold_what_is_true(shards: Path) -> None:
    batch = first_batch(shards)
    assert batch.pictures.shape == (4, 3, 128, 128)
    torch.testing.assert_close(batch.normals.norm(dim=-1), torch.ones(4, 256), atol=0.05, rtol=0)
    assert (batch.distances[:, : 256 // 16] >= BOX - 0.5 - 1e-6).all()


def test_half_of_the_pictures_show_their_material(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.nano.material_data.SHARD_ITEMS", 4)
    plain = TexturedSamples(shards)
    before = torch.zeros(4, 3, 128, 128)
    show_materials(before, plain, np.arange(4), np.random.default_rng(0))
    assert not before.any()  # there are none yet
    list(make_material_data(shards / "materials", 4))
    samples = TexturedSamples(shards)
    assert samples.looks[0].shape == (LOOKS, SIZE, SIZE, 4)
    drawn = torch.zeros(400, 3, 128, 128)
    show_materials(drawn, samples, np.arange(400) % 5, np.random.default_rng(0))
    shown = drawn.flatten(1).any(dim=1)
    assert not shown[4::5].any()  # the fifth item has none
    assert 0.4 < shown.reshape(-1, 5)[:, :4].float().mean() < 0.6
    first = shown.nonzero()[0, 0]
    looks = torch.from_numpy(samples.looks[int(first) % 5][..., :3].copy()).float()
    small = drawn[first].unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(-1, -2))
    assert (looks.permute(0, 3, 1, 2) - small).abs().mean(dim=(1, 2, 3)).min() < 4


def test_encoder_of_triposr_gives_its_tokens(triposr: Path) -> None:
    network = StableFast3DNetwork(StableFast3DConfig.nano()).eval()
    initialize(network, 0)
    adopt_encoder(network, triposr)
    state = {key: value.float() for key, value in load_file(triposr / "model.safetensors").items()}
    teacher = TripoSRNetwork(TripoSRConfig.nano()).eval()
    teacher.load_state_dict(state)
    picture = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        got = network.image_tokenizer(picture, torch.rand(1, 8))
        torch.testing.assert_close(got, teacher.encode_image(picture), rtol=1e-3, atol=1e-3)
    assert not any(p.requires_grad for p in network.image_tokenizer.parameters())


def test_training_steps_reduce_the_loss(shards: Path) -> None:
    network = StableFast3DNetwork(StableFast3DConfig.tiny())
    initialize(network, 0)
    batch = first_batch(shards)
    small = torch.nn.functional.interpolate(batch.pictures, size=(64, 64))
    batch = batch._replace(pictures=small)
    optimizer = Optimizer(network, hidden_matrices(network), 1e-2)
    losses = []
    for _ in range(10):
        loss, _ = reconstruction_loss(network, batch)
        losses.append(loss.item())
        optimizer.step(loss, 1.0)
    assert losses[-1] < 0.9 * losses[0]


def test_checkpoints_load_into_the_model(shards: Path, triposr: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    schedule = Schedule(steps=1, minutes=1e6)
    train_textured(shards, folder, encoder_from=triposr, schedule=schedule, batch_size=2, points=64)
    assert load_network(folder).config == StableFast3DConfig.nano()
