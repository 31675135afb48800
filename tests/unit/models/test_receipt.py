from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

import dream_cad
from dream_cad.models.receipt import arrays_sha256, image_sha256, text_sha256, versions


def test_text_hash_is_of_utf8() -> None:
    assert text_sha256("ü") == hashlib.sha256(b"\xc3\xbc").hexdigest()


def test_array_hash_tells_values_types_and_shapes_apart() -> None:
    base = np.arange(6, dtype=np.int32)
    others = (base[::-1], base.astype(np.int64), base.reshape(2, 3), base + 1)
    assert arrays_sha256(base) == arrays_sha256(np.repeat(base, 2)[::2])
    assert len({arrays_sha256(array) for array in (base, *others)}) == 5


def test_image_hash_is_of_pixels_not_of_files() -> None:
    image = Image.effect_noise((9, 7), 50).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert image_sha256(Image.open(buffer).convert("RGB")) == image_sha256(image)


def test_image_hash_tells_shapes_and_modes_apart() -> None:
    hashes = {
        image_sha256(Image.new(mode, size))
        for mode, size in (("RGB", (4, 6)), ("RGB", (6, 4)), ("RGBA", (6, 3)))
    }
    assert len(hashes) == 3


def test_versions_name_the_package() -> None:
    assert versions()["dream_cad"] == dream_cad.__version__
    assert {"torch", "numpy", "python"} <= set(versions())
