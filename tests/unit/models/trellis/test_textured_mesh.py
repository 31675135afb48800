from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationCancelledError, GenerationError, InvalidConfigError
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.models.trellis.frame import from_gltf
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh
from dream_cad.models.trellis.representations import (
    SH_0,
    Gaussians,
    GaussianSettings,
    RadianceField,
)
from dream_cad.models.trellis.textured_mesh import (
    Bake,
    BakeEffort,
    simplify_extracted,
    to_textured_mesh,
)

EFFORT = BakeEffort(views=14, view_size=96, steps=40, hidden_views=20, hidden_size=64)
RADIUS = 0.4


def ball(*more: trimesh.Trimesh) -> ExtractedMesh:
    shape = trimesh.util.concatenate([trimesh.creation.icosphere(4, RADIUS), *more])
    return ExtractedMesh(
        shape.vertices.astype(np.float32),
        np.asarray(shape.faces, np.int64),
        np.zeros((len(shape.vertices), 6), np.float32),
    )


def position_colors(points: NDArray[np.floating]) -> NDArray[np.floating]:
    return points * 0.9 + 0.5


@pytest.fixture(scope="module")
def splats() -> Gaussians:
    """Opaque splats on the ball, coloured by their place."""
    random = np.random.default_rng(0)
    at = random.normal(size=(6_000, 3))
    at *= RADIUS / np.linalg.norm(at, axis=1, keepdims=True)
    dc = torch.tensor((position_colors(at) - 0.5) / SH_0, dtype=torch.float32)
    return Gaussians(
        torch.tensor(at + 0.5, dtype=torch.float32),
        dc[:, None],
        torch.full((len(at), 3), 1.0),
        torch.zeros(len(at), 4),
        torch.full((len(at), 1), 6.0),
        GaussianSettings(),
    )


def surface_errors(mesh: MeshData) -> NDArray[np.floating]:
    return np.abs(surface_differences(mesh))


def surface_differences(mesh: MeshData) -> NDArray[np.floating]:
    """Difference of the texture to the colour of the place, at the faces' centres."""
    assert mesh.uv_coords is not None
    assert mesh.texture is not None
    centres = from_gltf(mesh.vertices[mesh.faces].mean(axis=1))
    shown = sample_texture(mesh.texture, mesh.uv_coords[mesh.faces].mean(axis=1)) / 255
    return shown - position_colors(centres)


@pytest.mark.parametrize("bake", ["fast", "opt"])
def test_the_texture_is_what_the_splats_look_like(splats: Gaussians, bake: Bake) -> None:
    mesh = to_textured_mesh(
        ball(), splats, simplify=0.8, texture_size=128, bake=bake, effort=EFFORT
    )
    assert len(mesh.faces) == pytest.approx(0.2 * 5120, rel=0.02)
    assert mesh.texture is not None
    assert mesh.texture.shape == (128, 128, 3)
    assert mesh.vertex_colors is None
    # glTF's frame: up is +y, where the world's is +z
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), RADIUS, rtol=0.02)
    errors = surface_errors(mesh)
    assert errors.mean() < 0.03
    assert np.quantile(errors, 0.95) < 0.1


def test_thin_splats_are_not_painted_darker(splats: Gaussians) -> None:
    thin = replace(splats, raw_opacity=torch.full_like(splats.raw_opacity, 1.5))
    mesh = to_textured_mesh(ball(), thin, simplify=0.8, texture_size=128, effort=EFFORT)
    signed = surface_differences(mesh)
    # the far side shines through, so colours mix; on black they would be a fifth darker
    assert abs(signed.mean()) < 0.02
    assert np.abs(signed).mean() < 0.08


