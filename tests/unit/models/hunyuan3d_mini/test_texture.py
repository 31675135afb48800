"""Textures of Hunyuan3D-2mini: generated shapes and given meshes, with tiny networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dream_cad.exceptions import GenerationCancelledError, InvalidConfigError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import export_mesh, mesh_bytes
from dream_cad.mesh.unwrap import unwrap_uv
from dream_cad.models.base import GenerationResult
from dream_cad.models.hunyuan3d_mini import Hunyuan3DMini
from dream_cad.models.hunyuan3d_mini.options import Hunyuan3DOptions
from dream_cad.models.hunyuan3d_mini.paint import painter as painter_module
from dream_cad.models.hunyuan3d_mini.paint.painter import (
    PaintSettings,
    TexturePainter,
    check_paint_memory,
)
from dream_cad.models.triposr import TripoSR
from tests.tiny_hunyuan3d import write_checkpoint
from tests.tiny_hunyuan3d_paint import write_delight, write_paint
from tests.tiny_pipeline import save_tiny_pipeline
from tests.tiny_triposr import picture
from tests.unit.mesh.gltf import needs_validator, problems
from tests.unit.mesh.shapes import sphere

SMALL = {"seed": 3, "texture_size": 512, "view_size": 64, "paint_steps": 2, "delight": False}
GENERATED = SMALL | {"texture": True, "octree_resolution": 24, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_checkpoint(tmp_path_factory.mktemp("hunyuan3d"))
    return write_delight(write_paint(root))


@pytest.fixture(scope="module")
def model(folder: Path) -> Hunyuan3DMini:
    return Hunyuan3DMini(checkpoint=folder, device="cpu")


@pytest.fixture(scope="module")
def result(model: Hunyuan3DMini) -> GenerationResult:
    return model.generate_from_image(picture(), **GENERATED)


def test_a_generated_shape_is_painted(result: GenerationResult) -> None:
    assert result.texture is not None
    assert result.uv_coords is not None
    assert result.texture.shape == (512, 512, 3)
    assert len(result.uv_coords) == len(result.vertices)
    assert result.materials == {"metallic": 0.0, "roughness": 1.0}
    assert result.texture.reshape(-1, 3).std(axis=0).min() > 1
    assert result.metadata["paint"]["variant"] == "turbo"
    assert 0.1 < result.metadata["paint"]["seen_share"] < 1
    assert result.metadata["seed"] == 3


@needs_validator
def test_the_glb_is_valid(result: GenerationResult) -> None:
    assert problems(mesh_bytes(result.to_mesh(), "glb")) == []


def test_the_paint_comes_from_the_networks(
    model: Hunyuan3DMini, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = model._require_painter()
    monkeypatch.setattr(
        painter._diffusion, "views", lambda *a, **k: np.full((6, 64, 64, 3), 200, np.uint8)
    )
    made = model.texture_mesh(sphere(1), image=picture(), **SMALL)
    assert made.texture is not None
    assert set(np.unique(made.texture)) <= {199, 200}


class OctantViews:
    """Draws what each camera would see of a mesh whose octants are painted, from its own maps."""

    def views(self, reference: Any, normals: Any, positions: Any, *_: Any, **__: Any) -> Any:
        drawn = np.where(positions > 127, 40, 220).astype(np.uint8)
        return np.where((positions == 255).all(axis=-1, keepdims=True), 255, drawn)


@pytest.mark.parametrize("shape", ["ball", "torus"])
def test_what_the_views_show_lands_where_it_was_seen(shape: str) -> None:
    made = {"ball": trimesh.creation.icosphere(3, 0.5), "torus": trimesh.creation.torus(0.4, 0.15)}
    solid = made[shape]
    mesh = MeshData(np.asarray(solid.vertices, np.float32), np.asarray(solid.faces, np.int32))
    painter = TexturePainter(OctantViews(), None, device="cpu")
    settings = PaintSettings(texture_size=512, view_size=128, delight=False)
    painted = painter.paint(mesh, [picture()], settings)
    textured = painted.mesh
    assert textured.texture is not None
    assert textured.uv_coords is not None
    clear = (np.abs(textured.vertices) > 0.05).all(axis=1)
    texel = np.clip((textured.uv_coords[clear] * 512).astype(int), 0, 511)
    seen = textured.texture[511 - texel[:, 1], texel[:, 0]] > 130
    # Positions are stored as 0.5 - p, in the axes (-x, z, -y) of the renders.
    axes = textured.vertices[clear][:, [0, 2, 1]] * np.float32([-1, 1, -1])
    is_right = (seen == (axes > 0)).all(axis=1)
    assert clear.sum() > 200
    assert is_right.mean() > 0.97


def test_a_given_mesh_keeps_its_place(model: Hunyuan3DMini, tmp_path: Path) -> None:
    ball = sphere(2)
    ball = replace(ball, vertices=ball.vertices * 3 + np.float32([5, 0, -2]))
    path = export_mesh(ball, tmp_path / "ball.glb", "glb")
    made = model.texture_mesh(path, image=picture(), **SMALL)
    assert made.texture is not None
    np.testing.assert_allclose(made.vertices[made.faces], ball.vertices[ball.faces], atol=1e-6)
    assert made.metadata["input"]["kind"] == "mesh"
    assert made.metadata["seed"] == 3


def test_own_uvs_are_kept(model: Hunyuan3DMini) -> None:
    ball = sphere(2)
    atlas = unwrap_uv(ball.vertices, ball.faces, texture_size=512, padding=4)
    own = MeshData(ball.vertices[atlas.vmapping], atlas.faces, uv_coords=atlas.uvs[:, ::-1].copy())
    made = model.texture_mesh(own, image=picture(), keep_uvs=True, **SMALL)
    np.testing.assert_array_equal(made.uv_coords, own.uv_coords)
    np.testing.assert_array_equal(made.faces, own.faces)


def test_the_light_is_taken_out_on_request(model: Hunyuan3DMini) -> None:
    seen: list[str] = []

    def watch(_: float, stage: str) -> None:
        seen.append(stage)
        if stage.startswith("delight"):
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        model.texture_mesh(sphere(1), image=picture(), progress=watch, **SMALL | {"delight": True})
    assert not any(stage.startswith("paint") for stage in seen)


def test_every_network_runs_from_prompt_to_texture(tmp_path: Path) -> None:
    """The standard variant of Paint, with the real delight, after a picture drawn from a prompt."""
    root = write_checkpoint(tmp_path / "weights")
    write_delight(write_paint(root, "standard"))
    model = Hunyuan3DMini(
        checkpoint=root,
        device="cpu",
        paint_variant="standard",
        text_to_image=save_tiny_pipeline(tmp_path / "pipeline"),
    )
    stages: list[str] = []
    options = SMALL | {"delight": True, "remove_background": False}
    made = model.texture_mesh(
        sphere(1), prompt="rust", progress=lambda _, stage: stages.append(stage), **options
    )
    assert made.texture is not None
    assert made.texture.reshape(-1, 3).std(axis=0).min() > 1
    assert made.metadata["paint"]["variant"] == "standard"
    assert made.metadata["text_to_image"]["license"] == "Apache-2.0"
    words = [stage.split(" ")[0] for stage in stages]
    order = [words.index(name) for name in ("text_to_image", "delight", "paint")]
    assert order == sorted(order)


def test_progress_rises_to_the_end(model: Hunyuan3DMini) -> None:
    seen: list[float] = []
    model.texture_mesh(
        sphere(1), image=picture(), progress=lambda fraction, _: seen.append(fraction), **SMALL
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_absent_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path / "cache"))
    bare = Hunyuan3DMini(checkpoint=write_checkpoint(tmp_path / "bare"), device="cpu")
    with pytest.raises(InvalidConfigError, match="hunyuan3d-paint-v2-0-turbo") as caught:
        bare.generate_from_image(picture(), **GENERATED)
    assert "dream-cad pull hunyuan3d-paint" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("mesh", "options", "message"),
    [
        (sphere(1), {"keep_uvs": True}, "no UVs"),
        (
            replace(sphere(1), uv_coords=np.full((len(sphere(1).vertices), 2), 1.5, np.float32)),
            {"keep_uvs": True},
            "leave the square",
        ),
        (sphere(3), {"keep_uvs": True, "target_faces": 100}, "cannot keep"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    model: Hunyuan3DMini, mesh: MeshData, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        model.texture_mesh(mesh, image=picture(), **SMALL | options)


@pytest.mark.parametrize("given", [{}, {"image": picture(), "prompt": "a ball"}])
def test_a_mesh_is_painted_after_one_thing(model: Hunyuan3DMini, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError, match="either an image or a prompt"):
        model.texture_mesh(sphere(1), **given)


def test_a_shape_that_is_not_there_has_no_uvs(model: Hunyuan3DMini) -> None:
    with pytest.raises(InvalidConfigError, match="keep_uvs"):
        model.generate_from_image(picture(), **GENERATED | {"keep_uvs": True})


def test_memory_is_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 3_000_000_000

    monkeypatch.setattr(painter_module.psutil, "virtual_memory", Memory)
    check_paint_memory(PaintSettings(texture_size=2048), torch.device("cpu"))
    with pytest.raises(InvalidConfigError, match=r"4096 needs .* GB") as caught:
        check_paint_memory(PaintSettings(texture_size=4096), torch.device("cpu"))
    assert caught.value.hint == "texture_size 2048 would fit."


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"texture_size": 8192}, "16..4096"), ({"view_size": 100}, "multiple of 64")],
)
def test_sizes_out_of_range(changes: dict[str, int], message: str) -> None:
    painter = TexturePainter(None, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match=message):
        painter.paint(sphere(1), [picture()], PaintSettings(**changes))


@pytest.mark.parametrize("option", ["texture_size", "view_size", "paint_steps"])
def test_options_out_of_range(option: str) -> None:
    with pytest.raises(InvalidConfigError, match=option):
        Hunyuan3DOptions.parse({option: 100_000})


def test_other_models_say_that_they_cannot(folder: Path) -> None:
    assert Hunyuan3DMini.paints_meshes()
    assert not TripoSR.paints_meshes()
    with pytest.raises(InvalidConfigError, match="makes meshes"):
        TripoSR(checkpoint=folder, device="cpu").texture_mesh(sphere(1), image=picture())
