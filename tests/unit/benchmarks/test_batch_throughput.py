from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch_kill import _blocks, _ended, _logged
from benchmarks.batch_memory import _growth, measure_ids
from benchmarks.batch_throughput import judge, table
from benchmarks.simulate_cluster import judge as judge_simulation
from benchmarks.steady_model import MADE, SteadyModel
from dream_cad.exceptions import GenerationError
from jobs.batch.intake import WORK
from jobs.batch.manifest import COMPLETED, Entry, Manifest
from jobs.batch.storage import Storage

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def figures(cost: float, share: float, redone: int, growth: float) -> dict[str, Any]:
    run = {"rows": 10_000, "overhead_ms_a_row": cost}
    kill = {"rows": 600, "ended_before": 100, "rows_made_twice": redone, "rows_allowed": 4}
    kill |= {"ended_twice": 0, "missing": 0}
    return {
        "overhead": {"stl": run, "glb": run},
        "rate": {
            "0.1 s": {
                "is_steady": True,
                "batches": [{"actors": actors, "share_of_actors_rate": share} for actors in (1, 2)],
            },
            "machine": {},
        },
        "kill": {"runs": [kill]},
        "memory": {"rows": 1_000_000, "growth_mib_a_million_rows": growth},
    }


def test_targets_are_judged_by_the_figures_alone() -> None:
    assert all(judge(figures(1.9, 0.96, 4, 60.0)).values())
    assert not any(judge(figures(2.1, 0.94, 5, 70.0)).values())
    assert judge({}) == {}
    assert "| 2.10 ms | 2 ms |" in table(figures(2.1, 0.94, 5, 70.0))


def test_the_committed_verdicts_follow_from_the_committed_figures() -> None:
    batch = json.loads((RESULTS / "batch_throughput.json").read_text())
    assert batch["targets_met"] == judge(batch["parts"])
    simulated = json.loads((RESULTS / "simulate_cluster.json").read_text())
    assert simulated["targets_met"] == judge_simulation(simulated["policies"])
    assert simulated["targets_met"]["jain_in_bursts"] is False


def test_growth_is_counted_after_the_first_tenth() -> None:
    assert _growth([(0, 100.0), (10, 150.0), (20, 151.0), (30, 149.0)]) == 1.0


def test_ids_are_measured_beside_a_python_set() -> None:
    found = measure_ids(1_000)
    assert found["count"] == 1_000


def test_blocks_and_ended_rows_are_read_from_the_output(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write(f"{WORK}/steady/0.json", json.dumps([{"prompt": "a"}, {"prompt": "b"}]).encode())
    Manifest(storage).add([Entry("0" * 32, 0, COMPLETED, prompt="a")])
    assert _blocks(tmp_path) == [{"a", "b"}]
    assert _ended(tmp_path) == {"a"}


def test_the_steady_model_logs_burns_and_makes_nothing_on_demand(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = SteadyModel().generate_from_text("one", log=str(log), cpu_s=0.001)
    assert len(made.faces) == 4
    with pytest.raises(GenerationError, match="Nothing was to be made"):
        SteadyModel().generate_from_text("two", log=str(log), empty=True)
    lines = ["begun one", "made one", "begun two", "made two"]
    assert log.read_text().splitlines() == lines
    assert _logged(log, MADE) == {"one": 1, "two": 1}


def test_a_machine_that_others_used_meets_no_rate() -> None:
    found = figures(1.9, 0.96, 0, 60.0)
    found["rate"]["0.1 s"]["is_steady"] = False
    assert not any(met for name, met in judge(found).items() if name.startswith("rate"))


def test_a_lost_row_or_one_that_ended_twice_is_no_resume() -> None:
    for fault in ("ended_twice", "missing"):
        found = figures(1.9, 0.96, 0, 60.0)
        found["kill"]["runs"][0][fault] = 1
        assert judge(found)["kill"] is False
