from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.config_file import write_config
from dream_cad.models.stable_fast_3d.estimators import ImageEstimator, beta_mode
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from jobs.nano.catalogue import make_item, material_of
from jobs.nano.checkpoint import write_checkpoint
from jobs.nano.dataset import picture_of
from jobs.nano.material_data import (
    LOOKS,
    SIZE,
    MaterialSamples,
    drawn_material,
    item_samples,
    load_material_data,
    make_material_data,
    material_picture,
)
from jobs.nano.optimizer import Optimizer, Schedule
from jobs.nano.render import SeenSurface
from jobs.nano.shading import Environment, Material, shade, to_linear, to_srgb
from jobs.nano.train_material import (
    hidden_matrices,
    initialize_estimator,
    material_batches,
    material_loss,
    material_modes,
    train_material,
)

ROUGH, SMOOTH = 0.9, 0.15


def ball(color: tuple[float, float, float], size: int = 48) -> SeenSurface:
    """A ball that fills the picture, seen along -x from far away."""
    axis = (np.arange(2 * size) + 0.5) / size - 1
    y, z = np.meshgrid(axis, -axis)
    hit = y**2 + z**2 < 0.9
    y, z = y[hit], z[hit]
    normals = np.stack([np.sqrt(1 - y**2 - z**2), y, z], axis=1).astype(np.float32)
    directions = np.broadcast_to(np.array([-1, 0, 0], np.float32), normals.shape)
    colors = np.broadcast_to(np.array(color, np.float32), normals.shape)
    return SeenSurface(hit, normals, directions, colors)


def lit(radiance: float, *, box: float = 0.0) -> Environment:
    """White light from everywhere, and one small light from in front and above."""
    grey = np.full(3, radiance, np.float32)
    axes = np.array([[0.8, 0.0, 0.6]], np.float32)
    lights = np.full((1, 3), box, np.float32)
    return Environment(grey, grey, axes, np.array([200.0], np.float32), lights)


def rays(picture: np.ndarray) -> np.ndarray:
    """The colours (P, 3) in [0, 1] of the pixels that the object fills."""
    return picture[picture[..., 3] == 255][:, :3] / 255


def test_srgb_is_decoded_and_encoded() -> None:
    values = np.linspace(0, 1, 33, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-6)
    assert to_linear(np.float32([0.5]))[0] == pytest.approx(0.2140, abs=1e-4)


def test_a_matt_ball_under_even_light_has_its_own_colour() -> None:
    """Under radiance 1 from everywhere a diffuse surface sends out its albedo."""
    color = (0.8, 0.5, 0.3)
    found = rays(shade(ball(color), Material(1.0, 0.0), lit(1.0)))
    np.testing.assert_allclose(found.mean(axis=0), color, atol=0.06)
    assert found.std(axis=0).max() < 0.03


def test_a_smooth_metal_under_even_light_mirrors_its_colour() -> None:
    color = (0.8, 0.5, 0.3)
    picture = shade(ball(color), Material(0.05, 1.0), lit(1.0))
    np.testing.assert_allclose(picture[24, 24, :3] / 255, color, atol=0.03)


def test_highlights_of_smooth_surfaces_are_sharper() -> None:
    def bright_share(roughness: float) -> float:
        light = rays(shade(ball((0.1, 0.1, 0.1)), Material(roughness, 0.0), lit(0.3, box=8.0)))
        return float((light.max(axis=1) > 0.5 * light.max()).mean())

    assert bright_share(SMOOTH) < 0.3 * bright_share(0.6)


def test_highlights_of_metal_have_its_colour() -> None:
    def highlight(metallic: float) -> np.ndarray:
        found = rays(shade(ball((0.9, 0.2, 0.2)), Material(0.3, metallic), lit(0.05, box=3.0)))
        dark, bright = found[found.sum(1).argmin()], found[found.sum(1).argmax()]
        return to_linear(bright.astype(np.float32)) - to_linear(dark.astype(np.float32))

    metal, plastic = highlight(1.0), highlight(0.0)
    assert metal[1] < 0.3 * metal[0]
    assert plastic[1] > metal[1]


