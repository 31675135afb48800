"""Settings from ``DREAM_CAD_*`` environment variables (pydantic-settings)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dream_cad.exceptions import InvalidConfigError

Precision = Literal["fp32", "fp16", "bf16"]
CheckpointChoice = Literal["auto", "published", "nano"]


class Settings(BaseSettings):
    """Every ``DREAM_CAD_*`` variable, its type, range and default."""

    model_config = SettingsConfigDict(env_prefix="DREAM_CAD_", extra="ignore", frozen=True)

    default_model: str = Field(
        "triposr", min_length=1, description="Model taken when none is named."
    )
    precision: Precision | None = Field(
        None, description="Weights and activations; by default fp16 on CUDA and fp32 on a CPU."
    )
    checkpoint: CheckpointChoice = Field("auto", description="Which weights 'auto' models load.")

    model_path: Path | None = Field(
        None, description="Folder of published checkpoints, one sub-folder for each model."
    )
    cache_dir: Path = Field(
        Path("~/.cache/dream_cad"), description="Downloads and other data that can be made again."
    )
    output_dir: Path = Field(Path("outputs"), description="Where meshes go when no path is given.")

    gpu_id: int = Field(0, ge=0, description="CUDA device of this process.")
    max_workers: int = Field(
        2, ge=1, le=256, description="Meshes finished at once by a server process."
    )
    batch_size: int = Field(1, ge=1, le=64, description="Multiplies the points of one field query.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe log line written; DEBUG shows tracebacks as well."
    )
    profile: bool = Field(False, description="Record seconds per stage in result.metadata.")

    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the queue; SQLite in output_dir when not given."
    )
    text_to_image: str = Field(
        "black-forest-labs/FLUX.2-klein-4B",
        description="diffusers repository ('owner/name' or 'owner/name@revision') or folder used "
        "before image models at full size. The default is Apache-2.0 and needs 4 steps.",
    )
    prompt_template: str = Field(
        "{prompt}, single object, centred, whole object in view, plain grey background",
        description="Object-shot template of text-to-image models that bring none of their own.",
    )
    matting_model: str = Field(
        "onnx-community/BiRefNet_lite-ONNX",
        description="Background-removal network: ONNX file, folder, or repository 'owner/name' or "
        "'owner/name@revision'. The default is MIT and runs without remote code.",
    )
    max_prompt_chars: int = Field(2_000, ge=1, description="Longer prompts are refused.")
    max_image_bytes: int = Field(32 * 2**20, ge=1, description="Larger picture files are refused.")
    max_image_pixels: int = Field(
        64_000_000, ge=1, description="Pictures with more pixels are refused before decoding."
    )

    server: str = Field(
        "http://127.0.0.1:8000", min_length=1, description="Server that clients talk to."
    )
    api_key: SecretStr | None = Field(
        None, description="Key that clients send, where the server asks for one."
    )
    patience_s: float = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which clients try again when the server is away or busy.",
    )

    @field_validator("cache_dir", "output_dir", "model_path")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read from the environment once.

    Raises:
        InvalidConfigError: a variable has a value outside its range; names the variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "DREAM_CAD_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidConfigError(
            f"{variable} is {first['input']!r}: {first['msg']}.",
            hint="Correct or unset the variable.",
            details={"variable": variable},
        ) from error


def reload_settings() -> Settings:
    """Forget the cached settings and read the environment again."""
    get_settings.cache_clear()
    return get_settings()
