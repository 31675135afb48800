"""The nano checkpoints that ship with the package (made by ``jobs/train_nano.py``)."""

from __future__ import annotations

from pathlib import Path

_NANO = Path(__file__).parent / "nano"
TEXT_TO_IMAGE = "text_to_image"


def nano_folder(name: str) -> Path | None:
    """Return the folder of the bundled checkpoint called ``name``, or None if none is shipped.

    Args:
        name: a model name such as ``"triposr"``, or ``TEXT_TO_IMAGE`` (a diffusers folder).
    """
    folder = _NANO / name.replace("-", "_")
    return folder if folder.is_dir() and any(folder.iterdir()) else None
