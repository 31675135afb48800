"""What a cluster is to do: jobs an hour by model, read from a YAML file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dream_cad.exceptions import InvalidConfigError, StorageError

_BUSY = 0.8
_MOST_BYTES = 2**20
_TIME = re.compile(r"(?:[\d.]+\s*-\s*)?([\d.]+)\s*s")


class _Load(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelLoad(_Load):
    """What one model is to do; ``replicas`` follow from the jobs unless they are given.

    ``seconds`` of a job is one number, or one by kind of GPU.
    """

    name: str = Field(min_length=1, max_length=64)
    jobs_per_hour: float = Field(0.0, ge=0)
    seconds: float | dict[str, float] | None = None
    replicas: int | None = Field(None, ge=0, le=100_000)
    from_text: float = Field(1.0, ge=0, le=1, description="Share of jobs that begin with a prompt.")
    checkpoint: str = "published"
    accelerator: str | None = None
    num_gpus: float | None = Field(None, ge=0, le=64)

    @field_validator("seconds")
    @classmethod
    def _positive(cls, value: float | dict[str, float] | None) -> float | dict[str, float] | None:
        numbers = value.values() if isinstance(value, dict) else [] if value is None else [value]
        if any(number <= 0 for number in numbers):
            raise ValueError("seconds must be above 0")
        return value

    def seconds_on(self, gpus: tuple[str, ...], typical: str) -> float:
        """Return the seconds of a job on the slowest of these kinds of GPU.

        Without ``seconds``, the upper end of what the model's capabilities say.

        Raises:
            InvalidConfigError: nothing says how long a job takes there.
        """
        if isinstance(self.seconds, dict):
            known = [self.seconds[name] for name in gpus if name in self.seconds]
            if len(known) == len(gpus) and known:
                return max(known)
        elif self.seconds is not None:
            return self.seconds
        elif (found := _TIME.fullmatch(typical)) is not None:
            return float(found[1])
        raise InvalidConfigError(
            f"How long does {self.name} take on {', '.join(gpus) or 'a CPU'}?",
            hint="Give seconds in the load file: a number, or one for each kind of GPU.",
        )


class TextLoad(_Load):
    """The stage that makes pictures of prompts."""

    min_vram_gb: float = Field(8.0, gt=0)
    seconds: float = Field(1.5, gt=0)
    replicas: int | None = Field(None, ge=0, le=100_000)
    accelerator: str | None = None


class Load(_Load):
    """Everything that is to be done on a cluster; ``busy`` is how full replicas may be."""

    models: list[ModelLoad] = Field(min_length=1, max_length=1000)
    text_to_image: TextLoad = TextLoad()
    busy: float = Field(_BUSY, gt=0, le=1)

    @field_validator("models")
    @classmethod
    def _names_once(cls, models: list[ModelLoad]) -> list[ModelLoad]:
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError("each model may be listed once")
        return models

    def replicas_for(self, jobs_per_hour: float, seconds: float) -> int:
        """Return how many replicas do so many jobs an hour; at least one."""
        return max(1, math.ceil(jobs_per_hour * seconds / 3600 / self.busy - 1e-9))


def read_load(path: Path) -> Load:
    """Read a load file.

    Raises:
        StorageError: it cannot be read.
        InvalidConfigError: it is no YAML, or says what is not known.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > _MOST_BYTES:
        raise InvalidConfigError(f"{path} is larger than {_MOST_BYTES:,} bytes.")
    try:
        return Load.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfigError(f"{path} is not YAML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidConfigError(
            f"{path}: {place}: {first['msg']}.",
            hint="models: [{name: triposr, jobs_per_hour: 1000, seconds: 2}]",
        ) from error
