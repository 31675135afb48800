from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dream_cad.models.profile import StageClock
from dream_cad.models.triposr.finish import RawShape, finish, texture_padding
from dream_cad.models.triposr.options import TripoSROptions
from dream_cad.models.triposr.pipeline import TripoSRPipeline, prepare, quantize, run
from tests.tiny_triposr import make_network, picture


@pytest.fixture(scope="module")
def pipeline() -> TripoSRPipeline:
    return TripoSRPipeline(make_network())


@pytest.fixture(scope="module")
def code(pipeline: TripoSRPipeline) -> torch.Tensor:
    return pipeline.encode([prepare(picture(), TripoSROptions()).image])[0]


def test_prepare_cuts_out_and_crops() -> None:
    prepared = prepare(picture(), TripoSROptions(foreground_ratio=0.5))
    assert prepared.image.mode == "RGB"
    assert prepared.image.size == (60, 60)
    assert prepared.image.getpixel((0, 0)) == (127, 127, 127)
    assert prepared.image.getpixel((30, 30)) == (255, 0, 0)


def test_prepare_without_matting_keeps_the_frame() -> None:
    options = TripoSROptions(remove_background=False)
    prepared = prepare(picture(), options)
    assert prepared.image.size == picture().size
    assert prepared.image.getpixel((0, 0)) == (127, 127, 127)
    assert prepared.matting is None
    rgb = Image.new("RGB", (20, 10), "blue")
    assert prepare(rgb, options).image is rgb


def test_batch_equals_single_pictures(pipeline: TripoSRPipeline) -> None:
    images = [prepare(picture(color), TripoSROptions()).image for color in ("red", "lime")]
    both = pipeline.encode(images)
    single = torch.cat([pipeline.encode([image]) for image in images])
    torch.testing.assert_close(both, single, atol=1e-5, rtol=1e-5)


def test_pieces_survive_pickling(pipeline: TripoSRPipeline, code: torch.Tensor) -> None:
    """A server runs ``finish`` in another process."""
    options = TripoSROptions(texture=True, texture_size=256)
    raw = pipeline.extract(code, options)
    sent: RawShape = pickle.loads(pickle.dumps(raw))  # noqa: S301 - bytes of our own
    here, there = (finish(part, options, lambda f, s: None) for part in (raw, sent))
    assert np.array_equal(here.vertices, there.vertices)
    assert np.array_equal(here.texture, there.texture)


def test_run_is_the_pieces(pipeline: TripoSRPipeline, code: torch.Tensor) -> None:
    options = TripoSROptions()
    pieces = finish(pipeline.extract(code, options), options, lambda f, s: None)
    whole, _ = run(pipeline, picture(), options, StageClock(), lambda f, s: None)
    assert np.array_equal(whole.vertices, pieces.vertices)
    assert np.array_equal(whole.vertex_colors, pieces.vertex_colors)


def test_higher_threshold_gives_a_smaller_shape(
    pipeline: TripoSRPipeline, code: torch.Tensor
) -> None:
    extents = [
        np.ptp(pipeline.extract(code, TripoSROptions(threshold=t)).mesh.vertices, axis=0).min()
        for t in (10.0, 25.0, 60.0)
    ]
    assert extents == sorted(extents, reverse=True)
    assert extents[0] > extents[2]


def test_surface_lies_at_the_threshold(pipeline: TripoSRPipeline, code: torch.Tensor) -> None:
    """The grid is fine enough for the density at the vertices to be near 25."""
    raw = pipeline.extract(code, TripoSROptions(resolution=96, texture=True))
    assert raw.field is not None
    model_frame = raw.mesh.vertices[:, [2, 0, 1]].copy()
    density = raw.field.density(torch.from_numpy(model_frame))
    assert 20 < density.median() < 30


def test_quantize_rounds_halves_to_even() -> None:
    colors = np.array([[0.0, 0.5 / 255, 1.5 / 255], [1.0, 2.4 / 255, 2.6 / 255]], np.float32)
    assert quantize(colors).tolist() == [[0, 0, 2], [255, 2, 3]]


@pytest.mark.parametrize(("size", "padding"), [(256, 2), (1024, 4), (2048, 8)])
def test_padding_of_the_published_baking(size: int, padding: int) -> None:
    assert texture_padding(size) == padding


def test_textured_meshes_are_limited(
    pipeline: TripoSRPipeline, code: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream_cad.models.triposr.finish.MAX_TEXTURED_FACES", 1000)
    options = TripoSROptions(texture=True, texture_size=256)
    raw = pipeline.extract(code, options)
    assert len(raw.mesh.faces) > 5000
    assert len(finish(raw, options, lambda f, s: None).faces) <= 1000


def test_views_of_the_field_show_the_object(pipeline: TripoSRPipeline, code: torch.Tensor) -> None:
    views = pipeline.render(code, views=3, size=16)
    assert views.shape == (3, 16, 16, 3)
    assert views.dtype == np.uint8
    assert (views[:, 8, 8] < 250).any(axis=-1).all()
    empty = pipeline.render(torch.zeros_like(code), views=1, size=4)
    assert (empty == 255).all()
