"""The field of one object: density, albedo, normals and offsets at points (spec section 8)."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from dream_cad.exceptions import ShapeError
from dream_cad.models.stable_fast_3d.decoder import MaterialMLP
from dream_cad.nn.triplane import sample_triplane

# Small chunks stay in a CPU's cache; a GPU wants many points at once.
CPU_CHUNK = 8_192
CUDA_CHUNK = 262_144


class SceneField:
    """The decoder's heads on one scene code.

    Args:
        planes: (3, C, H, W) float32 scene code of one object.
        decoder: takes 3 * C features; on the device of ``planes``.
        radius: half side of the box that the planes cover.

    Raises:
        ShapeError: the scene code has another shape.
    """

    def __init__(self, planes: Tensor, decoder: MaterialMLP, *, radius: float) -> None:
        if planes.ndim != 4 or planes.shape[0] != 3:
            raise ShapeError(f"The scene code has shape {tuple(planes.shape)}, not (3, C, H, W).")
        self.planes = planes
        self.decoder = decoder
        self.radius = radius

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on another device; the decoder's weights are copied, not moved."""
        decoder = copy.deepcopy(self.decoder).to(device)
        return type(self)(self.planes.to(device), decoder, radius=self.radius)

    @torch.no_grad()
    def query(self, points: Tensor, *heads: str) -> dict[str, Tensor]:
        """Return heads (P, channels) at points (P, 3) of the model frame, on the CPU.

        Args:
            points: float32, any device.
            *heads: density, features (albedo), perturb_normal (points inwards), vertex_offset.
        """
        device = self.planes.device
        chunk = CUDA_CHUNK if device.type == "cuda" else CPU_CHUNK
        found: dict[str, list[Tensor]] = {name: [] for name in heads}
        for part in torch.split(points, chunk):
            scaled = part.to(device)[None] / self.radius
            features = sample_triplane(self.planes[None], scaled, align_corners=True)[0]
            for name, values in self.decoder(features, *heads).items():
                found[name].append(values.cpu())
        return {name: torch.cat(values) for name, values in found.items()}
