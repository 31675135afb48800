"""The examples of the API reference, run as they are written there.

``examples/`` holds them word for word. Two of them use ``ModelFactory``, which the reference
imports once at its beginning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dream_cad import ModelFactory
from dream_cad.mesh.export import load_mesh
from dream_cad.models.base import GenerationResult, Model3D
from dream_cad.models.registry import ModelRegistry
from dream_cad.queue import JobStatus

EXAMPLES = Path(__file__).parent / "examples"
REFERENCE = Path(__file__).parents[3] / "shared" / "API_REFERENCE.md"

pytestmark = pytest.mark.usefixtures("clean_registry")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_example(name: str) -> dict[str, Any]:
    path = EXAMPLES / f"{name}.py"
    namespace: dict[str, Any] = {"ModelFactory": ModelFactory, "__name__": "example"}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), namespace)
    return namespace


def test_simple_generation(tmp_path: Path) -> None:
    names = run_example("simple_generation")
    result = names["result"]
    assert isinstance(result, GenerationResult)
    assert result.model_name == "triposr"
    assert result.vertices.dtype == np.float32
    assert result.faces.dtype == np.int32
    assert result.generation_time > 0
    mesh = load_mesh(tmp_path / "vase.glb")
    assert len(mesh.faces) == len(result.faces) > 100
    assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1.0, abs=1e-4)


def test_batch_processing(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_example("batch_processing")
    queue, job_ids = names["queue"], names["job_ids"]
    assert capsys.readouterr().out.count("Job ") == len(job_ids) == 5
    jobs = [queue.wait(job_id, 250) for job_id in job_ids]
    names["processor"].stop_processing()
    assert [job.error for job in jobs] == [None] * 5
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}
    for job in jobs:
        assert isinstance(job.result, GenerationResult)
        assert len(job.result.faces) > 100
    queue.close()


def test_custom_model_integration() -> None:
    model = run_example("custom_model_integration")["model"]
    assert isinstance(model, Model3D)
    assert type(model).__name__ == "CustomModel"
    assert (model.name, model.is_loaded) == ("custom_model", False)
    assert model.generate_from_text("a chair") is None
    assert ModelFactory.list_available_models()[-1] == "custom_model"
    assert model.capabilities == ModelRegistry().get_capabilities("custom_model")


def test_error_handling_falls_back_to_triposr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dream_cad.models.factory.get_total_vram", lambda: 0.0)
    model = run_example("error_handling")["model"]
    assert model.name == "triposr"
    output = capsys.readouterr().out
    assert output.startswith("Not enough VRAM: Model 'mvdream' needs 16 GB of GPU memory")
    model.load_model()
    assert model.is_loaded
    model.unload_model()


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference is not part of the repository")
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_word_for_word_those_of_the_reference(path: Path) -> None:
    assert f"```python\n{path.read_text('utf-8')}```" in REFERENCE.read_text("utf-8")
