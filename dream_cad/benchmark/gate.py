"""The regression gate: numbers of a pass against a baseline file of the same device."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream_cad.exceptions import FileFormatError, InvalidConfigError, StorageError

Summaries = Mapping[str, Mapping[str, float]]
"""Model -> metric -> number, as ``summarize_records`` returns."""


@dataclass(frozen=True)
class Threshold:
    """How much worse a metric may get before the gate closes.

    Attributes:
        higher_is_better: direction.
        relative: allowed part of the baseline.
        absolute: allowed difference; the larger of both counts.
    """

    higher_is_better: bool
    relative: float = 0.0
    absolute: float = 0.0


THRESHOLDS: dict[str, Threshold] = {
    "success_rate": Threshold(higher_is_better=True),
    "generation_time_seconds": Threshold(higher_is_better=False, relative=0.25, absolute=0.05),
    "generation_time_p95_seconds": Threshold(higher_is_better=False, relative=0.5, absolute=0.1),
    "peak_vram_gb": Threshold(higher_is_better=False, relative=0.05, absolute=0.1),
    "peak_ram_gb": Threshold(higher_is_better=False, relative=0.15, absolute=0.2),
    "quality/overall_mesh_quality": Threshold(higher_is_better=True, absolute=2.0),
    "quality/game_ready_score": Threshold(higher_is_better=True, absolute=2.0),
    "quality/print_ready_score": Threshold(higher_is_better=True, absolute=2.0),
    "truth/chamfer": Threshold(higher_is_better=False, relative=0.05, absolute=0.001),
    "truth/f_score_0.02": Threshold(higher_is_better=True, absolute=0.02),
    "truth/volume_iou": Threshold(higher_is_better=True, absolute=0.02),
    "truth/normal_consistency": Threshold(higher_is_better=True, absolute=0.02),
    "truth/ssim": Threshold(higher_is_better=True, absolute=0.02),
    "truth/psnr_db": Threshold(higher_is_better=True, absolute=0.5),
    "clip_similarity": Threshold(higher_is_better=True, absolute=0.01),
}


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        model: name.
        metric: name.
        baseline: what the file says.
        found: what was measured, None if it is missing now.
        limit: the worst value that passes.
        is_passed: whether it does.
    """

    model: str
    metric: str
    baseline: float
    found: float | None
    limit: float
    is_passed: bool

    def __str__(self) -> str:
        state = "ok" if self.is_passed else "REGRESSION"
        found = "missing" if self.found is None else f"{self.found:.4g}"
        return (
            f"{state}: {self.model} {self.metric}: {found}, baseline {self.baseline:.4g}, "
            f"limit {self.limit:.4g}"
        )


def baseline_path(folder: Path, device: str, suite: str) -> Path:
    """Return the file of a device and suite."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
    return folder / f"{slug}--{suite}.json"


def write_baseline(path: Path, summaries: Summaries, facts: Mapping[str, Any]) -> None:
    """Write what later passes are held to.

    Args:
        path: of the file, see ``baseline_path``.
        summaries: the numbers; metrics without a threshold are left out.
        facts: where they were measured.

    Raises:
        StorageError: the file cannot be written.
    """
    models = {
        model: {name: value for name, value in found.items() if name in THRESHOLDS}
        for model, found in summaries.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**facts, "models": models}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}.") from error


def check_baseline(path: Path, summaries: Summaries) -> list[Check]:
    """Compare every number of the baseline; one that is missing now is a regression.

    Models of which the pass knows nothing are left out, so that one model can be checked alone.

    Raises:
        InvalidConfigError: there is no baseline for this device, or it knows none of the models.
        FileFormatError: the file is damaged.
    """
    if not path.is_file():
        raise InvalidConfigError(
            f"There is no baseline {path}.", hint="Write one with --write-baseline."
        )
    try:
        models = dict(json.loads(path.read_text(encoding="utf-8"))["models"])
        checks = [
            _check(model, name, float(value), summaries[model].get(name))
            for model, found in models.items()
            if model in summaries
            for name, value in found.items()
            if name in THRESHOLDS
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path} is not a baseline: {error!r}.") from error
    if not checks:
        raise InvalidConfigError(
            f"{path} knows none of {', '.join(summaries)}.", hint="Write one with --write-baseline."
        )
    return checks


def _check(model: str, metric: str, baseline: float, found: float | None) -> Check:
    threshold = THRESHOLDS[metric]
    allowed = max(threshold.relative * abs(baseline), threshold.absolute)
    limit = baseline - allowed if threshold.higher_is_better else baseline + allowed
    is_passed = False
    if found is not None and math.isfinite(found):
        is_passed = found >= limit if threshold.higher_is_better else found <= limit
    return Check(model, metric, baseline, found, limit, is_passed)
