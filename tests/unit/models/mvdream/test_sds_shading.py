"""The lit variant of score distillation: normals, light, its draws, and the penalty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dream_cad.models.mvdream.sds_cameras import scheduled
from dream_cad.models.mvdream.sds_field import FieldConfig, HashGridConfig, RadianceField
from dream_cad.models.mvdream.sds_render import render_rays
from dream_cad.models.mvdream.sds_shading import (
    Light,
    ShadingConfig,
    draw_light,
    orientation_penalty,
)
from dream_cad.models.mvdream.sds_training import (
    FieldTrainer,
    RenderedViews,
    TrainingConfig,
    train_field,
)

GEOMETRY = FieldConfig(
    HashGridConfig(n_levels=2, log2_hashmap_size=10, base_resolution=4), neurons=8
)
SMALL = TrainingConfig(
    steps=6,
    batch_sizes=(4, 4),
    sizes=(6, 6),
    milestone=2,
    samples=12,
    occupancy=8,
    geometry=GEOMETRY,
    shading=ShadingConfig(diffuse_chance=1.0),
)
NORMALS = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
ALBEDO = torch.tensor([[0.5, 0.25, 1.0]]).expand(2, 3)


@pytest.fixture
def field() -> RadianceField:
    torch.manual_seed(0)
    return RadianceField(GEOMETRY)


def test_normals_of_the_first_blob_point_outwards(field: RadianceField) -> None:
    points = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    density, color, normals = field.with_normals(points)
    outward = torch.nn.functional.normalize(points, dim=1)
    assert (normals * outward).sum(dim=1).min() > 0.99
    plain = field(points)
    torch.testing.assert_close(density, plain[0])
    torch.testing.assert_close(color, plain[1])
    normals[:, 0].sum().backward()  # gradients reach the field through the normals
    assert field.density_network.layers[0].weight.grad is not None
    with torch.no_grad():
        still = field.with_normals(points)[2]
    assert not still.requires_grad
    torch.testing.assert_close(still, normals)


def lit(diffuse: float, *, has_colors: bool = True) -> Tensor:
    light = Light(torch.tensor([[9.0, 9.0, 9.0], [0.0, 0.0, 2.0]]), diffuse, has_colors)
    return light.shade(ALBEDO, NORMALS, torch.zeros(2, 3), torch.tensor([1, 1]))


def test_light_falls_on_what_faces_it() -> None:
    front, back = lit(0.75)
    torch.testing.assert_close(front, ALBEDO[0])
    torch.testing.assert_close(back, 0.25 * ALBEDO[1])
    torch.testing.assert_close(lit(0.0), ALBEDO)
    white = lit(0.5, has_colors=False)
    torch.testing.assert_close(white, torch.tensor([[1.0] * 3, [0.5] * 3]))


def test_draws_have_the_published_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [-2.0, 0, 0], [0, -2.0, 0]])
    lights = [draw_light(ShadingConfig(), positions, generator) for _ in range(600)]
    found = [light for light in lights if light is not None]
    assert len(found) / len(lights) == pytest.approx(0.75, abs=0.05)
    assert sum(not light.has_colors for light in found) / len(found) == pytest.approx(0.5, abs=0.06)
    places = torch.cat([light.position for light in found])
    distances = places.norm(dim=1)
    assert distances.min() >= 0.8 - 1e-6
    assert distances.max() <= 1.5 + 1e-6
    assert (places * positions.repeat(len(found), 1)).sum(dim=1).gt(0).float().mean() > 0.9
    diffuse = torch.tensor([light.diffuse for light in found])
    assert diffuse.mean() == pytest.approx(0.5, abs=0.05)


def test_normals_that_look_away_are_penalised() -> None:
    weights = torch.tensor([[0.5, 0.25]], requires_grad=True)
    directions = torch.tensor([[0.0, 0.0, 1.0]])
    towards, away = NORMALS[1], NORMALS[0]
    assert orientation_penalty(weights, torch.stack([towards, towards])[None], directions) == 0
    half = orientation_penalty(weights, torch.stack([towards, away])[None], directions)
    assert half.item() == pytest.approx(0.25)
    assert not half.requires_grad  # of the weights it asks nothing


def test_weights_of_the_penalty_grow() -> None:
    weight = ShadingConfig().orientation
    assert [scheduled(weight, step) for step in (0, 2500, 5000, 9000)] == [10, 505, 1000, 1000]


@torch.no_grad()
def test_only_light_changes_the_colours_of_a_render(field: RadianceField) -> None:
    origins = torch.tensor([[0.0, 0.0, 3.0]]).expand(8, 3) + torch.linspace(0, 0.2, 8)[:, None]
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(8, 3)
    black = torch.zeros(8, 3)
    plain = render_rays(field, origins, directions, black, 32)
    normal = render_rays(field, origins, directions, black, 32, has_normals=True)
    torch.testing.assert_close(normal.color, plain.color)
    assert plain.orientation == 0
    assert 0 <= float(normal.orientation) < 0.05
    light = Light(torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]]), 1.0, has_colors=True)
    front, back = render_rays(field, origins, directions, black, 32, light=light).color.split(4)
    assert front.mean() > 0.8 * plain.color[:4].mean()
    assert back.mean() < 0.2 * plain.color[4:].mean()


def grey(views: RenderedViews, generator: torch.Generator) -> Tensor:
    return (views.color - 0.5).square().mean()


def test_a_lit_run_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = FieldTrainer(SMALL)
    train_field(whole, grey)
    path = tmp_path / "state.pt"
    part = FieldTrainer(replace(SMALL, steps=3))
    train_field(part, grey, checkpoint=path)
    rest = FieldTrainer(SMALL)
    train_field(rest, grey, checkpoint=path)
    assert rest.step == 6
    for name, value in whole.field.state_dict().items():
        torch.testing.assert_close(rest.field.state_dict()[name], value)


def test_light_comes_with_the_milestone() -> None:
    seen: list[float] = []

    def remember(views: RenderedViews, generator: torch.Generator) -> Tensor:
        seen.append(float(torch.as_tensor(views.orientation).detach()))
        return views.color.mean()

    trainer = FieldTrainer(SMALL)
    bare = FieldTrainer(replace(SMALL, shading=None))
    first = [run.run_step(remember) for run in (trainer, bare)]
    assert seen[0] > 0
    assert seen[1] == 0
    assert first[0] > first[1]  # the penalty is part of the loss
    before = trainer.generator.get_state()
    trainer.step = 2
    trainer.run_step(remember)
    assert not torch.equal(before, trainer.generator.get_state())
