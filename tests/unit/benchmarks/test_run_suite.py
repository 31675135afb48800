from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run_suite import FAILURE, Wishes, _gate, main, run_pass
from benchmarks.suite.store import PassStore
from dream_cad.benchmark.tracking import Tracking
from dream_cad.exceptions import InvalidConfigError
from tests.unit.benchmark.test_gate import record
from tests.unit.benchmark.test_tracking import MESH


def test_a_pass_on_disk_gives_its_records_and_meshes_back(tmp_path: Path) -> None:
    store = PassStore(tmp_path / "pass")
    assert store.load_pass() == {}
    store.save_pass({"run_id": "7"})
    good, bad = record("a", 0, 1.0), record("a", 1, 0.0, success=False)
    store.add(good, MESH)
    store.add(bad, None)
    (tmp_path / "pass" / "records" / "half.json.part").write_text("{")  # a killed write
    again = PassStore(tmp_path / "pass")
    assert list(again.records()) == [bad, good]  # by name
    assert again.load_pass() == {"run_id": "7"}
    found = again.mesh(good)
    assert found is not None
    assert len(found.faces) == len(MESH.faces)
    assert again.mesh(bad) is None


def test_unknown_models_are_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--models", "no-such-model", "--folder", str(tmp_path)]) == FAILURE
    assert "no-such-model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mlflow 3.17 uses deprecated things
@pytest.mark.parametrize("changed", [{"checkpoint": "nano"}, {"runs": 3}, {"clip": "weights"}])
def test_a_pass_does_not_go_on_under_other_conditions(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    wishes = Wishes(("triposr",), "smoke", "monday", tmp_path)
    store = PassStore(tmp_path / "smoke" / "monday")
    store.save_pass({"run_id": "7", **wishes.conditions})
    with pytest.raises(InvalidConfigError, match=f"'monday'.*{next(iter(changed))} was") as caught:
        run_pass(replace(wishes, **changed), Tracking(tmp_path / "mlflow"))
    assert "--name" in (caught.value.hint or "")


def test_the_gate_closes_on_a_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run_suite.BASELINES", tmp_path)
    check = Wishes(("a",), "smoke", "now", tmp_path, baseline="check")
    with pytest.raises(InvalidConfigError, match="--write-baseline"):
        _gate([record("a", 0, 1.0)], check)
    assert _gate([record("a", 0, 1.0)], replace(check, baseline="write"))
    assert (tmp_path / "cpu--smoke.json").is_file()
    assert _gate([record("a", 0, 1.1)], check)
    assert not _gate([record("a", 0, 1.4)], check)
    assert not _gate([record("a", 0, 0.0, success=False)], check)


def test_limits_cut_the_suite() -> None:
    wishes = Wishes(("a",), "smoke", "now", Path())
    assert len(wishes.cases) == 8
    assert [case.key for case in replace(wishes, limit=2).cases] == ["simple-1-s0", "medium-1-s0"]
