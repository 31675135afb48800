"""Background removal without a network: GrabCut seeded by a model of the backdrop.

Made for pictures of one object before a plain, graded or noisy backdrop, such as text-to-image
models draw when asked for one. Busy photographs need the network (``matting_model``).
"""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from dream_cad.images.backdrop import Backdrop, fit_backdrop, to_lab

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_CUT_SIDE = 448
"""GrabCut's own resolution: its time grows faster than the pixel count."""
_EDGE_SIDE = 2048
"""Soft edges are computed up to here; larger mattes are interpolated."""
_SURE_OBJECT, _LIKELY_OBJECT, _SURE_BACKDROP = 10.0, 4.0, 2.0  # sigmas from the backdrop
_ROUNDS = 4
_MIN_PIXELS = 8  # GrabCut describes each side by five colours
_MIN_PART = 0.02  # parts of the object smaller than this share of the largest are dust
_MIN_ALPHA = 0.08
_RNG_LOCK = threading.Lock()


def cut_out(rgb: Bytes) -> Bytes:
    """Cut the object out of a picture.

    Args:
        rgb: (H, W, 3) uint8 sRGB.

    Returns:
        (H, W, 4) uint8: alpha is 0 everywhere if no object stands out from the backdrop. Edge
        colours are freed of the backdrop's share.
    """
    small = _shrink(rgb, _CUT_SIDE)
    mask = _cut(small, fit_backdrop(small))
    medium = _shrink(rgb, _EDGE_SIDE)
    colors, alpha = _soften(medium, _enlarge_mask(mask, medium.shape[:2]), len(medium) / len(small))
    if medium.shape != rgb.shape:
        height, width = rgb.shape[:2]
        large = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
        alpha = np.asarray(large, np.float32)
        colors = rgb
    return np.dstack((colors, np.rint(alpha * 255).astype(np.uint8)))


def _shrink(rgb: Bytes, max_side: int) -> Bytes:
    scale = max_side / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    size = (max(8, round(rgb.shape[1] * scale)), max(8, round(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cut(rgb: Bytes, backdrop: Backdrop) -> Mask:
    """(h, w, 3) -> (h, w) object mask, empty if nothing stands out."""
    seeds = _make_seeds(backdrop.distance)
    likely = (seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)
    if not _MIN_PIXELS <= np.count_nonzero(likely) <= likely.size - _MIN_PIXELS:
        return np.full(likely.shape, likely.mean() > 0.5)  # all object or none: the caller judges
    flat = _flatten(rgb, backdrop)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    no_box = (0, 0, 0, 0)  # GrabCut starts from the seeds instead
    with _RNG_LOCK:  # GrabCut's k-means draws from OpenCV's generator
        cv2.setRNGSeed(0)
        cv2.grabCut(flat, seeds, no_box, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _tidy((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD))


def _make_seeds(distance: NDArray[np.float32]) -> Bytes:
    """Return GrabCut's starting mask from the distance to the backdrop in sigmas."""
    likely = _drop_specks(distance > _LIKELY_OBJECT)
    seeds = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[_touches_border(distance < _SURE_BACKDROP)] = cv2.GC_BGD
    seeds[(distance > _SURE_OBJECT) & likely] = cv2.GC_FGD
    return seeds


def _drop_specks(mask: Mask) -> Mask:
    """Remove single noisy pixels; thin parts two pixels wide stay."""
    kernel = np.ones((2, 2), np.uint8)
    opened: Mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    return opened


def _touches_border(mask: Mask) -> Mask:
    """Keep the parts of a mask that reach the picture's border."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    edge = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return mask & np.isin(labels, np.unique(edge[edge > 0]))


def _flatten(rgb: Bytes, backdrop: Backdrop) -> Bytes:
    """Subtract the backdrop in Lab, so that a graded one is a single colour to GrabCut."""
    flat = (to_lab(rgb) - backdrop.lab) * np.float32(2) + np.float32(128)
    return np.ascontiguousarray(np.clip(flat, 0, 255).astype(np.uint8))


def _tidy(mask: Mask) -> Mask:
    """Drop dust around the object and fill pinholes in it."""
    if not mask.any():
        return mask
    kept = _keep_large(mask, _MIN_PART)
    return ~_drop_small(~kept, int(kept.sum()))


def _keep_large(mask: Mask, min_share: float) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas >= max(1.0, min_share * areas.max()))
    return np.isin(labels, large)


def _drop_small(holes: Mask, object_area: int) -> Mask:
    """Remove holes below a thousandth of the object; larger ones show the backdrop."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(holes.astype(np.uint8), connectivity=4)
    large = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= max(2.0, 1e-3 * object_area))
    return np.isin(labels, large)


def _enlarge_mask(mask: Mask, size: tuple[int, ...]) -> Mask:
    if mask.shape == tuple(size):
        return mask
    soft = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    larger: Mask = soft > 0.5
    return larger


def _soften(rgb: Bytes, mask: Mask, scale: float) -> tuple[Bytes, NDArray[np.float32]]:
    """Estimate coverage along the outline and free its colours of the backdrop's share.

    A pixel of the outline mixes object and backdrop, so its distance from the backdrop's colour,
    over the largest such distance nearby, is the object's share.

    Returns:
        Colours (H, W, 3) uint8 and alpha (H, W) float32 in [0, 1].
    """
    alpha = mask.astype(np.float32)
    if not mask.any():
        return rgb, alpha
    radius = max(1, round(scale))
    kernel = np.ones((2 * radius + 1,) * 2, np.uint8)
    solid = mask.astype(np.uint8)
    band = (cv2.dilate(solid, kernel) > 0) & (cv2.erode(solid, kernel) == 0)
    backdrop = _backdrop_rgb(rgb, mask)
    offset = np.linalg.norm(rgb.astype(np.float32) - backdrop, axis=-1)
    reach = cv2.dilate(np.where(cv2.dilate(solid, kernel) > 0, offset, 0), np.ones((5, 5)))
    share = np.clip(offset / np.maximum(reach, 1.0), 0.0, 1.0)[band]
    # Shading varies over the object, so the share only adds to what GrabCut called object.
    alpha[band] = np.where(mask[band], np.maximum(share, 0.51), share)
    alpha[alpha < _MIN_ALPHA] = 0.0
    return _unmix(rgb, backdrop, alpha, band), alpha


def _backdrop_rgb(rgb: Bytes, mask: Mask) -> NDArray[np.float32]:
    """Fill the object in from the backdrop around it: (H, W, 3) float32."""
    weight = (~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)).astype(
        np.float32
    )
    if not weight.any():
        weight = (~mask).astype(np.float32)
    side = max(rgb.shape[:2]) // 8 * 2 + 1
    blurred = cv2.blur(rgb.astype(np.float32) * weight[..., None], (side, side))
    total = cv2.blur(weight, (side, side))[..., None]
    mean = (rgb.astype(np.float32) * weight[..., None]).sum((0, 1)) / max(weight.sum(), 1.0)
    filled: NDArray[np.float32] = np.where(total > 1e-3, blurred / np.maximum(total, 1e-3), mean)
    return filled


def _unmix(
    rgb: Bytes, backdrop: NDArray[np.float32], alpha: NDArray[np.float32], band: Mask
) -> Bytes:
    """Solve C = alpha F + (1 - alpha) B for the object's colour F along the outline."""
    chosen = band & (alpha > 0)
    share = alpha[chosen][:, None]
    colors = rgb.copy()
    pure = (rgb[chosen] - (1 - share) * backdrop[chosen]) / share
    colors[chosen] = np.clip(np.rint(pure), 0, 255).astype(np.uint8)
    return colors
