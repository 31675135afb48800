from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from benchmarks.suite.worker import SuiteWorker, WorkerSetup
from dream_cad.benchmark.clip_score import ClipScorer
from dream_cad.benchmark.image_metrics import PERFECT_PSNR_DB, compare_renders, psnr, ssim
from dream_cad.benchmark.reference import compare_to_reference
from dream_cad.benchmark.suites import text_cases
from dream_cad.exceptions import InvalidConfigError, ModelUnavailableError, ShapeError
from dream_cad.mesh.data import MeshData


def to_mesh(mesh: trimesh.Trimesh) -> MeshData:
    return MeshData(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


BOX = to_mesh(trimesh.creation.box())
SPHERE = to_mesh(trimesh.creation.icosphere(4))


def box(x: float, y: float, z: float, shift: float = 0.0) -> MeshData:
    made = trimesh.creation.box((x, y, z))
    made.apply_translation([shift, 0, 0])
    return to_mesh(made)


def test_a_mesh_agrees_with_itself_but_for_the_sampling() -> None:
    metrics = compare_to_reference(SPHERE, SPHERE)
    assert metrics.volume_iou == 1
    assert metrics.chamfer < 0.01
    assert metrics.f_score["0.02"] > 0.99
    assert metrics.normal_consistency > 0.99
    assert json.loads(json.dumps(metrics.to_dict()))["samples"] == 20_000


def test_shifted_boxes_have_analytic_values() -> None:
    metrics = compare_to_reference(
        box(1, 1, 1, shift=0.5), BOX, normalize=False, thresholds=[0.01, 10], samples=60_000
    )
    assert metrics.volume_iou == pytest.approx(1 / 3, abs=0.01)
    assert metrics.f_score["10"] == 1
    # By hand: side faces overlap by half (distance 0) and stand off by x <= 1/2 elsewhere.
    assert metrics.chamfer == pytest.approx((4 * 0.125 + 0.5 + inner_face()) / 6, abs=0.01)
    assert metrics.recall["0.01"] == pytest.approx(2 / 6, abs=0.03)


def inner_face() -> float:
    """Mean distance of the face inside the other box to its nearest side."""
    grid = (np.arange(400) + 0.5) / 400 - 0.5
    y, z = np.meshgrid(grid, grid)
    return float(np.minimum(0.5 - np.maximum(np.abs(y), np.abs(z)), 0.5).mean())


def test_normalizing_takes_scale_and_place_away() -> None:
    moved = MeshData(SPHERE.vertices * 7 + 3, SPHERE.faces)
    assert compare_to_reference(moved, SPHERE).volume_iou == pytest.approx(1, abs=1e-3)
    inside = compare_to_reference(moved, SPHERE, normalize=False).volume_iou
    assert inside == pytest.approx(7**-3, rel=0.1)  # the small sphere lies in the large one


def test_worse_meshes_score_worse_and_leaks_have_no_volume() -> None:
    near, far = (compare_to_reference(box(1, width, 1), BOX) for width in (0.9, 0.4))
    assert near.chamfer < far.chamfer
    assert near.f_score["0.05"] > far.f_score["0.05"]
    assert (near.volume_iou or 0) > (far.volume_iou or 0)
    leaky = MeshData(BOX.vertices, BOX.faces[1:])
    assert compare_to_reference(leaky, BOX).volume_iou is None


def test_wrong_input_of_references() -> None:
    empty = MeshData(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    with pytest.raises(ShapeError, match="truth"):
        compare_to_reference(BOX, empty)
    with pytest.raises(InvalidConfigError, match="samples"):
        compare_to_reference(BOX, BOX, samples=3)
    with pytest.raises(InvalidConfigError, match="thresholds"):
        compare_to_reference(BOX, BOX, thresholds=[0.1, float("nan")])


def test_psnr_and_ssim() -> None:
    black, gray = (np.full((16, 16, 3), value, np.uint8) for value in (0, 51))
    assert psnr(black, black) == PERFECT_PSNR_DB
    assert psnr(black, gray) == pytest.approx(20 * np.log10(5))
    assert ssim(gray, gray) == pytest.approx(1)
    assert ssim(black, gray) < 0.1
    with pytest.raises(ShapeError, match="same"):
        psnr(black, gray[:8])
    with pytest.raises(ShapeError, match="7"):
        ssim(black[:4], gray[:4])


def test_renders_tell_shapes_apart() -> None:
    same, other = compare_renders(BOX, BOX, size=64), compare_renders(SPHERE, BOX, size=64)
    assert (same.ssim, same.psnr_db) == (pytest.approx(1), PERFECT_PSNR_DB)
    assert other.ssim < 0.95
    assert other.psnr_db < 25


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = CLIPConfig(
        text_config={**small, "num_attention_heads": 2, "vocab_size": 60, "eos_token_id": 53},
        vision_config={**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nrandom weights\n")
    return folder


def test_clip_similarity_records_its_weights(tiny_clip: Path) -> None:
    score = ClipScorer(tiny_clip).score_mesh(BOX, "a box", views=2, size=32)
    assert -1 <= score.similarity <= 1
    assert (score.license, score.views, len(score.weights_sha256)) == ("mit", 2, 64)
    assert ClipScorer(tiny_clip).score_mesh(BOX, "a box", views=2, size=32) == score
    other = ClipScorer(tiny_clip).score_mesh(BOX, "a tall vase", views=2, size=32)
    assert other.similarity != score.similarity


def test_a_suite_records_which_clip_weights_scored(tiny_clip: Path) -> None:
    worker = SuiteWorker(WorkerSetup("triposr", clip=str(tiny_clip)))
    metrics, facts = worker._judge(text_cases("smoke")[0], BOX, None)
    assert -1 <= metrics["clip_similarity"] <= 1
    assert (facts["clip/license"], facts["clip/source"]) == ("mit", str(tiny_clip))
    assert len(facts["clip/weights_sha256"]) == 64


def test_clip_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"lack model\.safetensors"):
        ClipScorer(tmp_path)
    with pytest.raises(ModelUnavailableError, match="cache"):
        ClipScorer("no-such-owner/no-such-clip")
