"""The radiance field that score distillation optimises: a hash grid and two small networks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PRIMES = (1, 2_654_435_761, 805_459_861)
_TABLE_INIT = 1e-4


@dataclass(frozen=True)
class HashGridConfig:
    """Sizes of the multi-resolution grid; the defaults are MVDream-threestudio's."""

    n_levels: int = 16
    n_features_per_level: int = 2
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 1.447269237440378


@dataclass(frozen=True)
class Level:
    """One level: its scale, vertices a side, and where its entries lie in the table."""

    scale: float
    resolution: int
    entries: int
    offset: int

    @property
    def is_dense(self) -> bool:
        """Whether every vertex has an entry of its own."""
        return self.resolution**3 <= self.entries


def grid_levels(config: HashGridConfig) -> list[Level]:
    """Return the levels, in tiny-cuda-nn's layout."""
    levels, offset = [], 0
    for index in range(config.n_levels):
        scale = config.base_resolution * config.per_level_scale**index - 1.0
        resolution = math.ceil(scale) + 1
        entries = min(2**config.log2_hashmap_size, -(-(resolution**3) // 8) * 8)
        levels.append(Level(scale, resolution, entries, offset))
        offset += entries
    return levels


class HashGrid(nn.Module):
    """Trilinear features of points at several resolutions.

    Args:
        config: sizes.
    """

    def __init__(self, config: HashGridConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = grid_levels(config)
        last = self.levels[-1]
        count = (last.offset + last.entries) * config.n_features_per_level
        self.params = nn.Parameter(torch.empty(count).uniform_(-_TABLE_INIT, _TABLE_INIT))

    @property
    def width(self) -> int:
        """Features of a point."""
        return self.config.n_levels * self.config.n_features_per_level

    def forward(self, points: Tensor) -> Tensor:
        """Map points (P, 3) in [0, 1] to features (P, levels * features)."""
        table = self.params.view(-1, self.config.n_features_per_level)
        return torch.cat([_interpolate(table, points, level) for level in self.levels], dim=1)


def _interpolate(table: Tensor, points: Tensor, level: Level) -> Tensor:
    at = points * level.scale + 0.5
    floor = at.detach().floor()
    part = at - floor
    corner = torch.tensor(
        [[i >> axis & 1 for axis in range(3)] for i in range(8)], device=points.device
    )
    vertices = floor.long()[:, None] + corner  # (P, 8, 3)
    weights = torch.where(corner.bool(), part[:, None], 1 - part[:, None]).prod(dim=2)
    features = table[_entry(vertices, level) + level.offset]
    return (weights[..., None] * features).sum(dim=1)


def _entry(vertices: Tensor, level: Level) -> Tensor:
    """Return the entry (...,) of vertices (..., 3): in rows where they fit, else hashed."""
    x, y, z = vertices.unbind(-1)
    if level.is_dense:
        index = x + y * level.resolution + z * level.resolution**2
    else:
        index = (x * _PRIMES[0]) ^ (y * _PRIMES[1]) ^ (z * _PRIMES[2])
        index = index & 0xFFFFFFFF
    return index % level.entries


class FieldMLP(nn.Module):
    """Linear layers without bias, ReLU between them; keys ``layers.0``, ``layers.2``, ...

    Args:
        widths: channels in, of the hidden layers, and out.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (P, in) to (P, out)."""
        out: Tensor = self.layers(x)
        return out


@dataclass(frozen=True)
class FieldConfig:
    """The field's sizes and start; the defaults are MVDream-threestudio's."""

    grid: HashGridConfig = HashGridConfig()
    neurons: int = 64
    radius: float = 1.0
    blob_scale: float = 10.0
    blob_std: float = 0.5


class RadianceField(nn.Module):
    """Density and colour in the box [-radius, radius]^3; z up, front +x.

    Args:
        config: sizes. The density starts as a blob, so that there is something to shape.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.config = config
        self.encoding = HashGrid(config.grid)
        width = self.encoding.width
        self.density_network = FieldMLP([width, config.neurons, 1])
        self.feature_network = FieldMLP([width, config.neurons, 3])

    def encode(self, points: Tensor) -> Tensor:
        """Map points (P, 3) of the box to grid features."""
        out: Tensor = self.encoding((points / self.config.radius + 1) / 2)
        return out

    def density_of(self, points: Tensor, encoded: Tensor) -> Tensor:
        """Return the density (P, 1), not negative."""
        blob = 1 - points.norm(dim=1, keepdim=True) / self.config.blob_std
        raw: Tensor = self.density_network(encoded)
        density: Tensor = F.softplus(raw + self.config.blob_scale * blob)
        return density

    def density(self, points: Tensor) -> Tensor:
        """Return the density (P, 1) at points (P, 3)."""
        return self.density_of(points, self.encode(points))

    def features(self, points: Tensor) -> Tensor:
        """Return the colour features (P, 3); the colour is their sigmoid."""
        out: Tensor = self.feature_network(self.encode(points))
        return out

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return density (P, 1) and colour (P, 3) in [0, 1] at points (P, 3)."""
        encoded = self.encode(points)
        return self.density_of(points, encoded), self.feature_network(encoded).sigmoid()

    def with_normals(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return density (P, 1), colour (P, 3) and unit normals (P, 3) at points (P, 3).

        Normals point to where the density falls fastest; gradients flow through them too.
        """
        is_training = torch.is_grad_enabled()
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            density, color = self(at)
            (slope,) = torch.autograd.grad(density.sum(), at, create_graph=is_training)
        return density, color, -F.normalize(slope, dim=1)


class Background(nn.Module):
    """What rays see behind the object: a small network of their direction."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FieldMLP([9, 16, 16, 3])

    def forward(self, directions: Tensor) -> Tensor:
        """Map unit directions (..., 3) to colours (..., 3)."""
        raw: Tensor = self.network(spherical_harmonics(directions))
        return raw.sigmoid()


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Return the 9 real harmonics of bands 0 to 2 for unit directions (..., 3)."""
    x, y, z = directions.unbind(-1)
    one = torch.full_like(x, 0.28209479177387814)
    return torch.stack(
        [
            one,
            -0.48860251190291987 * y,
            0.48860251190291987 * z,
            -0.48860251190291987 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575755997 * z * z - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (x * x - y * y),
        ],
        dim=-1,
    )
