"""The record that everything about Gaussian splats works on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import GenerationError, ShapeError

_WIDTH = 14
_MIN_NORM = 1e-12
PRUNE_OPACITY = 0.005
"""Splats fainter than this are left out of files and meshes (3DGS, LGM)."""


@dataclass(frozen=True)
class GaussianCloud:
    """Gaussians as they are seen: activated, without view-dependent colour.

    Attributes:
        positions: (G, 3) float32, any frame.
        opacities: (G,) float32 in [0, 1].
        scales: (G, 3) float32, standard deviations along the own axes.
        rotations: (G, 4) float32 quaternions w, x, y, z.
        colors: (G, 3) float32 sRGB in [0, 1].
    """

    positions: NDArray[np.float32]
    opacities: NDArray[np.float32]
    scales: NDArray[np.float32]
    rotations: NDArray[np.float32]
    colors: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.positions)
        expected = ((count, 3), (count,), (count, 3), (count, 4), (count, 3))
        for item, shape in zip(fields(self), expected, strict=True):
            values: NDArray[Any] = getattr(self, item.name)
            if values.shape != shape:
                raise ShapeError(f"{item.name} have shape {values.shape}; {shape} was expected.")
            if not np.isfinite(values).all():
                raise GenerationError(
                    f"The {item.name} of the Gaussians are not finite.",
                    hint="Where half precision overflowed, precision 'bf16' or 'fp32' helps.",
                )

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def from_packed(cls, rows: NDArray[np.floating[Any]]) -> Self:
        """Read (G, 14): position 3, opacity 1, scale 3, quaternion 4, colour 3."""
        if rows.ndim != 2 or rows.shape[1] != _WIDTH:
            raise ShapeError(f"Gaussians have shape {rows.shape}; (G, {_WIDTH}) was expected.")
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        return cls(rows[:, :3], rows[:, 3], rows[:, 4:7], rows[:, 7:11], rows[:, 11:])

    def to_packed(self) -> NDArray[np.float32]:
        """Inverse of ``from_packed``."""
        return np.concatenate(
            [self.positions, self.opacities[:, None], self.scales, self.rotations, self.colors],
            axis=1,
        )

    def select(self, index: NDArray[Any]) -> Self:
        """Return the Gaussians that a mask or index names."""
        return type(self)(*(getattr(self, item.name)[index] for item in fields(self)))

    def pruned(self, min_opacity: float = PRUNE_OPACITY) -> Self:
        """Return those that are at least so opaque."""
        return self.select(self.opacities >= min_opacity)

    def rotation_matrices(self) -> NDArray[np.float64]:
        """Return (G, 3, 3): the columns are the Gaussians' axes."""
        q = self.rotations.astype(np.float64)
        q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), _MIN_NORM)
        w, x, y, z = q.T
        rows = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)

    def covariances(self) -> NDArray[np.float64]:
        """Return (G, 3, 3): R diag(scale)^2 R^T."""
        axes = self.rotation_matrices() * self.scales[:, None, :].astype(np.float64)
        return np.asarray(axes @ axes.transpose(0, 2, 1))
