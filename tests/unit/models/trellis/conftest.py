from __future__ import annotations

from pathlib import Path

import pytest

from dream_cad.models.trellis import Trellis
from tests.tiny_trellis import write_checkpoint, write_text_checkpoint


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image variant; the text variant lies beside it in ``text``."""
    root = tmp_path_factory.mktemp("trellis")
    write_text_checkpoint(root / "text")
    return write_checkpoint(root / "TRELLIS-image-large")


@pytest.fixture(scope="package")
def model(folder: Path) -> Trellis:
    return Trellis(checkpoint=folder, device="cpu")


@pytest.fixture(scope="package")
def text_model(folder: Path) -> Trellis:
    return Trellis(checkpoint=folder, device="cpu", text_checkpoint=folder.parent / "text")
