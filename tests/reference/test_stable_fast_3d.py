"""Stable Fast 3D against its numeric reference cases."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray

from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.network import StableFast3DNetwork
from tests.reference.cases import Case, load_cases, reference_folder
from tests.reference.stable_fast_3d_mesh_stages import (
    MIN_SAME_LAYER,
    MIN_SAME_UV,
    same_fraction,
)
from tests.reference.stable_fast_3d_stages import STAGES, Outputs

CASES = load_cases("stable_fast_3d")
# The cases' notes: textures follow the atlas, whose layers depend on rounding.
_COLOR_TOLERANCE = 2
_MIN_SAME_TEXELS = 0.95
_BOX_TOLERANCE = 1e-4


@pytest.mark.parametrize("case", [pytest.param(c, id=f"stable_fast_3d-{c.name}") for c in CASES])
@torch.no_grad()
def test_case(case: Case) -> None:
    assert case.stage in STAGES, f"stage {case.stage!r} is not known to this runner"
    outputs = STAGES[case.stage](case)
    expected = case.expected()
    assert expected
    special = check_special(case, outputs, expected)
    own = case.data.get("atol_per_output", {})
    for name in expected.keys() - special:
        assert name in outputs, f"output {name!r} is not made by stage {case.stage!r}"
        if isinstance(own.get(name), float):
            np.testing.assert_allclose(outputs[name], expected[name], atol=own[name], err_msg=name)
        else:
            case.check(name, outputs[name])


def check_special(case: Case, outputs: Outputs, expected: dict[str, NDArray[Any]]) -> set[str]:
    """Compare what the case's note says to compare otherwise; returns those names."""
    if "atlas_index" in expected:
        same = (outputs["atlas_index"] == expected["atlas_index"]).mean()
        assert same >= MIN_SAME_LAYER, f"{case.name}: {same:.2%} of layers agree"
        return {"atlas_index"}
    if "v_tex" in expected:
        same = same_fraction(outputs["v_tex"], expected["v_tex"])
        assert same >= MIN_SAME_UV, f"{case.name}: {same:.2%} of faces lie where they should"
        return {"v_tex"}
    if "atlas_hist" in expected:
        moved = np.abs(outputs["atlas_hist"] - expected["atlas_hist"]).sum() / 2
        assert moved <= 0.01 * expected["atlas_hist"].sum()
        return {"atlas_hist"}
    if "out_v" in expected:
        check_export(case, outputs, expected)
        return {"out_v", "out_f", "out_uv", "out_normals", "base_u8", "bump_u8", "bake_mask"}
    return set()


def check_export(case: Case, outputs: Outputs, expected: dict[str, NDArray[Any]]) -> None:
    """Positions as a set, area and box of the exported mesh, and the textures."""
    got, want = outputs["out_v"], expected["out_v"]
    gaps = [
        np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1).max()
        for a, b in ((got, want), (want, got))
    ]
    assert max(gaps) < case.data["atol"]
    facts = case.data["mesh_out"]
    mesh = trimesh.Trimesh(got, outputs["out_f"], process=False)
    assert mesh.area == pytest.approx(facts["area"], rel=1e-3)
    np.testing.assert_allclose(mesh.bounds, facts["bbox"], atol=_BOX_TOLERANCE)
    both = outputs["bake_mask"] & expected["bake_mask"]
    assert both.sum() >= _MIN_SAME_TEXELS * expected["bake_mask"].sum()
    for name in ("base_u8", "bump_u8"):
        off = np.abs(outputs[name].astype(int) - expected[name].astype(int)).max(axis=-1)
        same = (off[both] <= _COLOR_TOLERANCE).mean()
        assert same >= _MIN_SAME_TEXELS, f"{name}: {same:.2%} of texels agree"


def published() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (reference_folder("stable_fast_3d") / "checkpoint.json").read_text()
    )
    return data


def test_state_dict_equals_published_checkpoint() -> None:
    with torch.device("meta"):
        network = StableFast3DNetwork(StableFast3DConfig.published(), with_text=True)
    want = {
        key: entry["shape"] for key, entry in published()["tensors"]["model.safetensors"].items()
    }
    got = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert got == want
    assert sum(math.prod(shape) for shape in got.values()) == published()["parameters"]


def test_text_tower_is_what_inference_leaves_out() -> None:
    with torch.device("meta"):
        network = StableFast3DNetwork(StableFast3DConfig.published())
    left_out = published()["tensors"]["model.safetensors"].keys() - network.state_dict().keys()
    prefixes = tuple(published()["unused_prefixes"])
    assert left_out
    assert all(key.startswith(prefixes) for key in left_out)


def test_published_config_is_read() -> None:
    data = json.loads((reference_folder("stable_fast_3d") / "config.json").read_text())
    assert StableFast3DConfig.from_mapping(data["model"]) == StableFast3DConfig.published()
