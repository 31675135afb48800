"""TripoSR against its numeric reference cases."""

from __future__ import annotations

import json
import math

import pytest
import torch

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.triposr_stages import STAGES

CASES = load_cases("triposr")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"triposr-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def test_state_dict_equals_published_checkpoint() -> None:
    published = json.loads((reference_folder("triposr") / "checkpoint.json").read_text())
    with torch.device("meta"):
        network = TripoSRNetwork(TripoSRConfig.published())
    want = {key: entry["shape"] for key, entry in published["tensors"]["model.ckpt"].items()}
    got = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert list(got.items()) == list(want.items())
    assert sum(math.prod(shape) for shape in got.values()) == 419_275_628
