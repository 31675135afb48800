"""Quality of a nano Stable Fast 3D on held-out objects, measured like TripoSR's (nano_quality).

``python -m benchmarks.nano_textured_quality [--folder DIR] [--images 96] [--scored 48]`` writes
results/nano_textured_quality.json and docs/pictures/nano_textured.png. Baselines of the same run:
the best constant shape, roughness and metallic. Material is measured on pictures that show it
(jobs/nano/shading.py); shape and colour on those and on the ones they were learnt from.
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
from numpy.typing import NDArray
from PIL import Image

from benchmarks.environment import describe_machine, write_result
from benchmarks.nano_quality import PICTURES, mean_shape_iou
from dream_cad.checkpoints import nano_folder
from dream_cad.models.base import GenerationResult
from dream_cad.models.stable_fast_3d import StableFast3D
from dream_cad.models.stable_fast_3d.options import StableFast3DOptions
from dream_cad.models.stable_fast_3d.pipeline import Codes, StableFast3DPipeline
from dream_cad.models.stable_fast_3d.preprocess import crop_foreground
from dream_cad.models.stable_fast_3d.weights import load_network
from jobs.nano.catalogue import ROUGHNESS_METALLIC, Item, material_of
from jobs.nano.dataset import HELD_OUT_SEED
from jobs.nano.material_data import drawn_material, material_picture
from jobs.nano.measure import f_score, grid_points, held_out_items, held_out_picture
from jobs.nano.recognize import surface_points

Values = NDArray[np.float64]

_TILE = 160
_SHOWN = 24
_PAIRS_A_ROW = 4
_LOOKS = 4


def iou_of(pipeline: StableFast3DPipeline, codes: Codes, item: Item) -> float:
    """Intersection over union of predicted and true solid at 64³."""
    points = grid_points()
    field = pipeline.field(codes.planes)
    density = field.query(torch.from_numpy(points), "density")["density"][:, 0].numpy()
    inside = density > pipeline.config.isosurface_threshold
    truth = item.solid.distance(points) < 0
    return float((inside & truth).sum() / max((inside | truth).sum(), 1))


def color_error_of(pipeline: StableFast3DPipeline, codes: Codes, item: Item, seed: int) -> float:
    """Mean absolute error, of 1, of the colour at points of the true surface."""
    points = surface_points(item, np.random.default_rng(seed))
    found = pipeline.field(codes.planes).query(torch.from_numpy(points), "features")
    return float(np.abs(found["features"].numpy() - item.solid.color(points)).mean())


def measure(folder: Path, count: int, scored: int) -> dict[str, Any]:
    """Shape, colour, material and two sheets of pictures."""
    pipeline = StableFast3DPipeline(load_network(folder))
    items = held_out_items(count)
    with StableFast3D(checkpoint=folder, device="cpu") as model:
        tiles, scores = [], []
        for index, item in enumerate(items[:scored]):
            picture = held_out_picture(item, index)
            result = model.generate_from_image(picture, texture_size=512)
            scores.append(f_score(result, item, index))
            if index < _SHOWN:
                tiles.append(_pair(picture, result))
    rows = [np.concatenate(tiles[i : i + _PAIRS_A_ROW], 1) for i in range(0, _SHOWN, _PAIRS_A_ROW)]
    Image.fromarray(np.concatenate([row for row in rows if row.shape == rows[0].shape])).save(
        PICTURES / "nano_textured.png"
    )
    pictures = [held_out_picture(item, index) for index, item in enumerate(items)]
    facts = reconstruction_facts(pipeline, items, pictures)
    own = [
        Image.fromarray(material_picture(item, HELD_OUT_SEED + index))
        for index, item in enumerate(items)
    ]
    return {
        "n": count,
        **facts,
        "mean_f_score_0.03": round(float(np.mean(scores)), 4),
        "baseline_mean_shape_iou_64": round(mean_shape_iou(min(count, 96)), 4),
        "from_pictures_that_show_material": reconstruction_facts(pipeline, items, own),
        "material": material_facts(pipeline, count),
        "material_in_the_other_stages_look": plain_material_facts(pipeline, items, pictures),
    }


def reconstruction_facts(
    pipeline: StableFast3DPipeline, items: list[Item], pictures: list[Image.Image]
) -> dict[str, Any]:
    """Intersection over union and colour error from one picture of each item."""
    ious: dict[str, list[float]] = defaultdict(list)
    errors = []
    for index, (item, picture) in enumerate(zip(items, pictures, strict=True)):
        (codes,) = pipeline.encode([picture])
        ious[item.category].append(iou_of(pipeline, codes, item))
        errors.append(color_error_of(pipeline, codes, item, index))
    every = [value for values in ious.values() for value in values]
    return {
        "mean_iou_64": round(float(np.mean(every)), 4),
        "median_iou_64": round(float(np.median(every)), 4),
        "p10_iou_64": round(float(np.quantile(every, 0.1)), 4),
        "mean_color_error": round(float(np.mean(errors)), 4),
        "iou_by_category": {k: round(float(np.mean(v)), 3) for k, v in sorted(ious.items())},
    }


def material_facts(pipeline: StableFast3DPipeline, count: int) -> dict[str, float]:
    """Roughness and metallic of held-out objects in ``_LOOKS`` drawn materials and lights each."""
    found, truth = [], []
    for index, item in enumerate(held_out_items(count)):
        seed = HELD_OUT_SEED + index
        for look in range(_LOOKS):
            picture = Image.fromarray(material_picture(item, seed, look=look))
            (codes,) = pipeline.encode([_as_given(picture)])
            material = drawn_material(seed, look)
            found.append((codes.roughness, codes.metallic))
            truth.append((material.roughness, material.metallic))
    return compared(np.array(found), np.array(truth))


def plain_material_facts(
    pipeline: StableFast3DPipeline, items: list[Item], pictures: list[Image.Image]
) -> dict[str, float]:
    """The same from pictures with the little highlight of the other stages; truth is the word's."""
    found = []
    for picture in pictures:
        (codes,) = pipeline.encode([picture])
        found.append((codes.roughness, codes.metallic))
    truth = [ROUGHNESS_METALLIC[material_of(item.caption)] for item in items]
    return compared(np.array(found), np.array(truth))


def _as_given(picture: Image.Image) -> Image.Image:
    """Cut a picture out as the model does with a photo."""
    return crop_foreground(picture, StableFast3DOptions().foreground_ratio)


def compared(found: Values, truth: Values) -> dict[str, float]:
    """Compare (N, 2) values with the truth, beside the best constant answer (the median)."""
    facts: dict[str, float] = {"pictures": len(found)}
    for column, name in enumerate(("roughness", "metallic")):
        value, true = found[:, column], truth[:, column]
        facts |= {
            f"{name}_mean_error": round(float(np.abs(value - true).mean()), 4),
            f"baseline_{name}_mean_error": round(float(np.abs(true - np.median(true)).mean()), 4),
            f"{name}_correlation": round(float(np.corrcoef(value, true)[0, 1]), 4),
        }
    is_metal = truth[:, 1] > 0.5
    right = (found[:, 1] > 0.5) == is_metal
    return facts | {
        "metallic_right": round(float(right.mean()), 4),
        "baseline_metallic_right": round(float(max(is_metal.mean(), 1 - is_metal.mean())), 4),
        "roughness_mean_error_of_metal": round(float(np.abs(found - truth)[is_metal, 0].mean()), 4),
        "roughness_mean_error_of_others": round(
            float(np.abs(found - truth)[~is_metal, 0].mean()), 4
        ),
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
