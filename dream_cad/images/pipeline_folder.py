"""What a diffusers pipeline folder says about itself, checked before any of it is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dream_cad.exceptions import CheckpointError

MODEL_INDEX = "model_index.json"
SIDECAR = "dream_cad.json"
DOWNLOAD_PATTERNS = ("*.json", "*.txt", "*.model", "*/*.safetensors", "README.md", "LICENSE*")
"""Never pickles or code, and not the single-file copies that many repositories hold beside."""

_DISTILLED = re.compile(r"turbo|lightning|lcm|schnell|klein|hyper|distill", re.IGNORECASE)
_LICENSE_LINE = re.compile(r"^license(?:_name)?:\s*(\S+)\s*$", re.MULTILINE)


class PipelineDefaults(BaseModel):
    """How to call a pipeline, from its ``dream_cad.json`` or from its family.

    Attributes:
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 or less means none.
        height, width: pixels; None leaves the choice to the pipeline.
        prompt_template: object-shot template; None means that of the settings.
        license: SPDX id or name of the weights' licence.
        vocabulary: all words the text encoder knows; None when it knows any word.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_inference_steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100, allow_inf_nan=False)
    height: int | None = Field(None, ge=8, le=4096)
    width: int | None = Field(None, ge=8, le=4096)
    prompt_template: str | None = None
    license: str = "unknown"
    vocabulary: list[str] | None = None


@dataclass(frozen=True)
class _Family:
    """Call defaults of a pipeline class, plain and distilled: (steps, guidance, side)."""

    plain: tuple[int, float, int | None]
    distilled: tuple[int, float, int | None]


# From the model cards of the best known member: SD 1.5 / SD-Turbo, SDXL / SDXL-Turbo, FLUX.1 dev /
# schnell, FLUX.2 klein base / klein, Z-Image / Z-Image-Turbo. Sides are at most 1024: the models
# downstream look at 512 to 1024 pixels.
_FAMILIES = {
    "StableDiffusionPipeline": _Family((30, 7.5, None), (2, 0.0, 512)),
    "StableDiffusionXLPipeline": _Family((30, 6.0, 1024), (4, 0.0, 512)),
    "FluxPipeline": _Family((28, 3.5, 768), (4, 0.0, 768)),
    "Flux2KleinPipeline": _Family((28, 4.0, 768), (4, 1.0, 768)),
    "ZImagePipeline": _Family((30, 4.0, 768), (9, 0.0, 768)),
}
_OTHER = _Family((30, 5.0, None), (4, 0.0, None))


def read_model_index(folder: Path) -> dict[str, Any]:
    """Return ``model_index.json`` after checking that it names only library classes.

    Raises:
        CheckpointError: unreadable, or it asks for code that is not part of diffusers or
            transformers.
    """
    index = _read_json(folder / MODEL_INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or not name.isidentifier():
        raise _foreign_code(folder, f"pipeline {name!r}")
    for component, entry in index.items():
        if isinstance(entry, list) and not _is_library_entry(entry):
            raise _foreign_code(folder, f"component {component!r} {entry!r}")
    return index


def _is_library_entry(entry: list[Any]) -> bool:
    """[library, class]; old pipelines name the diffusers sub-package of their safety checker."""
    return len(entry) == 2 and entry[0] in (None, "diffusers", "transformers", "stable_diffusion")


def _foreign_code(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"The pipeline in {str(folder)!r} needs code outside diffusers and transformers: {what}.",
        hint="Only plain pipelines are loaded; code that comes with weights is never run.",
    )


def read_defaults(folder: Path, source: str) -> PipelineDefaults:
    """Return the call defaults of the pipeline in ``folder``, known to users as ``source``.

    Raises:
        CheckpointError: ``dream_cad.json`` is there but wrong.
    """
    sidecar = folder / SIDECAR
    if sidecar.is_file():
        try:
            return PipelineDefaults.model_validate(_read_json(sidecar))
        except ValidationError as error:
            raise CheckpointError(f"{str(sidecar)!r} is invalid: {error}") from error
    index = read_model_index(folder)
    family = _FAMILIES.get(index["_class_name"], _OTHER)
    distilled = index.get("is_distilled", _DISTILLED.search(source) is not None)
    steps, guidance, side = family.distilled if distilled else family.plain
    return PipelineDefaults(
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=side,
        width=side,
        license=_read_license(folder),
    )


def find_variant(folder: Path) -> str | None:
    """Return ``"fp16"`` if the folder holds half-precision copies of its weights."""
    return "fp16" if any(folder.glob("*/*.fp16*.safetensors")) else None


def count_weight_bytes(folder: Path, variant: str | None) -> int:
    """Return the size of the weights that would be loaded, in bytes."""
    files = folder.glob("*/*.safetensors")
    chosen = [file for file in files if variant is None or f".{variant}" in file.name]
    return sum(file.stat().st_size for file in chosen)


def _read_license(folder: Path) -> str:
    """Return the licence that the model card's front matter names."""
    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    found = _LICENSE_LINE.findall(card.read_text("utf-8", errors="replace").split("\n---")[0])
    return next((name for name in reversed(found) if name != "other"), "unknown")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} holds no JSON object.")
    return value
