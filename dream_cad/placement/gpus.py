"""The GPUs of a cluster by kind."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dream_cad.exceptions import InvalidConfigError

# Memory in GB as sold, which is a little less than the driver tells: shares stay on the safe
# side. The second entry is the label under which Ray knows the kind.
KNOWN_GPUS: dict[str, tuple[float, str]] = {
    "T4": (16, "T4"),
    "V100": (16, "V100"),
    "L4": (24, "L4"),
    "A10": (24, "A10"),
    "A10G": (24, "A10G"),
    "RTX3090": (24, "RTX3090"),
    "RTX4090": (24, "RTX4090"),
    "RTX5090": (32, "RTX5090"),
    "A100-40": (40, "A100-40G"),
    "A40": (48, "A40"),
    "A6000": (48, "A6000"),
    "L40S": (48, "L40S"),
    "A100-80": (80, "A100-80G"),
    "H100": (80, "H100"),
    "H200": (141, "H200"),
    "B200": (180, "B200"),
}
MOST_GPUS = 100_000
_ONE = re.compile(r"(?:(\d+)\s*x\s*)?([A-Za-z][\w.-]*?)(?::(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class GpuGroup:
    """GPUs of one kind.

    Attributes:
        count: how many.
        name: what people call them.
        memory_gb: of the smallest of them, in GB (10^9 bytes).
        accelerator: Ray's label of the nodes that have them; None where they have none.
    """

    count: int
    name: str
    memory_gb: float
    accelerator: str | None = None


def uniform(memory_gb: float, count: int = 1) -> list[GpuGroup]:
    """Return the groups of a cluster of one kind; none for a memory of 0."""
    return [GpuGroup(count, "GPU", memory_gb)] if memory_gb > 0 else []


def parse_gpus(text: str) -> list[GpuGroup]:
    """Read a list such as ``4xA10,2xA100-80`` or ``2xMI300:192`` (GB after the colon).

    Raises:
        InvalidConfigError: it cannot be read, or the memory of a kind is not known.
    """
    groups = [_parse_one(part.strip()) for part in text.split(",")]
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidConfigError(f"{twice[0]} stands twice in {text!r}.", hint="Add them up.")
    if sum(group.count for group in groups) > MOST_GPUS:
        raise InvalidConfigError(f"{text!r} are more than {MOST_GPUS:,} GPUs.")
    return groups


def _parse_one(part: str) -> GpuGroup:
    found = _ONE.fullmatch(part)
    if found is None or (count := int(found[1] or 1)) < 1:
        raise InvalidConfigError(
            f"{part!r} is not a number of GPUs.", hint='Write it like "4xA10,2xA100-80".'
        )
    upper = found[2].upper()
    known = KNOWN_GPUS.get(upper) or KNOWN_GPUS.get(upper.removesuffix("GB").removesuffix("G"))
    if found[3] is not None:
        memory_gb, label = float(found[3]), known[1] if known else found[2]
    elif known is not None:
        memory_gb, label = known
    else:
        raise InvalidConfigError(
            f"The memory of a {found[2]} is not known here.",
            hint=f"Write it behind, like {part}:24. Known: {', '.join(KNOWN_GPUS)}.",
        )
    if not (math.isfinite(memory_gb) and memory_gb > 0):
        raise InvalidConfigError(f"{part!r} has no memory.")
    return GpuGroup(count, found[2], memory_gb, label)


def smallest_gb(groups: Sequence[GpuGroup]) -> float:
    """Return the memory of the smallest kind; 0 without GPUs."""
    return min((group.memory_gb for group in groups), default=0.0)


def largest_gb(groups: Sequence[GpuGroup]) -> float:
    """Return the memory of the largest kind; 0 without GPUs."""
    return max((group.memory_gb for group in groups), default=0.0)
