"""The examples of the API reference, run as they are written there.

``examples/`` holds them word for word. Some use ``ModelFactory`` or ``Path``, which they do not
import: the reference does so once, before them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dream_cad import ModelFactory
from dream_cad.benchmark import ABTestResult
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
    namespace: dict[str, Any] = {"ModelFactory": ModelFactory, "Path": Path, "__name__": "example"}
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


def test_quality_assessment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_example("quality_assessment")
    assert names["result"].metadata["checkpoint"]["kind"] == "nano"
    assert (tmp_path / "sword.glb").is_file()
    metrics = names["metrics"]
    assert metrics.face_count == len(names["result"].faces) > 500
    assert metrics.uv_coverage > 50
    assert metrics.uv_overlap == 0
    assert metrics.game_ready_score > 60
    assert metrics.textures.resolution >= 1024
    assert {"base colour", "normal"} <= set(metrics.textures.maps)
    polycount, game, uv = capsys.readouterr().out.splitlines()
    assert polycount == f"Polycount: {metrics.face_count}"
    assert game == f"Game ready: {metrics.game_ready_score}/100"
    assert uv == f"UV quality: {metrics.uv_coverage}%"


def run_ab_example(**changes: tuple[str, str]) -> ABTestResult:
    """Run the A/B example, with other values in its configuration where asked for."""
    code = (EXAMPLES / "ab_testing.py").read_text("utf-8")
    for before, after in changes.values():
        assert before in code
        code = code.replace(before, after)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "ab_testing.py", "exec"), namespace)
    result = namespace["result"]
    assert isinstance(result, ABTestResult)
    return result


def check_ab_result(result: ABTestResult, pairs: int, output: str) -> None:
    assert len(result.results_a) == len(result.results_b) == pairs
    assert all(run.success for run in (*result.results_a, *result.results_b))
    assert result.winner in {"triposr", "stable-fast-3d", "tie"}
    assert (result.winner != "tie") == (result.p_value < 0.05)
    assert output == f"Winner: {result.winner}\nStatistical significance: {result.p_value}\n"


def test_ab_testing_with_one_prompt_and_sample(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_ab_example(
        prompts=('["chair", "table", "lamp"]', '["chair"]'), samples=("prompt=5", "prompt=1")
    )
    check_ab_result(result, 1, capsys.readouterr().out)
    assert "too few" in result.reason


@pytest.mark.long
@pytest.mark.timeout(540)
def test_ab_testing(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_ab_example()
    check_ab_result(result, 15, capsys.readouterr().out)
    assert result.comparisons["generation_time_seconds"].n == 15


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference is not part of the repository")
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_word_for_word_those_of_the_reference(path: Path) -> None:
    assert f"```python\n{path.read_text('utf-8')}```" in REFERENCE.read_text("utf-8")
