"""Quality of the bundled nano checkpoints on held-out objects and captions.

``python -m benchmarks.nano_quality [--images 200] [--captions 100]`` writes
results/nano_quality.json and docs/pictures/nano_*.png. The baseline in the same run is the best
constant answer: for reconstruction, the mean shape of all training-like objects; for text, the
share that guessing the most frequent answer gets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.environment import RESULTS, describe_machine, write_result
from dream_cad.checkpoints import nano_folder
from dream_cad.models.base import GenerationResult
from dream_cad.models.triposr import TripoSR
from dream_cad.models.triposr.pipeline import TripoSRPipeline
from dream_cad.models.triposr.weights import load_network
from jobs.nano.catalogue import make_item
from jobs.nano.measure import (
    Generation,
    f_score,
    grid_points,
    held_out_captions,
    held_out_items,
    held_out_picture,
    judge,
    volume_iou,
)
from jobs.nano.recognize import CLASSIFIER_SEED, train_classifier

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


def mean_shape_iou(count: int) -> float:
    """IoU of the best constant shape (cells filled in at least half of other objects)."""
    points = grid_points()
    filled = np.zeros(len(points))
    others = 120
    for seed in range(CLASSIFIER_SEED, CLASSIFIER_SEED + others):
        filled += make_item(seed).solid.distance(points) < 0
    constant = filled >= 0.5 * others
    scores = []
    for item in held_out_items(count):
        truth = item.solid.distance(points) < 0
        scores.append((truth & constant).sum() / (truth | constant).sum())
    return float(np.mean(scores))


def measure_reconstruction(model: TripoSR, count: int) -> dict[str, Any]:
    """IoU and F-score of ``count`` held-out pictures, by category."""
    folder = nano_folder("triposr")
    if folder is None:
        raise SystemExit("No nano checkpoint is bundled.")
    pipeline = TripoSRPipeline(load_network(folder, device="cpu"))
    by_category: dict[str, list[float]] = defaultdict(list)
    scores, tiles = [], []
    for index, item in enumerate(held_out_items(count)):
        picture = held_out_picture(item, index)
        square = Image.fromarray(np.asarray(picture)[..., :3])
        iou = volume_iou(pipeline, pipeline.encode([square]), item)
        by_category[item.category].append(iou)
        result = model.generate_from_image(picture)
        scores.append(f_score(result, item, index))
        if index < 24:
            tiles.append(_pair(square, result))
    _sheet(tiles, 6).save(PICTURES / "nano_reconstructions.png")
    ious = [iou for values in by_category.values() for iou in values]
    return {
        "n": count,
        "mean_iou_64": round(float(np.mean(ious)), 4),
        "median_iou_64": round(float(np.median(ious)), 4),
        "p10_iou_64": round(float(np.quantile(ious, 0.1)), 4),
        "mean_f_score_0.03": round(float(np.mean(scores)), 4),
        "baseline_mean_shape_iou_64": round(mean_shape_iou(min(count, 96)), 4),
        "iou_by_category": {
            name: round(float(np.mean(values)), 3) for name, values in sorted(by_category.items())
        },
    }


def measure_text(model: TripoSR, count: int) -> dict[str, Any]:
    """Category and colour recognised in the meshes of ``count`` held-out captions."""
    trained = train_classifier()
    generations: list[Generation] = []
    tiles, seconds = [], []
    for index, item in enumerate(held_out_captions(count)):
        start = time.perf_counter()
        result = model.generate_from_text(item.caption, seed=index)
        seconds.append(time.perf_counter() - start)
        generations.append(judge(result, item, trained.classifier))
        if index < 24:
            tiles.append(np.asarray(result.preview(views=1, size=160)))
    _sheet(tiles, 8).save(PICTURES / "nano_from_text.png")
    wrong = [asdict(g) for g in generations if not (g.is_category_right and g.is_color_right)]
    return {
        "n": count,
        "category_right": round(float(np.mean([g.is_category_right for g in generations])), 4),
        "color_right": round(float(np.mean([g.is_color_right for g in generations])), 4),
        "baseline_guess_category": round(1 / 24, 4),
        "baseline_guess_color": round(1 / 11, 4),
        "classifier_accuracy_on_truth": round(trained.accuracy, 4),
        "median_seconds_prompt_to_mesh": round(float(np.median(seconds)), 3),
        "wrong": wrong,
    }


def _pair(picture: Image.Image, result: GenerationResult) -> Any:
    shown = picture.resize((160, 160), Image.Resampling.LANCZOS)
    return np.concatenate([np.asarray(shown), np.asarray(result.preview(views=1, size=160))], 1)


def _sheet(tiles: list[Any], columns: int) -> Image.Image:
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    full = [row for row in rows if row.shape == rows[0].shape]
    return Image.fromarray(np.concatenate(full, 0))


def main() -> None:
    """Measure, print and write; a part that is not measured keeps its last result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--captions", type=int, default=100)
    parser.add_argument("--part", choices=["both", "images", "text"], default="both")
    arguments = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "nano_quality.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["what"] = "nano checkpoints on held-out procedural objects and captions"
    with TripoSR(checkpoint="nano") as model:
        if arguments.part != "text":
            result["image_to_3d"] = {
                "machine": describe_machine(),
                **measure_reconstruction(model, arguments.images),
            }
        if arguments.part != "images":
            result["text_to_3d"] = {
                "machine": describe_machine(),
                **measure_text(model, arguments.captions),
            }
    print(json.dumps(result, indent=1))
    print(write_result("nano_quality", result))


if __name__ == "__main__":
    main()
