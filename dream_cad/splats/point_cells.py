"""Points sorted into cubic cells, to find those near many boxes at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.splats.kernels import Boxes


class PointCells:
    """A table of which points lie in which cell.

    Args:
        points: (P, 3) float32.
        low: (3,) float64 lower corner of cell 0; no point lies below it.
        step: side of a cell.

    Attributes:
        shape: cells along x, y, z.
    """

    def __init__(self, points: NDArray[np.float32], low: NDArray[np.float64], step: float) -> None:
        cell = np.floor((points.astype(np.float64) - low) / step).astype(np.int64).clip(0)
        x, y, z = (int(n) + 1 for n in cell.max(axis=0))
        self.shape = (x, y, z)
        flat = (cell[:, 0] * y + cell[:, 1]) * z + cell[:, 2]
        self._order = torch.from_numpy(np.argsort(flat, kind="stable"))
        cells, count = np.unique(flat, return_counts=True)
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        self._first, self._count = torch.from_numpy(first), torch.from_numpy(count)
        self._number = torch.full((x * y * z,), -1, dtype=torch.int32)
        self._number[torch.from_numpy(cells)] = torch.arange(len(cells), dtype=torch.int32)

    def pairs(self, boxes: Boxes) -> tuple[Tensor, Tensor]:
        """Find the points in boxes of cells.

        Returns:
            (Q,) the box and (Q,) the point of each pair.
        """
        _, y, z = self.shape
        number = self._number[boxes.nodes((y * z, z))]
        found = (number >= 0).nonzero()
        cell = number[found[:, 0], found[:, 1]].long()
        count = self._count[cell]
        box, first = found[:, 0].repeat_interleave(count), self._first[cell]
        within = torch.arange(len(box)) - (count.cumsum(0) - count - first).repeat_interleave(count)
        return box, self._order[within]
