"""The density of a triplane, with the exact short cuts of the TripoSR spec, section 17.

The first layer is linear in the concatenated features and bilinear sampling is linear too. So each
plane is projected through its third of that layer once, and on a lattice the three projected planes
are resampled once to (N, N, hidden). The first hidden pre-activation of node (i, j, k) is then

    A[i, j] + B[i, k] + C[j, k] + bias

with no interpolation and no wide features per point. Of the last layer only the density's row is
computed. Everything is float32: exp of half precision overflows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_cad.exceptions import ShapeError
from dream_cad.surface.field import ImplicitField, LatticeField, LatticeSampler

Layer = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,) of a linear layer."""

# Axes of the three planes: the first runs along W, the second along H (spec, section 7).
_PLANE_AXES = ((0, 1), (0, 2), (1, 2))


class TriplaneDensity:
    """Raw density of three feature planes and a SiLU network.

    Args:
        planes: (3, C, H, W), ordered xy, xz, yz.
        layers: at least two; SiLU lies between them. The first takes 3 * C features, plane-major;
            row 0 of the last is the raw density.
        radius: half side of the box that the planes cover.
        density_bias: added to the raw density before ``exp``.

    Raises:
        ShapeError: shapes do not fit.
    """

    def __init__(
        self, planes: Tensor, layers: Sequence[Layer], *, radius: float, density_bias: float
    ) -> None:
        if planes.ndim != 4 or planes.shape[0] != 3:
            raise ShapeError(f"Planes have shape {tuple(planes.shape)}; expected (3, C, H, W).")
        if len(layers) < 2 or layers[0][0].shape[1] != 3 * planes.shape[1]:
            raise ShapeError(
                f"The first of {len(layers)} layers takes {layers[0][0].shape[1:]} features; "
                f"expected two layers or more and {3 * planes.shape[1]} features."
            )
        self.radius = radius
        self.density_bias = density_bias
        self.device = planes.device
        first, *hidden, last = [(w.float(), b.float()) for w, b in layers]
        self._first_bias = first[1]
        self._hidden = hidden
        self._last = (last[0][:1], last[1][:1])
        weights = first[0].view(len(first[0]), 3, planes.shape[1])
        self._projected = torch.einsum("opc,pchw->pohw", weights, planes.float())

    def raw_density(self, points: Tensor) -> Tensor:
        """Return the raw density (P,) at points (P, 3) of the model frame."""
        q = points.float() / self.radius
        grid = torch.stack([q[:, axes] for axes in _PLANE_AXES])[:, None]
        sampled = self._sample(grid).sum(dim=0)[:, 0]
        return self._decode((sampled.T + self._first_bias).contiguous())

    def on_lattice(self, axis: Tensor) -> LatticeSampler:
        """Resample the projected planes at the (N,) coordinates ``axis`` of every axis."""
        q = axis.float() / self.radius
        size = len(q)
        # [a, b] -> (first coordinate a, second coordinate b)
        pair = torch.stack(torch.meshgrid(q, q, indexing="ij"), dim=-1)
        tables = self._sample(pair.expand(3, size, size, 2)).permute(0, 2, 3, 1).contiguous()
        xy, xz, yz = tables.view(3, size * size, -1).unbind()
        xy += self._first_bias

        def sample(i: Tensor, j: Tensor, k: Tensor) -> Tensor:
            hidden = xy.index_select(0, i * size + j)
            hidden += xz.index_select(0, i * size + k)
            hidden += yz.index_select(0, j * size + k)
            return self._decode(hidden)

        return sample

    def _sample(self, grid: Tensor) -> Tensor:
        """Sample the projected planes (3, hidden, A, B) at grid (3, A, B, 2)."""
        return F.grid_sample(
            self._projected, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )

    def _decode(self, hidden: Tensor) -> Tensor:
        """Finish the network from the first pre-activation (P, hidden), which is overwritten."""
        spare = torch.empty_like(hidden) if self._is_uniform(hidden) else None
        for weight, bias in self._hidden:
            F.silu(hidden, inplace=True)
            if spare is None:
                hidden = F.linear(hidden, weight, bias)
            else:  # two buffers that stay in the cache, instead of fresh pages for every layer
                torch.addmm(bias, hidden, weight.T, out=spare)
                hidden, spare = spare, hidden
        F.silu(hidden, inplace=True)
        return F.linear(hidden, *self._last)[:, 0]

    def _is_uniform(self, hidden: Tensor) -> bool:
        width = hidden.shape[1]
        return all(weight.shape == (width, width) for weight, _ in self._hidden)


def accelerate(field: ImplicitField) -> ImplicitField:
    """Return an equal field with a fast lattice where this module knows the field's kind.

    That is a field with tensor ``planes`` (3, C, H, W) and a ``decoder`` whose ``layers`` alternate
    linear layers with bias and SiLU (the TripoSR spec, section 7). Other fields, and those that
    have a lattice of their own, come back as they are.
    """
    planes = getattr(field, "planes", None)
    layers = getattr(getattr(field, "decoder", None), "layers", None)
    if isinstance(field, LatticeField) or not isinstance(planes, Tensor):
        return field
    linears = _linear_layers(layers) if isinstance(layers, nn.Sequential) else []
    if len(linears) < 2:
        return field
    return TriplaneDensity(planes, linears, radius=field.radius, density_bias=field.density_bias)


def _linear_layers(layers: nn.Sequential) -> list[Layer]:
    """Weights and biases if linear layers and SiLU alternate; otherwise an empty list."""
    kinds = [nn.SiLU if number % 2 else nn.Linear for number in range(len(layers))]
    if len(layers) % 2 == 0 or not all(
        isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True)
    ):
        return []
    return [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]
