"""Activated density at the nodes of a lattice, in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from dream_cad.exceptions import GenerationError
from dream_cad.surface.field import (
    ImplicitField,
    LatticeField,
    ProgressCallback,
    device_of,
    lattice_axis,
    lattice_sampler,
    point_sampler,
)
from dream_cad.surface.triplane_field import accelerate

# exp(60) is 1e26: far inside whatever the level, and sums of such numbers stay finite in float32.
_MAX_EXPONENT = 60.0


def activate(raw: Tensor, bias: float) -> Tensor:
    """Return exp(raw + bias) in float32, bounded so that it stays finite.

    Raises:
        GenerationError: ``raw`` holds NaN.
    """
    density = torch.exp((raw.float() + bias).clamp_(max=_MAX_EXPONENT))
    if torch.isnan(density).any():
        raise GenerationError(
            "The field gave NaN.", hint="Where half precision overflowed, 'bf16' or 'fp32' helps."
        )
    return density


class NodeDensity:
    """Evaluates nodes of the lattice of one field and tells how far the work is.

    Args:
        field: the field.
        resolution: N, samples along an axis.
        threshold: level in activated density.
        chunk_size: nodes a query.
        progress: called for each chunk with (fraction, "surface").
        radius: half side of the cube that the lattice spans.
    """

    def __init__(
        self,
        field: ImplicitField,
        resolution: int,
        threshold: float,
        chunk_size: int,
        progress: ProgressCallback,
        radius: float,
    ) -> None:
        self.resolution = resolution
        self.threshold = threshold
        self.device = device_of(field)
        self._bias = field.density_bias
        self._chunk = chunk_size
        self._progress = progress
        axis = lattice_axis(resolution, radius, self.device)
        fast = accelerate(field)
        self._sample = lattice_sampler(fast, axis)
        self.is_exact = fast is field and not isinstance(field, LatticeField)
        self._sample_exactly = point_sampler(field, axis)

    def __call__(self, nodes: Tensor, span: tuple[float, float], *, exact: bool = False) -> Tensor:
        """Return the density (P,) of flat node numbers (P,) int64, x slowest.

        Args:
            nodes: (ix * N + iy) * N + iz.
            span: progress at the first and after the last node.
            exact: query the field's points, with the very arithmetic of the dense path.
        """
        density = torch.empty(len(nodes), dtype=torch.float32, device=self.device)
        size = self.resolution
        sample = self._sample_exactly if exact else self._sample
        for start in range(0, len(nodes), self._chunk):
            self._progress(span[0] + (span[1] - span[0]) * start / len(nodes), "surface")
            part = nodes[start : start + self._chunk]
            column = part // size
            raw = sample(column // size, column % size, part % size)
            density[start : start + len(part)] = activate(raw, self._bias)
        return density