def test_pictures_show_the_material_and_keep_the_outline() -> None:
    item = make_item(7)
    smooth, rough = (
        material_picture(item, 7, material=Material(value, 1.0), size=64)
        for value in (SMOOTH, ROUGH)
    )
    np.testing.assert_array_equal(smooth[..., 3], rough[..., 3])
    np.testing.assert_array_equal(smooth[..., 3], picture_of(item, 7, size=64)[..., 3])
    inside = smooth[..., 3] == 255
    assert np.abs(smooth[inside].astype(int) - rough[inside]).mean() > 5


def test_samples_are_the_seeds() -> None:
    pictures, materials = item_samples(11)
    assert pictures.shape == (LOOKS + 1, SIZE, SIZE, 4)
    assert pictures.dtype == np.uint8
    assert materials.shape == (LOOKS + 1, 2)
    np.testing.assert_array_equal(pictures, item_samples(11).pictures)
    np.testing.assert_array_equal(pictures[1], material_picture(make_item(11), 11, size=SIZE))
    first = drawn_material(11)
    assert materials[1] == pytest.approx([first.roughness, first.metallic])
    assert set(materials[:, 1]) <= {0.0, 1.0}
    assert len(set(materials[1:, 0])) == LOOKS


def test_captions_tell_the_material() -> None:
    assert material_of("a small red metal chair") == "metal"
    assert material_of("a red chair") == ""


def test_data_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.nano.material_data.SHARD_ITEMS", 2)
    paths = list(make_material_data(tmp_path, 3))
    samples = load_material_data(paths)
    assert len(paths) == 2
    assert samples.pictures.shape == (4 * (LOOKS + 1), SIZE, SIZE, 4)
    monkeypatch.setattr("jobs.nano.material_data.item_samples", lambda seed: 1 / 0)
    assert list(make_material_data(tmp_path, 3)) == paths


def grey_or_white(count: int) -> MaterialSamples:
    """Pictures that are white for metal and grey for others."""
    materials = np.stack([np.full(count, 0.3), np.arange(count) % 2], axis=1).astype(np.float32)
    shade_of = (100 + 150 * materials[:, 1]).astype(np.uint8)
    pictures = np.broadcast_to(shade_of[:, None, None, None], (count, SIZE, SIZE, 4)).copy()
    pictures[..., 3] = 255
    return MaterialSamples(pictures, materials)


def test_training_steps_reduce_the_loss() -> None:
    estimator = ImageEstimator(StableFast3DConfig.nano().estimators)
    initialize_estimator(estimator, 0)
    optimizer = Optimizer(estimator, hidden_matrices(estimator), 3e-3)
    source = material_batches(grey_or_white(16), 8, np.random.default_rng(0))
    losses = []
    for _ in range(25):
        loss = material_loss(estimator, *next(source))
        losses.append(loss.item())
        optimizer.step(loss, 1.0)
    assert losses[-1] < 0.5 * losses[0]


def test_modes_are_the_published_ones_above_one() -> None:
    estimator = ImageEstimator(StableFast3DConfig.nano().estimators)
    initialize_estimator(estimator, 0)
    pictures = torch.rand(64, 4, SIZE, SIZE)
    with torch.no_grad():
        modes, low = material_modes(estimator, pictures)
        found = estimator.distributions(estimator.features(pictures[:, :3] * pictures[:, 3:]))
        for column, name in enumerate(("roughness", "metallic")):
            alpha, beta = found[name]
            is_safe = (alpha > 1.02) & (beta > 1.02)
            torch.testing.assert_close(modes[is_safe, column], beta_mode(alpha, beta)[is_safe])
    assert low >= 0


def test_only_the_estimator_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.nano.material_data.SHARD_ITEMS", 2)
    config = StableFast3DConfig.nano()
    folder = tmp_path / "out"
    state = StableFast3DNetwork(config).state_dict()
    write_checkpoint(partial(write_config, config), state, folder)
    before = load_file(folder / "model.safetensors")
    schedule = Schedule(steps=1, minutes=1e6)
    train_material(tmp_path, folder, schedule=schedule, items=2, batch_size=4)
    after = load_file(folder / "model.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith("image_estimator.") for key in changed)
    assert before.keys() == after.keys()