def test_a_radiance_field_paints_as_well() -> None:
    axis = torch.arange(16)
    coords = torch.cartesian_prod(axis, axis, axis)
    centre = (coords + 0.5) / 16
    near = ((centre - 0.5).norm(dim=1) - RADIUS).abs() < 0.09
    coords, centre = coords[near], centre[near]
    colors = torch.tensor(position_colors(centre.numpy() - 0.5)).float().clamp(0.02, 0.98)
    field = RadianceField(
        torch.ones(len(coords), 1, 3, 8),
        torch.full((len(coords), 1), 400.0),
        (torch.logit(colors) / SH_0)[:, None, None],
        centre,
        torch.full((len(coords), 1), 4, dtype=torch.uint8),
    )
    effort = replace(EFFORT, views=8, view_size=48)
    mesh = to_textured_mesh(ball(), field, simplify=0.9, texture_size=64, effort=effort)
    # voxels of a sixteenth are flat in colour, and stand out of the ball
    assert surface_errors(mesh).mean() < 0.08


def test_what_is_hidden_goes_and_holes_are_closed(splats: Gaussians) -> None:
    inner = trimesh.creation.icosphere(2, 0.2)
    holed = ball(inner)
    holed = replace(holed, faces=holed.faces[~(holed.faces == 3).any(axis=1)])
    options = {"simplify": 0.5, "texture_size": 64, "effort": replace(EFFORT, views=4)}
    whole = to_textured_mesh(holed, splats, **options)  # type: ignore[arg-type]
    as_is = to_textured_mesh(holed, splats, fill_holes=False, **options)  # type: ignore[arg-type]

    def facts(mesh: MeshData) -> tuple[bool, float]:
        shape = trimesh.Trimesh(mesh.vertices, mesh.faces)
        shape.merge_vertices(merge_tex=True, merge_norm=True)
        return shape.is_watertight, float(np.linalg.norm(mesh.vertices, axis=1).min())

    watertight, nearest = facts(whole)
    assert watertight
    assert nearest > 0.3
    watertight, nearest = facts(as_is)
    assert not watertight
    assert nearest < 0.25


def test_progress_grows_and_cancels(splats: Gaussians) -> None:
    told: list[tuple[float, str]] = []
    effort = replace(EFFORT, views=3, hidden_views=3, steps=3)
    to_textured_mesh(
        ball(),
        splats,
        texture_size=64,
        bake="opt",
        effort=effort,
        progress=lambda part, stage: told.append((part, stage)),
    )
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert list(dict.fromkeys(stage for _, stage in told)) == [
        "simplify",
        "holes",
        "unwrap",
        "views",
        "bake",
    ]

    def cancel(part: float, stage: str) -> None:
        if stage == "views":
            raise GenerationCancelledError("enough")

    with pytest.raises(GenerationCancelledError):
        to_textured_mesh(ball(), splats, texture_size=64, effort=effort, progress=cancel)


def test_splats_that_are_elsewhere_are_an_error(splats: Gaussians) -> None:
    clear = replace(splats, raw_opacity=torch.full_like(splats.raw_opacity, -20.0))
    with pytest.raises(GenerationError, match="transparent"):
        to_textured_mesh(ball(), clear, texture_size=64, effort=replace(EFFORT, views=3))


def test_wrong_calls_are_refused(splats: Gaussians) -> None:
    with pytest.raises(InvalidConfigError, match="simplify"):
        to_textured_mesh(ball(), splats, simplify=1.0)
    with pytest.raises(InvalidConfigError, match="power of two"):
        to_textured_mesh(ball(), splats, bake="opt", texture_size=500)
    with pytest.raises(InvalidConfigError, match="texture_size"):
        to_textured_mesh(ball(), splats, texture_size=8)
    with pytest.raises(InvalidConfigError, match="hidden_views is 0"):
        replace(EFFORT, hidden_views=0)
    nothing = ExtractedMesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 6)))
    with pytest.raises(GenerationError, match="no surface"):
        to_textured_mesh(nothing, splats)


def test_simplifying_keeps_at_least_a_tetrahedron() -> None:
    assert len(simplify_extracted(ball(), 0.99999).faces) >= 4
