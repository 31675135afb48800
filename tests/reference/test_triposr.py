"""TripoSR against its numeric reference cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.models.triposr.network import TripoSRNetwork
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.mesh_checks import check_mesh, check_texture
from tests.reference.triposr_stages import STAGES, Outputs

CASES = load_cases("triposr")


@pytest.mark.parametrize("case", [pytest.param(c, id=f"triposr-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    if case.stage == "texture":
        check_atlas(case, outputs)
        return
    if "mesh_stats" in case.data:
        check_mesh(case, outputs["vertices"], outputs["faces"])
        del expected["vertices"], expected["faces"]
    for name in expected:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        case.check(name, outputs[name])


def check_atlas(case: Case, outputs: Outputs) -> None:
    """Rasters of the stored atlas, and our own atlas by its facts: xatlas builds differ."""
    check_texture(case, outputs["positions"], outputs["coverage"], outputs["colors"])
    atlas, vertices, faces = outputs["atlas"], case.input("vertices"), case.input("faces")
    assert np.array_equal(atlas.vmapping[atlas.faces], faces)
    assert len(atlas.vmapping) >= len(vertices)
    assert 0 <= atlas.uvs.min() <= atlas.uvs.max() <= 1
    corners = atlas.uvs[atlas.faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    used = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    assert 0.5 * case.data["coverage"] < used < case.data["coverage"]


def test_state_dict_equals_published_checkpoint() -> None:
    published = json.loads((reference_folder("triposr") / "checkpoint.json").read_text())
    with torch.device("meta"):
        network = TripoSRNetwork(TripoSRConfig.published())
    want = {key: entry["shape"] for key, entry in published["tensors"]["model.ckpt"].items()}
    got = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert list(got.items()) == list(want.items())
    assert sum(math.prod(shape) for shape in got.values()) == 419_275_628
