"""Geometry and end to end of Hunyuan3D-Paint against the numeric reference cases."""

from __future__ import annotations

import pytest
import torch

from tests.reference.cases import Case, load_cases
from tests.reference.hunyuan3d_paint_end_to_end import END_TO_END_STAGES
from tests.reference.hunyuan3d_paint_geometry import GEOMETRY_STAGES
from tests.reference.hunyuan3d_paint_networks import NETWORK_STAGES

STAGES = GEOMETRY_STAGES | END_TO_END_STAGES
# What is neither the networks' nor known here fails, so that no stage is left out unseen.
CASES = [c for c in load_cases("hunyuan3d_mini/paint") if c.stage not in NETWORK_STAGES]
# Not part of the pipeline, as the case says itself.
UNUSED = {"persp"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"hunyuan3d_mini-paint-{c.name}") for c in CASES]
)
@torch.no_grad()
def test_case(case: Case) -> None:
    outputs = STAGES[case.stage](case)
    names = set(case.expected()) - UNUSED
    assert names
    for name in sorted(names):
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])
