from __future__ import annotations

import re

import numpy as np
import pytest

from dream_cad.benchmark.quality import QualityAssessor
from dream_cad.benchmark.reference import compare_to_reference
from dream_cad.benchmark.suites import GROUPS, SUITES, text_cases
from dream_cad.exceptions import InvalidConfigError
from dream_cad.prompts import check_prompt
from jobs.nano.dataset import HELD_OUT_SEED
from jobs.nano.measure import held_out_items
from jobs.nano.truth import TRUTH_CASES, ground_truth, truth_cases, truth_mesh


def test_suites_cover_the_six_groups_and_grow() -> None:
    sizes = []
    for suite in SUITES:
        cases = text_cases(suite)
        assert {case.group for case in cases} == set(GROUPS)
        assert len(GROUPS) == 6
        assert all(case.tags for case in cases)
        keys = [case.key for case in (*cases, *truth_cases(suite))]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)
        for case in cases:
            check_prompt(case.prompt)
        sizes.append(len(keys))
    assert sizes == [6 + 2, 48 + 24, 144 + 96]
    assert len({case.prompt for case in text_cases("standard")}) == 48


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="smoke"):
        text_cases("huge")  # type: ignore[arg-type]


def test_ground_truth_is_a_closed_mesh_of_the_object_on_the_picture() -> None:
    truth = ground_truth(1)
    assert truth.caption == truth_cases("smoke")[1].prompt
    assert (truth.picture.mode, truth.picture.size) == ("RGBA", (128, 128))
    metrics = QualityAssessor().assess(truth.mesh)
    assert metrics.is_watertight
    assert metrics.volume is not None
    assert metrics.volume > 0
    sides = np.ptp(truth.mesh.vertices, axis=0)
    assert sides.max() == pytest.approx(1, abs=0.02)
    assert TRUTH_CASES["standard"] == 24
    assert HELD_OUT_SEED >= 10_000_000


def test_truth_meshes_converge_to_the_solid() -> None:
    item = held_out_items(1)[0]
    fine, coarse = truth_mesh(item, 112), truth_mesh(item, 56)
    near = compare_to_reference(coarse, fine, normalize=False, samples=5000)
    assert near.f_score["0.02"] > 0.97
    back = fine.vertices[:, [2, 0, 1]]
    assert np.abs(item.solid.distance(back)).max() < 0.01
