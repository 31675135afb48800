"""Gaussians to a closed mesh: density on a grid, the hollow skin sealed and filled, marched.

The Gaussians of LGM and 3DGS lie on surfaces: their density is a hollow skin, which marching cubes
would turn into a double wall. So the inside is found by flooding from the outside and filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.cleanup import remove_floaters
from dream_cad.mesh.data import MeshData
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.kernels import KAPPA, Kernels, Lattice
from dream_cad.splats.point_cells import PointCells
from dream_cad.surface.marching import march

OnProgress = Callable[[float, str], None]
_MIN_WEIGHT = 1e-8
_MIN_COMPONENT = 0.01


@dataclass(frozen=True)
class MeshingOptions:
    """How Gaussians become a mesh.

    Attributes:
        resolution: N, nodes a side over the cube.
        threshold: density of the skin, in sums of opacity.
        closing: nodes by which gaps in the skin are closed before the inside is filled.
        kappa: widening of the Gaussians in nodes.
        min_component: parts with less than this share of the largest part's faces are dropped.
        radius: half side of the cube.
    """

    resolution: int = 256
    threshold: float = 1.0
    closing: int = 2
    kappa: float = KAPPA
    min_component: float = _MIN_COMPONENT
    radius: float = 1.0

    @property
    def lattice(self) -> Lattice:
        """The nodes."""
        return Lattice(self.resolution, self.radius)


def _silent(fraction: float, stage: str) -> None:
    pass


def density_grid(kernels: Kernels, progress: OnProgress = _silent) -> NDArray[np.float32]:
    """Sum the Gaussians at every node, each scattered into its own box.

    Args:
        kernels: widened Gaussians over a lattice.
        progress: called with (fraction, "density").

    Returns:
        (N, N, N) float32, indexed [x, y, z].
    """
    size, step = kernels.lattice.size, kernels.lattice.spacing
    low = np.full(3, -kernels.lattice.radius)
    grid = torch.zeros(size**3)
    done, total = 0, len(kernels.positions)
    for boxes in kernels.boxes(low, step, (size, size, size)):
        terms = kernels.terms_on_nodes(boxes, low, step)
        grid.scatter_add_(0, boxes.nodes((size * size, size)).reshape(-1), terms.reshape(-1))
        done += len(boxes.rows)
        progress(done / total, "density")
    return grid.reshape(size, size, size).numpy()


def fill_inside(
    density: NDArray[np.float32], threshold: float, closing: int
) -> tuple[NDArray[np.float32], int]:
    """Raise the density of the nodes that the skin encloses to twice the threshold.

    Args:
        density: (N, N, N).
        threshold: density of the skin.
        closing: gaps of up to twice so many nodes are closed first.

    Returns:
        The filled density, and the number of enclosed nodes (0 where the skin leaks).
    """
    skin = density >= threshold
    pad = closing + 1
    closed = np.pad(skin, pad)
    if closing:
        closed = ndimage.binary_closing(closed, iterations=closing)
    labels, _ = ndimage.label(~closed)
    exterior = labels == labels[0, 0, 0]
    inner = (slice(pad, -pad),) * 3
    enclosed = ~exterior[inner] & ~skin
    filled = np.where(enclosed, np.float32(2 * threshold), density)
    return filled, int(enclosed.sum())


def mesh_gaussians(
    cloud: GaussianCloud, options: MeshingOptions, progress: OnProgress = _silent
) -> MeshData:
    """Turn Gaussians into a closed mesh without colours; see ``SplatColors`` for these.

    Args:
        cloud: in a cube of ``options.radius``; any frame, which the mesh keeps.
        options: resolution and threshold.
        progress: called with (fraction, stage).

    Raises:
        GenerationError: nothing reaches the threshold; says what would.
    """
    kernels = Kernels(cloud, options.lattice, options.kappa)
    density = density_grid(kernels, lambda f, s: progress(0.7 * f, s))
    return mesh_density(density, options, progress)


def mesh_density(
    density: NDArray[np.float32], options: MeshingOptions, progress: OnProgress = _silent
) -> MeshData:
    """March the filled density (N, N, N) and drop loose parts; see ``mesh_gaussians``."""
    highest = float(density.max())
    if highest <= options.threshold:
        raise GenerationError(
            f"There is no surface: the splats' density reaches {highest:.3g}, below the threshold "
            f"of {options.threshold:g}.",
            hint=f"A density_threshold below {highest:.2g} would give one; or look at the views "
            "and try another seed.",
        )
    progress(0.7, "fill")
    filled = density
    for closing in range(options.closing, options.closing + 3):
        filled, enclosed = fill_inside(density, options.threshold, closing)
        if enclosed:
            break
    progress(0.85, "surface")
    surface = march_closed(filled, options)
    return remove_floaters(surface, options.min_component)


def march_closed(density: NDArray[np.float32], options: MeshingOptions) -> MeshData:
    """March a density (N, N, N) inside a layer of zeros, so that the mesh is closed."""
    lattice = options.lattice
    used = np.argwhere(density > 0)
    low, high = used.min(axis=0), used.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    start = (int(low[0]) - 1, int(low[1]) - 1, int(low[2]) - 1)
    surface = march(
        np.pad(density[box], 1),
        options.threshold,
        start=start,
        spacing=lattice.spacing,
        radius=lattice.radius,
    )
    return MeshData(surface.vertices, surface.faces)


class SplatColors:
    """Colours of a cloud at points near it: the mean of its Gaussians, weighted by their terms.

    Args:
        cloud: the Gaussians.
        lattice: the nodes that the mesh was marched on.
        kappa: widening of the Gaussians in nodes.
    """

    def __init__(self, cloud: GaussianCloud, lattice: Lattice, kappa: float = KAPPA) -> None:
        self._kernels = Kernels(cloud, lattice, kappa)
        self._colors = torch.cat([torch.from_numpy(cloud.colors), torch.ones(len(cloud), 1)], 1)
        self._positions = cloud.positions

    def __call__(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return colours (P, 3) in [0, 1] at points (P, 3); far from all splats, the nearest's."""
        points = np.ascontiguousarray(points, dtype=np.float32)
        if len(points) == 0:
            return np.zeros((0, 3), dtype=np.float32)
        total = self._sum(points)
        weight = total[:, 3:]
        colors = total[:, :3] / np.maximum(weight, _MIN_WEIGHT)
        far = np.flatnonzero(weight[:, 0] < _MIN_WEIGHT)
        if len(far):
            nearest = cKDTree(self._positions).query(points[far])[1]
            colors[far] = self._colors.numpy()[nearest, :3]
        return np.asarray(colors, dtype=np.float32)

    def _sum(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (P, 4): weighted colours and weights; pairs are found through cells."""
        kernels = self._kernels
        step = kernels.lattice.spacing
        low = points.min(axis=0).astype(np.float64)
        cells = PointCells(points, low, step)
        at = torch.from_numpy(points)
        total = torch.zeros(len(points), 4)
        # a cell's points lie up to half a cell around its centre
        for boxes in kernels.boxes(low + step / 2, step, cells.shape, margin=step / 2):
            gaussian, point = cells.pairs(boxes)
            rows = boxes.rows[gaussian]
            weight = kernels.terms_at(rows, at[point])
            total.index_add_(0, point, self._colors[rows] * weight[:, None])
        return total.numpy()
