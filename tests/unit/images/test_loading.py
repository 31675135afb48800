from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dream_cad.exceptions import (
    DreamCadError,
    FileFormatError,
    InvalidConfigError,
    PayloadTooLargeError,
    ShapeError,
)
from dream_cad.images.loading import ImageLimits, load_image
from dream_cad.settings import reload_settings

LIMITS = ImageLimits(max_bytes=10**6, max_pixels=10**6)


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _scene(mode: str = "RGB") -> Image.Image:
    """16 x 12: left half dark, right half light, so that turns can be told apart."""
    pixels = np.full((12, 16, 3), 40, np.uint8)
    pixels[:, 8:] = 200
    return Image.fromarray(pixels).convert(mode)


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_are_found_by_content_not_by_name(format: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.txt"
    path.write_bytes(_encode(_scene(), format))

    for source in (path, str(path), path.read_bytes()):
        image = load_image(source, limits=LIMITS)
        assert (image.mode, image.size) == ("RGB", (16, 12))
        np.testing.assert_allclose(np.asarray(image)[6, [2, 13]], [[40] * 3, [200] * 3], atol=6)


@pytest.mark.parametrize(
    "content",
    [
        b"not a picture at all",
        b"%PDF-1.7 ...",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"MM\x00*\x00\x00\x00\x08",
        b"BM",
        b"\x00" * 100,
    ],
)
def test_other_content_is_refused_with_the_list_of_formats(content: bytes) -> None:
    with pytest.raises(FileFormatError):
        load_image(content, limits=LIMITS)


def test_formats_outside_the_list_are_refused_even_if_pil_knows_them() -> None:
    for format in ("PPM", "TGA", "ICO", "PCX"):
        with pytest.raises(FileFormatError, match="PNG, JPEG"):
            load_image(_encode(_scene(), format), limits=LIMITS)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_files_are_refused(format: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    content = _encode(noise, format)

    with pytest.raises(FileFormatError):
        load_image(content[: int(len(content) * kept)], limits=LIMITS)


def test_empty_content_is_refused() -> None:
    with pytest.raises(FileFormatError, match="0 bytes"):
        load_image(b"", limits=LIMITS)


def test_byte_limit_holds_for_content_and_files(tmp_path: Path) -> None:
    content = _encode(_scene(), "BMP")
    path = tmp_path / "a.bmp"
    path.write_bytes(content)
    tight = ImageLimits(max_bytes=len(content) - 1, max_pixels=10**6)

    for source in (content, path):
        with pytest.raises(PayloadTooLargeError, match="bytes; at most"):
            load_image(source, limits=tight)
    assert load_image(content, limits=ImageLimits(len(content), 10**6)).size == (16, 12)


@pytest.mark.parametrize(
    "size", [(1001, 1000), (20_000, 8), (8, 20_000), (12_000, 12_000), (60_000, 60_000)]
)
def test_bombs_are_refused_from_the_header_without_decoding(size: tuple[int, int]) -> None:
    content = _png_header(*size)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLargeError):
            load_image(content, limits=LIMITS)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20


def test_limits_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_MAX_IMAGE_PIXELS", "100")
    monkeypatch.setenv("DREAM_CAD_MAX_IMAGE_BYTES", "5000")
    reload_settings()
    try:
        assert ImageLimits.from_settings() == ImageLimits(max_bytes=5000, max_pixels=100)
        with pytest.raises(PayloadTooLargeError, match="16 x 12"):
            load_image(_encode(_scene(), "PNG"))
    finally:
        monkeypatch.undo()
        reload_settings()


@pytest.mark.parametrize("source", [Image.new("RGB", (7, 20)), np.zeros((20, 7), np.uint8)])
def test_too_few_pixels_are_refused(source: object) -> None:
    with pytest.raises(InvalidConfigError, match="7 x 20"):
        load_image(source, limits=LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    upright = _scene()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation

    image = load_image(_encode(stored, format, exif=exif), limits=LIMITS)

    assert image.size == upright.size
    np.testing.assert_allclose(np.asarray(image), np.asarray(upright), atol=12)


@pytest.mark.parametrize(
    ("mode", "format", "expected"),
    [
        ("1", "PNG", "RGB"),
        ("L", "PNG", "RGB"),
        ("P", "PNG", "RGB"),
        ("P", "GIF", "RGB"),
        ("LA", "PNG", "RGBA"),
        ("RGBA", "PNG", "RGBA"),
        ("RGBA", "WEBP", "RGBA"),
        ("CMYK", "JPEG", "RGB"),
        ("CMYK", "TIFF", "RGB"),
        ("YCbCr", "JPEG", "RGB"),
        ("LAB", "TIFF", "RGB"),
    ],
)
def test_modes_become_rgb_or_rgba(mode: str, format: str, expected: str) -> None:
    made = {"LAB": Image.new("LAB", (16, 12)), "P": _scene().quantize(4)}
    source = made.get(mode) or _scene(mode)
    if mode == "RGBA":
        source.putalpha(200)
    options = {"lossless": True} if format == "WEBP" else {}
    image = load_image(_encode(source, format, **options), limits=LIMITS)
    assert image.mode == expected
    if mode not in ("1", "LAB"):
        np.testing.assert_allclose(np.asarray(image)[6, [2, 13], :3], [[40] * 3, [200] * 3], atol=8)


def test_palette_transparency_becomes_alpha() -> None:
    picture = Image.new("P", (10, 10), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.paste(1, (0, 0, 5, 10))

    image = load_image(_encode(picture, "PNG", transparency=0), limits=LIMITS)

    assert image.mode == "RGBA"
    assert image.getpixel((1, 1)) == (0, 255, 0, 255)
    assert image.getpixel((8, 8))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    ramp = np.linspace(0, 65_535, 256 * 16).astype(np.uint16).reshape(16, 256)

    grey = np.asarray(load_image(_encode(Image.fromarray(ramp), format), limits=LIMITS))

    np.testing.assert_allclose(grey[..., 0], ramp / 257, atol=0.51)


def test_thirty_two_bit_integers_are_refused_and_floats_accepted() -> None:
    deep = Image.fromarray(np.full((10, 10), 70_000, np.int32))
    with pytest.raises(FileFormatError, match="more than 16 bits"):
        load_image(_encode(deep, "TIFF"), limits=LIMITS)
    floats = Image.fromarray(np.full((10, 10), 0.5, np.float32))
    assert load_image(_encode(floats, "TIFF"), limits=LIMITS).getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    content = _encode(frames[0], format, save_all=True, append_images=frames[1:])

    pixel = load_image(content, limits=LIMITS).convert("RGB").getpixel((5, 5))

    np.testing.assert_allclose(pixel, (255, 0, 0), atol=6)


def test_multi_picture_jpeg_of_a_phone_loads() -> None:
    content = _encode(_scene(), "MPO", save_all=True, append_images=[_scene()])
    assert load_image(content, limits=LIMITS).size == (16, 12)


def test_pil_image_is_copied_not_shared() -> None:
    for mode in ("RGB", "RGBA"):
        source = _scene(mode)
        image = load_image(source, limits=LIMITS)
        image.putpixel((0, 0), (1, 2, 3) if mode == "RGB" else (1, 2, 3, 4))
        assert source.getpixel((0, 0))[:3] == (40, 40, 40)  # type: ignore[index]


def test_truncated_pil_image_raises_no_pil_error() -> None:
    content = _encode(Image.effect_noise((200, 200), 50), "PNG")
    lazy = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(FileFormatError, match="damaged"):
        load_image(lazy, limits=LIMITS)


@pytest.mark.parametrize(
    ("array", "mode", "pixel"),
    [
        (np.full((9, 9), 7, np.uint8), "RGB", (7, 7, 7)),
        (np.full((9, 9, 1), 7, np.uint8), "RGB", (7, 7, 7)),
        (np.full((9, 9, 3), 7, np.uint8), "RGB", (7, 7, 7)),
        (np.full((9, 9, 4), 7, np.uint8), "RGBA", (7, 7, 7, 7)),
        (np.ones((9, 9), bool), "RGB", (255, 255, 255)),
        (np.full((9, 9), 65_535, np.uint16), "RGB", (255, 255, 255)),
        (np.full((9, 9, 3), 0.5, np.float32), "RGB", (128, 128, 128)),
        (np.full((9, 9, 3), 1.0, np.float16), "RGB", (255, 255, 255)),
        (np.zeros((9, 9, 4), np.float64), "RGBA", (0, 0, 0, 0)),
    ],
)
def test_arrays(array: np.ndarray, mode: str, pixel: tuple[int, ...]) -> None:
    image = load_image(array, limits=LIMITS)
    assert image.mode == mode
    assert image.getpixel((4, 4)) == pixel


def test_array_rows_are_image_rows() -> None:
    assert load_image(np.zeros((10, 20, 3), np.uint8), limits=LIMITS).size == (20, 10)


@pytest.mark.parametrize(
    ("array", "error", "reason"),
    [
        (np.full((9, 9), np.nan, np.float32), InvalidConfigError, "NaN"),
        (np.full((9, 9, 3), np.inf), InvalidConfigError, "NaN or infinite"),
        (np.full((9, 9, 3), 255.0), InvalidConfigError, "Divide by 255"),
        (np.full((9, 9, 3), -0.1), InvalidConfigError, "from -0.1"),
        (np.zeros((9, 9, 3), np.int64), ShapeError, "int64"),
        (np.zeros((9, 9, 3), complex), ShapeError, "complex"),
        (np.zeros((9, 9, 2), np.uint8), ShapeError, r"\(9, 9, 2\)"),
        (np.zeros((9, 9, 5), np.uint8), ShapeError, r"\(9, 9, 5\)"),
        (np.zeros((1, 9, 9, 3), np.uint8), ShapeError, r"\(1, 9, 9, 3\)"),
        (np.zeros(81, np.uint8), ShapeError, r"\(81,\)"),
        (np.zeros((0, 9, 3), np.uint8), InvalidConfigError, "9 x 0"),
        (np.zeros((9, 9, 0), np.uint8), ShapeError, "0"),
        (np.zeros((2000, 2000), bool), PayloadTooLargeError, "2000 x 2000"),
    ],
)
def test_bad_arrays_are_refused(array: np.ndarray, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        load_image(array, limits=LIMITS)


@pytest.mark.parametrize("name", ["missing.png", ".", "a\0b.png", "x" * 5000])
def test_paths_without_a_file_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="image file"):
        load_image(str(tmp_path / name), limits=LIMITS)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidConfigError, match="no image file"):
        load_image(tmp_path / "pipe.png", limits=LIMITS)


@pytest.mark.parametrize("source", [None, 7, ["a.png"], io.BytesIO(b"x")])
def test_other_types_are_refused(source: object) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be made from"):
        load_image(source, limits=LIMITS)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    format=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.floats(0.1, 1.0),
)
def test_damaged_files_load_or_raise_our_errors_only(
    format: str, edits: list[tuple[int, int]], cut: float
) -> None:
    content = bytearray(_encode(_scene(), format))
    for position, value in edits:
        content[position % len(content)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in production PIL only warns about odd metadata
        try:
            image = load_image(bytes(content[: max(1, int(len(content) * cut))]), limits=LIMITS)
        except DreamCadError:
            return
    assert image.mode in ("RGB", "RGBA")
    assert image.width * image.height <= LIMITS.max_pixels
