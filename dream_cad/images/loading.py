"""Load pictures from anywhere, safely: every limit is checked before memory is spent.

``load_image`` opens files named by their path: services that take input from strangers pass it
bytes, never strings.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dream_cad.exceptions import FileFormatError, InvalidConfigError, PayloadTooLargeError
from dream_cad.images.arrays import array_to_image
from dream_cad.settings import get_settings

ImageSource = Image.Image | NDArray[Any] | str | Path | bytes

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats found by content, whatever a file's name or content type says."""
_SUPPORTED = "Supported: PNG, JPEG, WebP, BMP, GIF and TIFF."
_MAX_UINT16 = 65_535


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost.

    Attributes:
        max_bytes: size of the file or upload.
        max_pixels: width times height, read from the header before anything is decoded.
        max_side: longest side in pixels.
        min_side: shortest side in pixels; below it there is no object to see.
    """

    max_bytes: int
    max_pixels: int
    max_side: int = 16_384
    min_side: int = 8

    @classmethod
    def from_settings(cls) -> ImageLimits:
        """Return the limits of DREAM_CAD_MAX_IMAGE_BYTES and DREAM_CAD_MAX_IMAGE_PIXELS."""
        settings = get_settings()
        return cls(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


def load_image(source: ImageSource, *, limits: ImageLimits | None = None) -> Image.Image:
    """Load one picture as 8-bit RGB, or RGBA where it has transparency.

    EXIF orientation is applied; animations give their first frame; 16-bit and float pictures are
    scaled, not clipped; CMYK, palette and bilevel pictures are converted. The source is not
    changed and shares no memory with the result.

    Args:
        source: PIL image, file path, file content, or array as ``array_to_image`` takes it.
        limits: by default those of the settings.

    Raises:
        FileFormatError: not a picture, of a format that is not supported, or damaged.
        PayloadTooLargeError: over the byte, pixel or side limit.
        InvalidConfigError: no such file, too few pixels, or an unusable type or array.
    """
    limits = limits or ImageLimits.from_settings()
    if isinstance(source, Image.Image):
        return _decode(source, limits)
    if isinstance(source, np.ndarray):
        if source.ndim in (2, 3):  # other shapes are refused by array_to_image
            _check_size(source.shape[1::-1], limits)
        return array_to_image(source)
    if isinstance(source, str | Path):
        source = _read_file(Path(source), limits)
    if not isinstance(source, bytes):
        raise InvalidConfigError(
            f"A picture cannot be made from {type(source).__name__}.",
            hint="Give a PIL image, a numpy array, a file path or the bytes of a file.",
        )
    _check_byte_count(len(source), limits)
    with _open(source) as image:
        return _decode(image, limits)


def _read_file(path: Path, limits: ImageLimits) -> bytes:
    """Return the content of a regular file, its size checked before it is read."""
    try:
        if not path.is_file():
            raise InvalidConfigError(
                f"There is no image file at {str(path)!r}.", hint="Check the path."
            )
        _check_byte_count(path.stat().st_size, limits)
        with path.open("rb") as file:  # never more than the limit, should the file grow meanwhile
            return file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InvalidConfigError(
            f"The image file {str(path)!r} cannot be read: {error}."
        ) from error


def _check_byte_count(count: int, limits: ImageLimits) -> None:
    if count == 0:
        raise FileFormatError("The image is empty (0 bytes).", hint=_SUPPORTED)
    if count > limits.max_bytes:
        raise PayloadTooLargeError(
            f"The image has {count:,} bytes; at most {limits.max_bytes:,} are accepted.",
            hint="Send a smaller or more compressed one (limit: DREAM_CAD_MAX_IMAGE_BYTES).",
            details={"bytes": count, "limit": limits.max_bytes},
        )


def _open(content: bytes) -> Image.Image:
    """Read the header only; the pixels are decoded later, once the size is known to be fine."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PayloadTooLargeError(
            f"The image is larger than can be decoded safely: {error}",
            hint="Scale it down; models look at 512 to 1024 pixels a side.",
        ) from error
    except UnidentifiedImageError as error:
        raise FileFormatError(
            "The file is not a picture that can be read.", hint=_SUPPORTED
        ) from error
    except Exception as error:  # a hostile header can raise anything in a decoder
        raise _damaged(error) from error


def _decode(image: Image.Image, limits: ImageLimits) -> Image.Image:
    _check_size(image.size, limits)
    try:
        image.load()
        return _to_eight_bit(ImageOps.exif_transpose(image))
    except FileFormatError:
        raise
    except MemoryError as error:
        raise PayloadTooLargeError("The image needs more memory than there is.") from error
    except Exception as error:  # truncated and hostile files raise anything in a decoder
        raise _damaged(error) from error


def _damaged(error: Exception) -> FileFormatError:
    return FileFormatError(
        f"The image file is damaged or truncated ({error}).",
        hint="Send it again, or save it anew in an image editor.",
    )


def _check_size(size: tuple[int, ...], limits: ImageLimits) -> None:
    """Check (width, height) against the limits."""
    width, height = size
    facts = {"width": width, "height": height}
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise PayloadTooLargeError(
            f"The image is {width} x {height}; at most {limits.max_pixels:,} pixels and "
            f"{limits.max_side:,} a side are accepted.",
            hint="Scale it down; models look at 512 to 1024 pixels a side.",
            details={**facts, "max_pixels": limits.max_pixels, "max_side": limits.max_side},
        )
    if min(size) < limits.min_side:
        raise InvalidConfigError(
            f"The image is {width} x {height}; each side needs at least {limits.min_side} pixels.",
            details={**facts, "min_side": limits.min_side},
        )


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB or RGBA without clipping deep pictures."""
    if image.mode == "F":
        return array_to_image(np.asarray(image))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return array_to_image(_to_uint16(image))
    if image.has_transparency_data or image.mode == "La":
        return _straight_alpha(image).convert("RGBA").copy()
    return image.convert("RGB").copy()  # copy: convert returns the same object if nothing changes


def _straight_alpha(image: Image.Image) -> Image.Image:
    """Undo premultiplied grey, which PIL converts to plain grey with alpha only."""
    return image.convert("LA") if image.mode == "La" else image


def _to_uint16(image: Image.Image) -> NDArray[np.uint16]:
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > _MAX_UINT16:
        raise FileFormatError(
            "The image has integers of more than 16 bits a channel.",
            hint="Save it with 8 or 16 bits a channel.",
        )
    return pixels.astype(np.uint16)
