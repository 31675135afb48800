"""Background removal by a network in ONNX: data only, so no code comes with the weights.

transformers has no class of its own for general background removal (BiRefNet and RMBG need remote
code; ViTMatte needs a trimap; Sapiens2 knows people only), hence ONNX Runtime, the way rembg does
it. Any salient-object network fits that maps one (1, 3, H, W) picture to one (1, 1, H, W) mask:
BiRefNet, IS-Net, U-2-Net.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import CheckpointError, GenerationError
from dream_cad.images.hub import download_repository, find_repository
from dream_cad.settings import get_settings

ONNX_FILE = "onnx/model.onnx"
DOWNLOAD_PATTERNS = (ONNX_FILE, "*.json", "README.md", "LICENSE*")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DEFAULT_SIDE = 1024


def find_matting_model(source: str | None = None) -> Path | None:
    """Return the ONNX file of a matting network on this machine, or None.

    Args:
        source: ONNX file, folder with ``onnx/model.onnx``, or repository; by default
            DREAM_CAD_MATTING_MODEL.

    Raises:
        CheckpointError: a file or folder is named that is not there or holds no network.
    """
    name = source or get_settings().matting_model
    path = Path(name).expanduser()
    if path.suffix == ".onnx":
        if not path.is_file():
            raise CheckpointError(
                f"There is no matting network at {name!r}.",
                hint="Correct or unset DREAM_CAD_MATTING_MODEL.",
            )
        return path
    folder = find_repository(name, required=ONNX_FILE)
    return folder / ONNX_FILE if folder is not None else None


def pull_matting_model(source: str | None = None) -> Path:
    """Download the matting network and return its ONNX file.

    Raises:
        DownloadError: it could not be fetched.
    """
    name = source or get_settings().matting_model
    return download_repository(name, patterns=DOWNLOAD_PATTERNS) / ONNX_FILE


def has_onnx_runtime() -> bool:
    """Tell whether the optional package onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def load_matting_model(source: str | None = None) -> MattingModel:
    """Return the network, loaded once a process.

    Raises:
        CheckpointError: weights or onnxruntime are missing, or the file is no such network.
    """
    if not has_onnx_runtime():
        raise CheckpointError(
            "Background removal by a network needs the package onnxruntime.",
            hint='Run `pip install "dream-cad[matting]"`, or use method "grabcut".',
        )
    name = source or get_settings().matting_model
    path = find_matting_model(name)
    if path is None:
        raise CheckpointError(
            f"The matting network {name!r} is not on this machine.",
            hint="Run `dream-cad pull matting`, name a file in DREAM_CAD_MATTING_MODEL, or use "
            'method "grabcut".',
            details={"source": name},
        )
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(path: Path, modified_ns: int) -> MattingModel:
    """Keep one network; a file that was replaced is loaded anew."""
    return MattingModel(path)


def unload_matting_model() -> None:
    """Drop the loaded network."""
    _load.cache_clear()


class MattingModel:
    """A salient-object network.

    Args:
        path: ONNX file; ``preprocessor_config.json`` beside it or one folder up may give the
            normalisation and side, ImageNet's being the default.

    Raises:
        CheckpointError: damaged, or not a map from one picture to one mask.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        try:
            session: Any = onnxruntime.InferenceSession(
                str(path), providers=onnxruntime.get_available_providers()
            )
            (picture,) = session.get_inputs()
            shape = picture.shape
        except Exception as error:  # onnxruntime raises its own errors, bare Exception among them
            raise CheckpointError(
                f"{str(path)!r} is not a matting network: {error}", hint="Fetch it again."
            ) from error
        if len(shape) != 4 or shape[1] != 3:
            raise CheckpointError(f"{str(path)!r} takes {shape}; (1, 3, H, W) is needed.")
        self._session = session
        self._input = picture.name
        settings = _read_preprocessing(path)
        self._height, self._width = (
            side if isinstance(side, int) else settings["side"] for side in shape[2:]
        )
        self._mean = np.array(settings["mean"], np.float32)
        self._std = np.array(settings["std"], np.float32)
        self._lock = threading.Lock()

    def predict(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the matte (H, W) float32 in [0, 1] of a picture (H, W, 3) uint8 sRGB."""
        height, width = rgb.shape[:2]
        small = cv2.resize(rgb, (self._width, self._height), interpolation=cv2.INTER_AREA)
        normal = (small.astype(np.float32) / 255 - self._mean) / self._std
        batch = np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)
        with self._lock:
            output = np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)
        matte = _to_probability(output.reshape(output.shape[-2:]))
        larger = cv2.resize(matte, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(np.clip(larger, 0.0, 1.0), np.float32)


def _to_probability(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a sigmoid to logits; outputs within [0, 1] have had theirs in the network."""
    if not np.isfinite(output).all():
        raise GenerationError("The matting network gave NaN or infinite values.")
    if output.min() >= 0 and output.max() <= 1:
        return output
    return np.asarray(1 / (1 + np.exp(-np.clip(output, -30, 30))), np.float32)


def _read_preprocessing(path: Path) -> dict[str, Any]:
    """Return mean, std and side from the transformers-style description beside the weights."""
    for folder in (path.parent, path.parent.parent):
        file = folder / "preprocessor_config.json"
        if file.is_file():
            return _parse_preprocessing(file)
    return {"mean": _IMAGENET[0], "std": _IMAGENET[1], "side": _DEFAULT_SIDE}


def _parse_preprocessing(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
        size = values.get("size", {})
        side = size if isinstance(size, int) else size.get("height", _DEFAULT_SIDE)
        mean, std = values.get("image_mean", _IMAGENET[0]), values.get("image_std", _IMAGENET[1])
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not 16 <= int(side) <= 4096:
            raise ValueError("mean and std need three positive values, the side 16 to 4096")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{str(file)!r} is invalid: {error}.") from error
    return {"mean": mean, "std": std, "side": int(side)}
