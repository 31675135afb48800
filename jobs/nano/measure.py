"""Measure nano checkpoints on objects and captions that training never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from dream_cad.models.base import GenerationResult
from dream_cad.models.triposr.pipeline import TripoSRPipeline
from jobs.nano.catalogue import CATEGORIES, COLORS, Item, make_item
from jobs.nano.dataset import HELD_OUT_SEED, picture_of
from jobs.nano.recognize import CategoryClassifier, mesh_points, recognize_color, surface_points
from jobs.nano.train_reconstruction import density_threshold_logit

IOU_GRID = 64
IOU_HALF_SIDE = 0.55
"""The grid covers a little more than the unit cube that holds the object."""

F_SCORE_DISTANCE = 0.03


@dataclass(frozen=True)
class Reconstruction:
    """How well one held-out picture became the object it shows."""

    category: str
    iou: float
    f_score: float


@dataclass(frozen=True)
class Generation:
    """What the judges saw in the mesh of one held-out caption."""

    caption: str
    category: str
    color: str
    seen_category: str
    seen_color: str

    @property
    def is_category_right(self) -> bool:
        """Whether the classifier names the caption's category."""
        return self.category == self.seen_category

    @property
    def is_color_right(self) -> bool:
        """Whether the dominant colour is the caption's."""
        return self.color == self.seen_color


def held_out_items(count: int) -> list[Item]:
    """Make ``count`` held-out items, categories in turn."""
    names = list(CATEGORIES)
    return [
        make_item(HELD_OUT_SEED + index, category=names[index % len(names)])
        for index in range(count)
    ]


def held_out_captions(count: int) -> list[Item]:
    """Make ``count`` held-out items whose categories and colours are both spread evenly."""
    names, colors = list(CATEGORIES), list(COLORS)
    return [
        make_item(
            HELD_OUT_SEED + 500_000 + index,
            category=names[index % len(names)],
            color=colors[(index * 7 + index // len(names)) % len(colors)],
        )
        for index in range(count)
    ]


def held_out_picture(item: Item, index: int) -> Image.Image:
    """Render the item as RGBA from a held-out view."""
    return Image.fromarray(picture_of(item, HELD_OUT_SEED + index))


def grid_points() -> NDArray[np.float32]:
    """Return the (64³, 3) cell centres on which IoU is counted."""
    step = 2 * IOU_HALF_SIDE / IOU_GRID
    axis = (np.arange(IOU_GRID) + 0.5) * step - IOU_HALF_SIDE
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return grid.reshape(-1, 3).astype(np.float32)


@torch.no_grad()
def volume_iou(pipeline: TripoSRPipeline, codes: torch.Tensor, item: Item) -> float:
    """Return the intersection over union of predicted and true solid at 64³."""
    points = grid_points()
    network = pipeline.network
    raw = torch.cat(
        [
            network.query(codes, part[None])[0][0]
            for part in torch.split(torch.from_numpy(points), 16384)
        ]
    )
    inside = raw.numpy() > density_threshold_logit(network.config)
    truth = item.solid.distance(points) < 0
    union = int(np.count_nonzero(inside | truth))
    return int(np.count_nonzero(inside & truth)) / max(union, 1)


def f_score(result: GenerationResult, item: Item, seed: int) -> float:
    """Return the F-score of mesh and true surface samples at ``F_SCORE_DISTANCE``."""
    rng = np.random.default_rng(seed)
    found = mesh_points(result.vertices, result.faces, rng)
    truth = surface_points(item, rng)
    precision = float(np.mean(KDTree(truth).query(found)[0] < F_SCORE_DISTANCE))
    recall = float(np.mean(KDTree(found).query(truth)[0] < F_SCORE_DISTANCE))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def judge(result: GenerationResult, item: Item, classifier: CategoryClassifier) -> Generation:
    """Let the classifiers look at a generated mesh.

    Args:
        result: mesh with vertex colours, exported frame.
        item: what the caption came from.
        classifier: trained by ``train_classifier``.
    """
    points = mesh_points(result.vertices, result.faces, np.random.default_rng(0))
    colors = result.vertex_colors
    seen_color = (
        "none" if colors is None else recognize_color(result.vertices, result.faces, colors)
    )
    return Generation(
        caption=item.caption,
        category=item.category,
        color=item.color,
        seen_category=classifier.classify(points),
        seen_color=seen_color,
    )
