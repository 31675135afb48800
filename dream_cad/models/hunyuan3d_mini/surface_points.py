"""Choose which surface points the ShapeVAE's encoder reads (spec section 6)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import ShapeError
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAEConfig

SHARP_LOADER_SCALE = 0.9999
PLAIN_LOADER_SCALE = 0.98


def normalize_vertices(
    vertices: NDArray[np.floating], scale: float = SHARP_LOADER_SCALE
) -> NDArray[np.floating]:
    """Centre the bounding box of (N, 3) vertices and scale its longest side to ``2 * scale``.

    Raises:
        ShapeError: the vertices have no extent.
    """
    low, high = vertices.min(0), vertices.max(0)
    extent = float((high - low).max())
    if not np.isfinite(extent) or extent <= 0:
        raise ShapeError("The mesh has no extent; a surface of finite size was expected.")
    scaled: NDArray[np.floating] = (vertices - 0.5 * (low + high)) * (2 * scale / extent)
    return scaled


def farthest_points(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Return indices (count,) of a farthest-point sample of (N, 3) points.

    Each next point is the farthest from all chosen ones; of equally far ones the first.
    """
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    distance = torch.full((points.shape[0],), torch.inf, device=points.device)
    current = torch.tensor(start, device=points.device)
    for index in range(count):
        chosen[index] = current
        offset = points - points[current]
        distance = torch.minimum(distance, offset.square().sum(-1))
        current = distance.argmax()
    return chosen


def select_points(
    surface: Tensor, config: ShapeVAEConfig, permutations: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the encoder's queries (B, N, 3 + F) and inputs (B, M, 3 + F).

    Args:
        surface: (B, random + sharp points, 3 + F), random ones first.
        config: sizes; the latents are shared out between the two parts by their size.
        permutations: of the random and of the sharp points; their first entries are kept.

    Raises:
        ShapeError: the surface does not hold ``pc_size + pc_sharpedge_size`` points.
    """
    sizes = (config.pc_size, config.pc_sharpedge_size)
    if surface.shape[1] != sum(sizes) or surface.shape[2] != 3 + config.point_feats:
        raise ShapeError(
            f"The surface has shape {tuple(surface.shape)}; "
            f"(B, {sum(sizes)}, {3 + config.point_feats}) was expected."
        )
    queries: list[Tensor] = []
    inputs: list[Tensor] = []
    for part, size, order in zip(
        torch.split(surface, list(sizes), dim=1), sizes, permutations, strict=True
    ):
        count = config.num_latents * size // sum(sizes)
        if count == 0:
            continue
        kept = part[:, order[: count * config.downsample_ratio]]
        picked = [row[farthest_points(row[:, :3], count)] for row in kept]
        queries.append(torch.stack(picked))
        inputs.append(kept)
    return torch.cat(queries, dim=1), torch.cat(inputs, dim=1)
