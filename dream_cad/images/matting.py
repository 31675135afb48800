"""Separate the object of a picture from its background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.grabcut import cut_out
from dream_cad.images.matting_model import (
    find_matting_model,
    has_onnx_runtime,
    load_matting_model,
)
from dream_cad.settings import get_settings

MattingMethod = Literal["auto", "alpha", "model", "grabcut"]

_MIN_COVERAGE = 5e-4
_MAX_COVERAGE = 0.98
_MIN_ALPHA = 8  # of 255: fainter pixels of a network's matte are haze, not object


@dataclass(frozen=True)
class MattingResult:
    """A matted picture and how it was made.

    Attributes:
        image: RGBA, alpha is the object.
        method: ``"alpha"``, ``"model"`` or ``"grabcut"``.
        coverage: share of the picture that the object covers, in (0, 1].
        model: name of the network, or None.
    """

    image: Image.Image
    method: MattingMethod
    coverage: float
    model: str | None = None


def remove_background(image: Image.Image, method: MattingMethod = "auto") -> Image.Image:
    """Return the picture as RGBA with its background transparent; see ``matte``."""
    return matte(image, method).image


def matte(image: Image.Image, method: MattingMethod = "auto") -> MattingResult:
    """Separate the object from the background.

    Args:
        image: RGB or RGBA, as ``load_image`` gives it.
        method: ``"alpha"`` takes the picture's own transparency, ``"model"`` the network of
            DREAM_CAD_MATTING_MODEL, ``"grabcut"`` the built-in method for plain backdrops.
            ``"auto"`` takes the first of these three that is at hand: transparency in the
            picture, the network's weights on this machine, else GrabCut.

    Returns:
        The matte and the method used.

    Raises:
        InvalidConfigError: unknown method or mode, no transparency for ``"alpha"``, or no object
            could be told from the background.
        CheckpointError: ``"model"`` without weights, or with damaged ones.
    """
    if method not in get_args(MattingMethod):
        raise InvalidConfigError(
            f"The matting method {method!r} is unknown.",
            hint=f"Choose one of {', '.join(get_args(MattingMethod))}.",
            details={"allowed": list(get_args(MattingMethod))},
        )
    if image.mode not in ("RGB", "RGBA"):
        raise InvalidConfigError(
            f"The picture has mode {image.mode}; RGB or RGBA is needed.", hint="Use load_image."
        )
    chosen = _choose(image) if method == "auto" else method
    if chosen == "alpha":
        return _take_alpha(image)
    rgb = np.array(image.convert("RGB"))
    pixels = cut_out(rgb) if chosen == "grabcut" else _run_model(rgb)
    coverage = _check_coverage(pixels[..., 3])
    name = get_settings().matting_model if chosen == "model" else None
    return MattingResult(Image.fromarray(pixels), chosen, coverage, name)


def _choose(image: Image.Image) -> MattingMethod:
    if _has_transparency(image):
        return "alpha"
    return "model" if has_onnx_runtime() and find_matting_model() is not None else "grabcut"


def _has_transparency(image: Image.Image) -> bool:
    return image.mode == "RGBA" and int(np.asarray(image)[..., 3].min()) < 255


def _take_alpha(image: Image.Image) -> MattingResult:
    if not _has_transparency(image):
        raise InvalidConfigError(
            "The picture has no transparency to take as its matte.",
            hint='Use method "auto" or "grabcut".',
        )
    alpha = np.asarray(image)[..., 3]
    coverage = float(alpha.mean()) / 255
    if not alpha.any():
        raise InvalidConfigError(
            "The picture is fully transparent: there is no object in it.",
            hint="Check how it was saved.",
        )
    return MattingResult(image.copy(), "alpha", coverage)


def _run_model(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H, W, 4) uint8."""
    alpha = np.rint(load_matting_model().predict(rgb) * 255).astype(np.uint8)
    alpha[alpha < _MIN_ALPHA] = 0
    return np.dstack((rgb, alpha))


def _check_coverage(alpha: NDArray[np.uint8]) -> float:
    """Return the share of the picture that is object; refuse mattes that found none."""
    coverage = float(alpha.mean()) / 255
    if coverage < _MIN_COVERAGE:
        raise InvalidConfigError(
            "No object stands out from the picture's background.",
            hint="Give a picture of one object on a plain background of another colour, or one "
            "with transparency.",
        )
    if coverage > _MAX_COVERAGE:
        raise InvalidConfigError(
            "The object cannot be told from the background: all of the picture was taken for it.",
            hint="Leave some plain background around the object, give a picture with "
            "transparency, or set remove_background to false.",
        )
    return coverage
