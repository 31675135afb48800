"""Ground truth from the procedural objects: a picture to begin with and the mesh it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dream_cad.benchmark.suites import SuiteCase, SuiteName
from dream_cad.mesh.data import MeshData
from dream_cad.surface.marching import march
from jobs.nano.catalogue import CATEGORIES, Item
from jobs.nano.measure import held_out_items, held_out_picture

RESOLUTION = 112
TRUTH_CASES: dict[SuiteName, int] = {"smoke": 2, "standard": len(CATEGORIES), "stress": 96}
_HALF_SIDE = 0.53  # a little more than half of the unit cube that holds every object


@dataclass(frozen=True)
class GroundTruth:
    """An object that no checkpoint was trained on.

    Attributes:
        caption: a prompt that describes it.
        picture: RGBA render, 128 x 128.
        mesh: its surface in the exported frame, closed, with colours per vertex.
    """

    caption: str
    picture: Image.Image
    mesh: MeshData


def truth_cases(suite: SuiteName) -> list[SuiteCase]:
    """Return the cases of a suite that begin with a picture of a held-out object."""
    return [
        SuiteCase(f"truth-{index}", item.caption, "ground-truth", (item.category,), truth=index)
        for index, item in enumerate(held_out_items(TRUTH_CASES[suite]))
    ]


def ground_truth(index: int) -> GroundTruth:
    """Make the held-out object ``index``; the same number gives the same object."""
    item = held_out_items(index + 1)[index]
    return GroundTruth(item.caption, held_out_picture(item, index), truth_mesh(item))


def truth_mesh(item: Item, resolution: int = RESOLUTION) -> MeshData:
    """Mesh an object's signed distance on ``resolution``³ nodes."""
    axis = np.linspace(-_HALF_SIDE, _HALF_SIDE, resolution, dtype=np.float32)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = -item.solid.distance(nodes).reshape(resolution, resolution, resolution)
    spacing = 2 * _HALF_SIDE / (resolution - 1)
    surface = march(inside, 0.0, start=(0, 0, 0), spacing=spacing, radius=_HALF_SIDE)
    colors = np.clip(item.solid.color(surface.vertices) * 255, 0, 255)
    return MeshData(
        vertices=np.ascontiguousarray(surface.vertices[:, [1, 2, 0]]),  # the exported frame
        faces=surface.faces,
        vertex_colors=np.rint(colors).astype(np.uint8),
    )
