from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_cad.mesh.uv_overlap import overlapping_pairs, shared_area, triangles_overlap

UNIT = np.array([[0, 0], [1, 0], [0, 1]], np.float64)


def moved(right: float, up: float) -> np.ndarray:
    return UNIT + np.array([right, up])


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(triangles_overlap(np.asarray(a)[None], np.asarray(b)[None])[0])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (UNIT, False),  # the very same corners do not count
        (UNIT[[1, 2, 0]], True),
        (UNIT[::-1], True),
        (UNIT * 0.2 + 0.1, True),  # inside
        (UNIT * 3 - 0.5, True),  # around
        (moved(1, 0), False),  # a shared corner
        (np.array([[1, 0], [0, 1], [1, 1]]), False),  # a shared edge
        (np.array([[0.5, 0.5], [1, 1], [0.5, 1]]), False),  # a corner on an edge
        (moved(2, 0), False),
        (np.array([[0, 0], [0.5, 0.5], [1, 1]]), False),  # no area
        (UNIT + 1e-3, True),
    ],
)
def test_pairs_of_known_answer(other: np.ndarray, expected: bool) -> None:
    assert overlap(UNIT, other) is expected
    assert overlap(other, UNIT) is expected


def test_shared_areas_of_known_size() -> None:
    first = np.stack([UNIT, UNIT, UNIT])
    second = np.stack([UNIT, UNIT + 0.5, moved(0.5, 0.0)])
    assert shared_area(first, second) == pytest.approx([0.5, 0.0, 0.125], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_grid_misses_no_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.choice([0.02, 0.1, 0.6], size=(60, 1, 1))
    triangles = np.clip(rng.random((60, 1, 2)) + size * rng.normal(size=(60, 3, 2)), 0, 1)
    groups = rng.integers(0, 3, 60)
    first, second = np.triu_indices(60, 1)
    same = groups[first] == groups[second]
    first, second = first[same], second[same]
    flagged = triangles_overlap(triangles[first], triangles[second])
    wanted = set(zip(first[flagged].tolist(), second[flagged].tolist(), strict=True))
    found = [tuple(pair) for pair in overlapping_pairs(triangles, groups).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_too_few_triangles_have_no_pairs() -> None:
    assert overlapping_pairs(UNIT[None], np.zeros(1, int)).shape == (0, 2)
    assert overlapping_pairs(np.empty((0, 3, 2)), np.empty(0, int)).shape == (0, 2)
