from __future__ import annotations

import numpy as np
import pytest

from dream_cad.exceptions import GenerationCancelledError, InvalidConfigError
from dream_cad.models.triposr import TripoSR
from tests.tiny_pipeline import save_tiny_pipeline
from tests.tiny_triposr import write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TripoSR:
    folder = tmp_path_factory.mktemp("checkpoints")
    return TripoSR(
        checkpoint=write_checkpoint(folder / "triposr"),
        device="cpu",
        text_to_image=save_tiny_pipeline(folder / "pipeline"),
    )


def generate(model: TripoSR, prompt: str = "a red chair", **options: object) -> object:
    # Random weights draw noise: nothing that could be cut out of its background.
    return model.generate_from_text(prompt, remove_background=False, **options)


def test_text_becomes_a_mesh_with_a_receipt(model: TripoSR) -> None:
    result = generate(model, seed=3)
    assert len(result.faces) > 0
    assert result.metadata["seed"] == 3
    assert result.metadata["input"]["prompt"] == "a red chair"
    picture = result.metadata["text_to_image"]
    assert picture["seed"] == 3
    assert picture["license"] == "Apache-2.0"


def test_same_seed_gives_the_same_mesh(model: TripoSR) -> None:
    first, second, other = (generate(model, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.vertices, second.vertices)
    assert not np.array_equal(first.vertex_colors, other.vertex_colors)


def test_seed_drawn_by_chance_is_told_and_reproduces(model: TripoSR) -> None:
    drawn = generate(model)
    again = generate(model, seed=drawn.metadata["seed"])
    assert np.array_equal(drawn.vertices, again.vertices)


def test_picture_options_reach_the_pipeline(model: TripoSR) -> None:
    result = generate(model, seed=0, num_inference_steps=3, guidance_scale=1.5)
    picture = result.metadata["text_to_image"]
    assert (picture["num_inference_steps"], picture["guidance_scale"]) == (3, 1.5)


@pytest.mark.parametrize("prompt", ["", "   ", "a\x00b", "x" * 100_000])
def test_bad_prompts_are_refused(model: TripoSR, prompt: str) -> None:
    with pytest.raises(InvalidConfigError):
        generate(model, prompt)


def test_progress_covers_picture_and_mesh(model: TripoSR) -> None:
    seen: list[tuple[float, str]] = []
    generate(model, seed=0, progress=lambda f, s: seen.append((f, s)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert next(stage for _, stage in seen) == "text_to_image"


def test_cancelling_while_drawing(model: TripoSR) -> None:
    def cancel(fraction: float, stage: str) -> None:
        if stage == "text_to_image" and fraction > 0:
            raise GenerationCancelledError("stop")

    with pytest.raises(GenerationCancelledError):
        generate(model, seed=0, progress=cancel)


def test_unload_drops_the_text_stage_too(model: TripoSR) -> None:
    generate(model, seed=0)
    stage = model._text_stage
    assert stage is not None
    assert stage.is_loaded
    model.unload_model()
    assert not stage.is_loaded
    assert model._text_stage is None
