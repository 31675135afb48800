"""The reader of the reference cases itself: it must be able to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reference.cases import Case, load_cases, reference_folder, stored_parts
from tests.reference.formula_weights import normal, uniform


def make_case(tmp_path: Path, **changes: Any) -> Case:
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "a.npz", **{"one/out": stored, "one/given": stored + 1})
    data = {
        "name": "one",
        "stage": "backbone",
        "config": {},
        "prefix": "",
        "inputs": {"x": "npz:one/given (in a.npz)", "n": 3},
        "outputs": ["one/out"],
        "rtol": 0,
        "atol": 0.01,
    }
    return Case(tmp_path, data | changes)


def test_equal_output_passes_and_others_fail(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    want = case.expected()["out"]
    case.check("out", want + 0.009)
    with pytest.raises(AssertionError, match=r"100\.00% outside"):
        case.check("out", want + 0.02)
    with pytest.raises(AssertionError, match="cannot hold"):
        case.check("out", want.T)
    with pytest.raises(AssertionError, match="outside"):
        case.check("out", want * np.nan)


def test_stated_fraction_may_lie_outside(tmp_path: Path) -> None:
    case = make_case(tmp_path, max_outside_fraction=0.2)
    off = case.expected()["out"].copy()
    off[0, 0] += 5
    case.check("out", off)
    off[1, 1] += 5
    with pytest.raises(AssertionError, match=r"33\.33% outside"):
        case.check("out", off)


def test_tolerances_of_an_output_win(tmp_path: Path) -> None:
    case = make_case(tmp_path, tolerances={"out": [0, 1.0]})
    case.check("out", case.expected()["out"] + 0.9)


def test_inputs_of_every_form(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    assert case.input("n") == 3
    assert case.input("x")[1, 2] == 6
    assert np.array_equal(case.array("normal:a.b:2,3"), normal("a.b", (2, 3)))
    assert np.array_equal(case.array("uniform:a:2x3"), uniform("a", (2, 3)))
    assert np.array_equal(case.array("0.5*uniform:a:4"), 0.5 * uniform("a", (4,)))
    moved = np.float32(0.5) * uniform("a", (4,)) + np.float32(0.1)
    assert np.array_equal(case.array("0.5*uniform:a:[4]+0.1"), moved)
    with pytest.raises(ValueError, match="no known form"):
        case.array("zeros:a:4")
    with pytest.raises(KeyError):
        case.array("npz:one/missing")


def test_parts_are_strides_or_beginnings() -> None:
    array = np.arange(10)
    parts = [part.tolist() for part in stored_parts(array, (4,))]
    assert parts == [[0, 3, 6, 9], [0, 1, 2, 3]]
    assert list(stored_parts(array, (11,))) == []
    assert [part.shape for part in stored_parts(np.zeros((1, 1, 5)), (5,))] == [(5,)]


def test_other_folder_is_read_and_missing_data_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_CAD_REFERENCE_DIR", str(tmp_path))
    assert reference_folder("triposr") == tmp_path / "triposr"
    with pytest.raises(FileNotFoundError):
        load_cases("triposr")


def test_list_and_object_are_both_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_REFERENCE_DIR", str(tmp_path))
    for text in ('[{"name": "a"}]', '{"cases": [{"name": "a"}]}'):
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m/cases.json").write_text(text)
        assert [case.name for case in load_cases("m")] == ["a"]
