"""Read the numeric reference cases and compare with them (format: data/<model>/cases.json)."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tests.reference import formula_weights

_SPEC = re.compile(
    r"^(?:(?P<factor>[-+.\deE]+)\*)?(?P<kind>normal|uniform):(?P<name>[^:]+):"
    r"\[?(?P<shape>[\dx, ]+)\]?(?P<offset>[-+][.\d]+)?"
    r"(?P<steps>(?: \S+)*)$"
)
_STORED = re.compile(r"^npz:(?P<key>[^\s]+)")
_CLAMP = re.compile(r"^clamp\((?P<low>[-.\d]+),(?P<high>[-.\d]+)\)$")
_AFFINE = re.compile(r"^(?P<sign>[*/])(?P<factor>[.\d]+)(?P<offset>[-+][.\d]+)?$")
_REMARK = ("repeated", "over", "the", "batch")


def reference_folder(model: str) -> Path:
    """Folder with the cases of ``model``; DREAM_CAD_REFERENCE_DIR names another set."""
    default = Path(__file__).parent / "data"
    return Path(os.environ.get("DREAM_CAD_REFERENCE_DIR", default)) / model


@lru_cache
def _arrays(folder: Path, file: str = "*.npz") -> Mapping[str, NDArray[Any]]:
    """Every array of the npz files in the folder that match, by its key."""
    arrays: dict[str, NDArray[Any]] = {}
    for path in sorted(folder.glob(file)):
        with np.load(path) as stored:
            arrays.update({key: stored[key] for key in stored})
    return arrays


@dataclass(frozen=True)
class Case:
    """One reference case: configuration, inputs and expected outputs of a stage."""

    folder: Path
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def stage(self) -> str:
        return str(self.data["stage"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.data["config"])

    @property
    def prefix(self) -> str:
        return str(self.data["prefix"] or "")

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The stored arrays: of the case's own file where it names one."""
        return _arrays(self.folder, self.data.get("npz") or self.data.get("file") or "*.npz")

    def has(self, *inputs: str) -> bool:
        return all(name in self.data["inputs"] for name in inputs)

    def array(self, spec: str) -> NDArray[Any]:
        """The array that an input or override string stands for."""
        if stored := _STORED.match(spec):
            own = self.arrays
            return (
                own[stored["key"]] if stored["key"] in own else _arrays(self.folder)[stored["key"]]
            )
        parts = _SPEC.match(spec)
        if parts is None:
            raise ValueError(f"case {self.name}: input {spec!r} is of no known form")
        shape = tuple(int(size) for size in re.split("[x,]", parts["shape"]))
        values = getattr(formula_weights, parts["kind"])(parts["name"], shape)
        values = values * np.float32(parts["factor"] or 1) + np.float32(parts["offset"] or 0)
        for step in (parts["steps"] or "").split():
            values = _apply_step(values, step)
        return values

    def input(self, name: str) -> Any:
        """An input as an array; numbers stay numbers."""
        value = self.data["inputs"][name]
        return self.array(value) if isinstance(value, str) else value

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.input(name)))

    def fill(self, module: nn.Module) -> None:
        """Set the formula weights of the case's prefix, then the overrides."""
        formula_weights.fill(module, self.prefix)
        for key, spec in self.data.get("override", {}).items():
            with torch.no_grad():
                module.state_dict()[key].copy_(torch.from_numpy(self.array(spec)))
        module.eval()

    def expected(self) -> dict[str, NDArray[Any]]:
        """Expected outputs by short name."""
        return {_short_name(key): self.arrays[key] for key in self.data["outputs"]}

    def tolerance(self, output: str) -> tuple[float, float]:
        """(rtol, atol) of an output."""
        rtol, atol = self.data.get("tolerances", {}).get(
            output, (self.data["rtol"], self.data["atol"])
        )
        return rtol, atol

    def check(self, output: str, actual: Any) -> None:
        """Fail unless ``actual`` (or the stored part of it) equals the expected output."""
        want = self.expected()[output]
        got = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
        rtol, atol = self.tolerance(output)
        allowed = float(self.data.get("max_outside_fraction", 0.0))
        facts = [_distance(part, want, rtol, atol) for part in stored_parts(got, want.shape)]
        assert facts, f"{self.name}/{output}: shape {got.shape} cannot hold {want.shape}"
        outside, largest = min(facts)
        assert outside <= allowed, (
            f"{self.name}/{output}: {outside:.2%} outside rtol {rtol} atol {atol}, "
            f"largest difference {largest:.3g}"
        )


def _short_name(key: str) -> str:
    """``case/output`` or ``case.output``: the last part; a dot before a digit is a decimal one."""
    return re.split(r"/|\.(?!\d)", key)[-1]


def _apply_step(values: NDArray[Any], step: str) -> NDArray[Any]:
    """Apply what follows an input's shape: ``clamp(a,b)``, ``/x``, ``*x`` or ``*x-y``."""
    if step in _REMARK:
        return values
    if clamp := _CLAMP.match(step):
        return values.clip(np.float32(clamp["low"]), np.float32(clamp["high"]))
    affine = _AFFINE.match(step)
    if affine is None:
        raise ValueError(f"input step {step!r} is of no known form")
    factor = np.float32(affine["factor"])
    scaled = values / factor if affine["sign"] == "/" else values * factor
    return scaled + np.float32(affine["offset"] or 0)


def _distance(
    got: NDArray[Any], want: NDArray[Any], rtol: float, atol: float
) -> tuple[float, float]:
    """Fraction of the elements outside the tolerance, and the largest difference."""
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    outside = ~(difference <= atol + rtol * np.abs(want.astype(np.float64)))
    return float(outside.mean()), float(difference.max())


def stored_parts(array: NDArray[Any], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Every way in which a stored ``shape`` can be a regular part of ``array``.

    Cases store every n-th entry or the first n entries of long axes and say so in words only;
    leading axes of size one may be dropped.
    """
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    if array.ndim != len(shape):
        return
    choices = [_axis_slices(n, m) for n, m in zip(array.shape, shape, strict=True)]
    for slices in itertools.product(*choices):
        yield array[slices]


def _axis_slices(size: int, stored: int) -> list[slice]:
    if size == stored:
        return [slice(None)]
    strides = [step for step in range(2, size + 1) if -(-size // step) == stored]
    return [slice(None, None, step) for step in strides] + (
        [slice(stored)] if stored < size else []
    )


def load_cases(model: str) -> list[Case]:
    """All cases of a model; a missing folder or file raises, so that it fails the run."""
    folder = reference_folder(model)
    data = json.loads((folder / "cases.json").read_text())
    cases = data if isinstance(data, list) else data["cases"]
    return [Case(folder, case) for case in cases]
