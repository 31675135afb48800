"""The geometry of Hunyuan3D-Paint against its numeric reference cases."""

from __future__ import annotations

import pytest
import torch

from tests.reference.cases import Case, load_cases
from tests.reference.hunyuan3d_paint_geometry import GEOMETRY_STAGES

CASES = [c for c in load_cases("hunyuan3d_mini/paint") if c.stage in GEOMETRY_STAGES]
# Not part of the pipeline, as the case says itself.
UNUSED = {"persp"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"hunyuan3d_mini-paint-{c.name}") for c in CASES]
)
@torch.no_grad()
def test_case(case: Case) -> None:
    outputs = GEOMETRY_STAGES[case.stage](case)
    names = set(case.expected()) - UNUSED
    assert names
    for name in sorted(names):
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])
