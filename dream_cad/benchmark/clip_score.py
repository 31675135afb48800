"""CLIP similarity of renders to the prompt (Radford et al. 2021; CLIPScore, Hessel et al. 2021).

The weights are the user's choice and must lie on this machine: nothing is downloaded. Their licence
and hash go into every score, because another checkpoint gives other numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import ModelUnavailableError
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.render import render_turntable

WEIGHTS = "model.safetensors"
_NEEDED = (WEIGHTS, "config.json", "preprocessor_config.json")
_PICTURE = 224


@dataclass(frozen=True)
class ClipSimilarity:
    """How well pictures fit a prompt.

    Attributes:
        similarity: mean cosine between the pictures' embeddings and the prompt's, -1..1.
        views: pictures scored.
        source: folder or repository of the weights.
        license: as stated by their model card, "not stated" otherwise.
        weights_sha256: of ``model.safetensors``.
    """

    similarity: float
    views: int
    source: str
    license: str
    weights_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-compatible values."""
        return asdict(self)


class ClipScorer:
    """Scores pictures with a CLIP checkpoint in the transformers layout.

    Args:
        source: folder with ``model.safetensors``, or a repository "owner/name" that is already in
            the Hugging Face cache.

    Raises:
        ModelUnavailableError: the weights are not on this machine, or are incomplete.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        folder = _folder(self.source)
        missing = [name for name in _NEEDED if not (folder / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"CLIP weights at {self.source!r} lack {', '.join(missing)}.",
                hint="Give a folder in the layout of transformers, with safetensors.",
            )
        self.license = _license(folder)
        self.weights_sha256 = _sha256(folder / WEIGHTS)
        self._model, self._tokenizer, self._processor = _load(folder)

    def score_mesh(
        self, mesh: MeshData, prompt: str, *, views: int = 4, size: int = _PICTURE
    ) -> ClipSimilarity:
        """Render a mesh from ``views`` sides and score the pictures against the prompt."""
        sheet = render_turntable(mesh, views=views, size=size)
        return self.score_pictures(np.split(sheet, views, axis=1), prompt)

    def score_pictures(self, pictures: list[NDArray[np.uint8]], prompt: str) -> ClipSimilarity:
        """Score (H, W, 3) uint8 pictures against the prompt."""
        import torch

        tokens = self._tokenizer([prompt], return_tensors="pt", truncation=True, padding=True)
        pixels = self._processor([Image.fromarray(p) for p in pictures], return_tensors="pt")
        with torch.no_grad():
            output = self._model(**tokens, pixel_values=pixels["pixel_values"])
        cosine = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
        return ClipSimilarity(
            similarity=float(cosine.mean()),
            views=len(pictures),
            source=self.source,
            license=self.license,
            weights_sha256=self.weights_sha256,
        )


def _folder(source: str) -> Path:
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelUnavailableError(
            f"No CLIP weights at {source!r}: it is no folder, and not in the Hugging Face cache.",
            hint="Download a CLIP checkpoint first, or leave the CLIP similarity out.",
        ) from error


def _load(folder: Path) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    try:
        model: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"CLIP weights at {folder} do not load: {error}") from error
    return model.eval(), tokenizer, processor


def _license(folder: Path) -> str:
    """Return the licence of the model card's front matter."""
    card = folder / "README.md"
    if card.is_file():
        parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        if isinstance(front, dict) and front.get("license"):
            return str(front["license"])
    return "not stated"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
