"""Quality of a nano Stable Fast 3D on held-out objects, measured like TripoSR's (nano_quality).

``python -m benchmarks.nano_textured_quality [--folder DIR] [--images 96] [--scored 48]`` writes
results/nano_textured_quality.json and docs/pictures/nano_textured.png. Baselines of the same run:
the best constant shape, the median roughness, and the more frequent metallic.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.environment import describe_machine, write_result
from benchmarks.nano_quality import PICTURES, mean_shape_iou
from dream_cad.checkpoints import nano_folder
from dream_cad.models.base import GenerationResult
from dream_cad.models.stable_fast_3d import StableFast3D
from dream_cad.models.stable_fast_3d.pipeline import Codes, StableFast3DPipeline
from dream_cad.models.stable_fast_3d.weights import load_network
from jobs.nano.catalogue import ROUGHNESS_METALLIC, Item, material_of
from jobs.nano.measure import f_score, grid_points, held_out_items, held_out_picture

_TILE = 160
_SHOWN = 24
_PAIRS_A_ROW = 4


def iou_of(pipeline: StableFast3DPipeline, codes: Codes, item: Item) -> float:
    """Intersection over union of predicted and true solid at 64³."""
    points = grid_points()
    field = pipeline.field(codes.planes)
    density = field.query(torch.from_numpy(points), "density")["density"][:, 0].numpy()
    inside = density > pipeline.config.isosurface_threshold
    truth = item.solid.distance(points) < 0
    return float((inside & truth).sum() / max((inside | truth).sum(), 1))


def measure(folder: Path, count: int, scored: int) -> dict[str, Any]:
    """Shape, material and a sheet of pictures."""
    pipeline = StableFast3DPipeline(load_network(folder))
    ious: dict[str, list[float]] = defaultdict(list)
    materials, scores, tiles = [], [], []
    with StableFast3D(checkpoint=folder, device="cpu") as model:
        for index, item in enumerate(held_out_items(count)):
            picture = held_out_picture(item, index)
            (codes,) = pipeline.encode([picture])
            ious[item.category].append(iou_of(pipeline, codes, item))
            truth = ROUGHNESS_METALLIC[material_of(item.caption)]
            materials.append((codes.roughness, truth[0], codes.metallic, truth[1]))
            if index < scored:
                result = model.generate_from_image(picture, texture_size=512)
                scores.append(f_score(result, item, index))
                if index < _SHOWN:
                    tiles.append(_pair(picture, result))
    rows = [np.concatenate(tiles[i : i + _PAIRS_A_ROW], 1) for i in range(0, _SHOWN, _PAIRS_A_ROW)]
    Image.fromarray(np.concatenate([row for row in rows if row.shape == rows[0].shape])).save(
        PICTURES / "nano_textured.png"
    )
    every = [value for values in ious.values() for value in values]
    return {
        "n": count,
        "mean_iou_64": round(float(np.mean(every)), 4),
        "median_iou_64": round(float(np.median(every)), 4),
        "p10_iou_64": round(float(np.quantile(every, 0.1)), 4),
        "mean_f_score_0.03": round(float(np.mean(scores)), 4),
        "baseline_mean_shape_iou_64": round(mean_shape_iou(min(count, 96)), 4),
        "iou_by_category": {k: round(float(np.mean(v)), 3) for k, v in sorted(ious.items())},
        "material": _material_facts(np.array(materials)),
    }


def _material_facts(found: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    roughness, true_roughness, metallic, true_metallic = found.T
    is_metal = true_metallic > 0.5
    return {
        "roughness_mean_error": round(float(np.abs(roughness - true_roughness).mean()), 4),
        "baseline_roughness_mean_error": round(
            float(np.abs(true_roughness - np.median(true_roughness)).mean()), 4
        ),
        "metallic_right": round(float(((metallic > 0.5) == is_metal).mean()), 4),
        "baseline_metallic_right": round(float(max(is_metal.mean(), 1 - is_metal.mean())), 4),
        "metallic_mean_of_metal": round(float(metallic[is_metal].mean()), 4),
        "metallic_mean_of_others": round(float(metallic[~is_metal].mean()), 4),
    }


def _pair(picture: Image.Image, result: GenerationResult) -> Any:
    shown = np.asarray(picture.convert("RGB").resize((_TILE, _TILE)))
    return np.concatenate([shown, np.asarray(result.preview(views=1, size=_TILE))], 1)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=nano_folder("stable-fast-3d"))
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--scored", type=int, default=48)
    arguments = parser.parse_args()
    if arguments.folder is None:
        raise SystemExit("No nano checkpoint is bundled; name a folder.")
    facts = measure(arguments.folder, arguments.images, arguments.scored)
    result = {"machine": describe_machine(), **facts}
    write_result("nano_textured_quality", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
