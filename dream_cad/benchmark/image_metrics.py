"""Pictures of meshes compared with pictures of the truth: PSNR and SSIM."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from dream_cad.exceptions import ShapeError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.render import render_turntable

PERFECT_PSNR_DB = 100.0  # stands for the infinite ratio of equal pictures
_SSIM_WINDOW = 7


@dataclass(frozen=True)
class ImageMetrics:
    """Means over the views.

    Attributes:
        psnr_db: peak signal-to-noise ratio, at most ``PERFECT_PSNR_DB``.
        ssim: structural similarity (Wang et al. 2004), -1..1, 1 for equal pictures.
        views: pictures compared.
    """

    psnr_db: float
    ssim: float
    views: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)


def psnr(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return ``10 log10(255² / mean squared error)`` in dB, at most ``PERFECT_PSNR_DB``.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W, 3) uint8.

    Raises:
        ShapeError: the pictures differ in shape or are not uint8 colour pictures.
    """
    _check(image, truth)
    error = float(np.mean((image.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return min(10 * math.log10(255**2 / error), PERFECT_PSNR_DB) if error else PERFECT_PSNR_DB


def ssim(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the mean structural similarity of two (H, W, 3) uint8 pictures, -1..1.

    Raises:
        ShapeError: as for ``psnr``, or a side below 7 pixels.
    """
    _check(image, truth)
    if min(image.shape[:2]) < _SSIM_WINDOW:
        raise ShapeError(f"Pictures are {image.shape}; SSIM needs sides of {_SSIM_WINDOW} pixels.")
    return float(structural_similarity(image, truth, channel_axis=2, win_size=_SSIM_WINDOW))


def compare_renders(
    mesh: MeshData, truth: MeshData, *, views: int = 4, size: int = 192
) -> ImageMetrics:
    """Render both meshes from the same sides and compare the pictures.

    Raises:
        InvalidConfigError: ``views`` or ``size`` is out of range.
        ShapeError: a mesh is inconsistent.
    """
    sheets = [render_turntable(m, views=views, size=size) for m in (mesh, truth)]
    pairs = list(zip(*(np.split(sheet, views, axis=1) for sheet in sheets), strict=True))
    return ImageMetrics(
        psnr_db=float(np.mean([psnr(a, b) for a, b in pairs])),
        ssim=float(np.mean([ssim(a, b) for a, b in pairs])),
        views=views,
    )


def _check(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    is_picture = image.ndim == 3 and image.shape[2] == 3 and image.dtype == truth.dtype == np.uint8
    if image.shape != truth.shape or not is_picture:
        raise ShapeError(
            f"Pictures are {image.shape} {image.dtype} and {truth.shape} {truth.dtype}; expected "
            "two of the same (H, W, 3) uint8."
        )
