"""Recognise category and colour of a mesh, to measure text → 3D against its prompt.

The classifier sees surface points only, so any mesh can be judged; it is trained on ground-truth
objects of other seeds than those that are measured, and has never seen a generated mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.nano.catalogue import CATEGORIES, COLORS, Item, make_item

GRID = 24
CLASSIFIER_SEED = 20_000_000
"""Items from this seed on train and test the classifier; the networks never see them."""

_NAMES = list(CATEGORIES)
_POINTS = 4096


def surface_points(
    item: Item, rng: np.random.Generator, count: int = _POINTS
) -> NDArray[np.float32]:
    """Draw (count, 3) points on the item's surface in the model frame (z up, front +x)."""
    seeds = rng.uniform(-0.5, 0.5, (3 * count, 3)).astype(np.float32)
    moved = item.solid.project(seeds)
    moved = moved[np.abs(item.solid.distance(moved)) < 2e-3]
    chosen: NDArray[np.float32] = moved[rng.integers(0, len(moved), count)]
    return chosen


def mesh_points(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw (4096, 3) points on a mesh in the exported frame; returns them in the model frame."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=-1)
    chosen = corners[rng.choice(len(faces), _POINTS, p=area / area.sum())]
    u, v = rng.random((2, _POINTS, 1)).astype(np.float32)
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    points = chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])
    model_frame: NDArray[np.float32] = points[:, [2, 0, 1]].astype(np.float32)
    return model_frame


def occupancy_of_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mark the cells of a GRID³ grid over the points' cube, largest side one; (1, G, G, G)."""
    low, high = points.min(0), points.max(0)
    centered = (points - 0.5 * (low + high)) / (high - low).max()
    index = np.clip(((centered + 0.54) / 1.08 * GRID).astype(int), 0, GRID - 1)
    grid = np.zeros((1, GRID, GRID, GRID), np.float32)
    grid[0, index[:, 0], index[:, 1], index[:, 2]] = 1.0
    return grid


class CategoryClassifier(nn.Module):
    """A small 3D convolutional network over surface occupancy."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 12, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(12, 24, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(24, 48, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(48 * (GRID // 8) ** 3, len(_NAMES)),
        )

    def forward(self, grids: Tensor) -> Tensor:
        """Return category logits (B, C) of occupancy grids (B, 1, G, G, G)."""
        logits: Tensor = self.body(grids)
        return logits

    @torch.no_grad()
    def classify(self, points: NDArray[np.float32]) -> str:
        """Name the category of (P, 3) surface points in the model frame."""
        self.eval()
        grid = torch.from_numpy(occupancy_of_points(points))[None]
        return _NAMES[int(self(grid).argmax())]


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and its accuracy on ground-truth items it was not trained on."""

    classifier: CategoryClassifier
    accuracy: float


def _grids(first_seed: int, count: int) -> tuple[Tensor, Tensor]:
    grids, labels = [], []
    for seed in range(first_seed, first_seed + count):
        item = make_item(seed)
        rng = np.random.default_rng(seed)
        points = surface_points(item, rng)
        points = points + rng.normal(0, 0.012, points.shape).astype(np.float32)
        grids.append(occupancy_of_points(points))
        labels.append(_NAMES.index(item.category))
    return torch.from_numpy(np.stack(grids)), torch.tensor(labels)


def train_classifier(items: int = 1200, epochs: int = 10) -> TrainedClassifier:
    """Train the category classifier; seeded, about a minute on one core."""
    torch.manual_seed(0)
    grids, labels = _grids(CLASSIFIER_SEED, items)
    classifier = CategoryClassifier().train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.02)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(items), 64):
            loss = F.cross_entropy(classifier(grids[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    test_grids, test_labels = _grids(CLASSIFIER_SEED + items, max(items // 8, 1))
    classifier.eval()
    with torch.no_grad():
        accuracy = (classifier(test_grids).argmax(1) == test_labels).float().mean().item()
    return TrainedClassifier(classifier, accuracy)


def recognize_color(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], colors: NDArray[np.uint8]
) -> str:
    """Name the palette colour that covers the most surface area.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int32.
        colors: (V, 3) uint8 sRGB of the vertices.
    """
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=-1)
    face_colors = colors[faces].mean(1) / 255.0
    names = list(COLORS)
    palette = np.array([COLORS[name][0] for name in names])
    distance = np.linalg.norm(face_colors[:, None] - palette[None], axis=-1)
    votes = np.bincount(distance.argmin(1), weights=area, minlength=len(names))
    return names[int(votes.argmax())]
