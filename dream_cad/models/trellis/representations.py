"""What the decoders return: Gaussian splats and a radiance field (spec, sections 11a and 11b)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

SH_0 = 0.28209479177387814
_TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class GaussianSettings:
    """The ``representation_config`` of the published Gaussian decoder."""

    num_gaussians: int = 32
    voxel_size: float = 1.5
    rotation_lr: float = 0.1
    filter_2d: float = 0.1
    filter_3d: float = 0.0009
    scaling_bias: float = 0.004
    opacity_bias: float = 0.1

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read the published JSON section."""
        return cls(
            num_gaussians=int(data["num_gaussians"]),
            voxel_size=float(data["voxel_size"]),
            rotation_lr=float(data["lr"]["_rotation"]),
            filter_2d=float(data["2d_filter_kernel_size"]),
            filter_3d=float(data["3d_filter_kernel_size"]),
            scaling_bias=float(data["scaling_bias"]),
            opacity_bias=float(data["opacity_bias"]),
        )


def radical_inverse(base: int, count: int) -> list[float]:
    """Van der Corput sequence of a base."""
    values = []
    for index in range(count):
        value, digit = 0.0, 1.0 / base
        while index:
            index, rest = divmod(index, base)
            value += rest * digit
            digit /= base
        values.append(value)
    return values


def offset_perturbation(count: int, voxel_size: float) -> Tensor:
    """Hammersley points as raw offsets (count, 3), before the tanh."""
    axes = ([i / count for i in range(count)], radical_inverse(2, count), radical_inverse(3, count))
    points = torch.tensor(list(zip(*axes, strict=True)), dtype=torch.float32)
    return torch.atanh((2 * points - 1) / voxel_size)


@dataclass(frozen=True)
class Gaussians:
    """Splats with raw attributes; the properties are what a renderer uses.

    Attributes:
        xyz: (G, 3) centres in [0, 1], z up; the world is xyz - 0.5.
        features_dc: (G, 1, 3) spherical harmonics of degree 0.
        raw_scaling: (G, 3).
        raw_rotation: (G, 4) wxyz.
        raw_opacity: (G, 1).
        settings: biases and filter of the activations.
    """

    xyz: Tensor
    features_dc: Tensor
    raw_scaling: Tensor
    raw_rotation: Tensor
    raw_opacity: Tensor
    settings: GaussianSettings

    @classmethod
    def from_head(
        cls,
        coords: Tensor,
        feats: Tensor,
        perturbation: Tensor,
        settings: GaussianSettings,
        resolution: int,
    ) -> Self:
        """Split the decoder's channels (N, 14 n) of voxels (N, 3)."""
        n = settings.num_gaussians
        xyz, dc, scaling, rotation, opacity = torch.split(
            feats, [3 * n, 3 * n, 3 * n, 4 * n, n], dim=1
        )
        offset = torch.tanh(xyz.view(-1, n, 3) + perturbation)
        centres = (coords.float()[:, None] + 0.5) / resolution
        return cls(
            (centres + offset * (0.5 * settings.voxel_size / resolution)).flatten(0, 1),
            dc.reshape(-1, 1, 3),
            scaling.reshape(-1, 3),
            rotation.reshape(-1, 4) * settings.rotation_lr,
            opacity.reshape(-1, 1),
            settings,
        )

    @property
    def positions(self) -> Tensor:
        """(G, 3) centres in the world, in [-0.5, 0.5] but for small offsets, z up."""
        return self.xyz - 0.5

    @property
    def scales(self) -> Tensor:
        """(G, 3) standard deviations in world units."""
        bias = self.settings.scaling_bias
        start = bias + math.log(-math.expm1(-bias))
        return (F.softplus(self.raw_scaling + start) ** 2 + self.settings.filter_3d**2).sqrt()

    @property
    def rotations(self) -> Tensor:
        """(G, 4) unit quaternions wxyz."""
        identity = torch.tensor((1.0, 0, 0, 0), device=self.xyz.device)
        return F.normalize(self.raw_rotation + identity, dim=-1)

    @property
    def opacities(self) -> Tensor:
        """(G, 1) in (0, 1)."""
        bias = self.settings.opacity_bias
        return torch.sigmoid(self.raw_opacity + math.log(bias / (1 - bias)))

    @property
    def colors(self) -> Tensor:
        """(G, 3) RGB, not negative."""
        return (0.5 + SH_0 * self.features_dc[:, 0]).clamp(min=0)

    def rotation_matrices(self) -> Tensor:
        """(G, 3, 3)."""
        w, x, y, z = self.rotations.unbind(-1)
        rows = (
            torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), -1),
            torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), -1),
            torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), -1),
        )
        return torch.stack(rows, dim=-2)

    def covariances(self) -> Tensor:
        """(G, 3, 3) world covariances R diag(s^2) R^T."""
        scaled = self.rotation_matrices() * self.scales[:, None]
        return scaled @ scaled.transpose(1, 2)

    def ply_table(self) -> NDArray[np.float32]:
        """(G, 17) columns of a 3DGS PLY, y up (``PLY_COLUMNS`` names them)."""
        matrices = _TO_Y_UP @ self.rotation_matrices().double().cpu().numpy()
        quaternions = Rotation.from_matrix(matrices).as_quat()[:, [3, 0, 1, 2]]
        largest = np.abs(quaternions).argmax(axis=1)
        quaternions *= np.sign(np.take_along_axis(quaternions, largest[:, None], axis=1))
        places = self.positions.cpu().numpy() @ _TO_Y_UP.T
        opacity = self.opacities
        logits = torch.log(opacity / (1 - opacity)).cpu().numpy()
        scales = self.scales.log().cpu().numpy()
        colors = self.features_dc[:, 0].cpu().numpy()
        parts = (places, np.zeros_like(places), colors, logits, scales, quaternions)
        return np.concatenate(parts, axis=1).astype(np.float32)


PLY_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass(frozen=True)
class RadianceField:
    """Radiance field as rank-R trivectors in voxels.

    Attributes:
        trivec: (N, R, 3, D) samples along each axis.
        density: (N, R).
        features_dc: (N, R, 1, 3).
        position: (N, 3) centres in [0, 1], z up.
        depth: (N, 1) octree level of the voxels: their side is 2 ** -depth.
    """

    trivec: Tensor
    density: Tensor
    features_dc: Tensor
    position: Tensor
    depth: Tensor

    @classmethod
    def from_head(cls, coords: Tensor, feats: Tensor, rank: int, dim: int, resolution: int) -> Self:
        """Split the decoder's channels (N, R (3 D + 4)) of voxels (N, 3)."""
        trivec, density, dc = torch.split(feats, [rank * 3 * dim, rank, rank * 3], dim=1)
        level = int(math.log2(resolution))
        return cls(
            trivec.reshape(-1, rank, 3, dim) + 1,
            density,
            dc.reshape(-1, rank, 1, 3),
            (coords.float() + 0.5) / resolution,
            torch.full((len(coords), 1), level, dtype=torch.uint8, device=coords.device),
        )
