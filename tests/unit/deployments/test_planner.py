from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.args import AppArgs, ModelArgs
from deployments.plan import accelerator_options, find_shortage, plan_models, plan_text
from dream_cad.cli import run
from dream_cad.placement import parse_gpus
from tests.tiny_trellis import write_checkpoint, write_text_checkpoint

LOAD = """
models:
  - {name: triposr, jobs_per_hour: 3600, seconds: 2}
  - {name: hunyuan3d-mini, jobs_per_hour: 600, seconds: {A10: 20, A100-80: 9}, from_text: 0}
"""


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.yaml"
    path.write_text(LOAD)
    return path


def planned(
    capsys: pytest.CaptureFixture[str], load: Path, gpus: str, *more: str, code: int = 0
) -> Any:
    assert run(["plan", "--gpus", gpus, "--load", str(load), "--json", *more]) == code
    return json.loads(capsys.readouterr().out)


def test_a_load_that_fits(capsys: pytest.CaptureFixture[str], load: Path) -> None:
    found = planned(capsys, load, "4xA10,2xA100-80")
    assert found["complete"]
    triposr, hunyuan, text = found["models"]
    assert (triposr["num_gpus"], triposr["replicas"], triposr["placed"]) == (0.25, 3, 3)
    assert triposr["capacity_per_hour"] == 5400
    assert hunyuan["seconds"] == 20  # the slower of the kinds that it may be on
    assert text["jobs_per_hour"] == 3600  # hunyuan's jobs begin with pictures
    held = sum(sum(gpu["holds"].values()) for gpu in found["gpus"])
    assert held == sum(model["placed"] for model in found["models"])


def test_weights_that_read_text_need_no_text_stage(
    capsys: pytest.CaptureFixture[str], load: Path, tmp_path: Path
) -> None:
    image = write_checkpoint(tmp_path / "TRELLIS-image-large")
    text = write_text_checkpoint(tmp_path / "TRELLIS-text-base")
    for folder, stages in ((image, ["trellis", "text_to_image"]), (text, ["trellis"])):
        load.write_text(
            f"models: [{{name: trellis, jobs_per_hour: 60, seconds: 30, checkpoint: '{folder}'}}]"
        )
        found = planned(capsys, load, "2xA100-80")
        assert [model["name"] for model in found["models"]] == stages


def test_packing_leaves_the_large_gpus_alone(
    capsys: pytest.CaptureFixture[str], load: Path
) -> None:
    found = planned(capsys, load, "6xA10,2xA100-80", "--strategy", "pack")
    assert {gpu["kind"] for gpu in found["gpus"] if gpu["holds"]} == {"A10"}
    assert found["models"][0]["accelerators"] == ["A10"]


def test_what_does_not_run_says_why(capsys: pytest.CaptureFixture[str], load: Path) -> None:
    load.write_text(
        "models: [{name: hunyuan3d-mini, jobs_per_hour: 900, seconds: 30}, {name: nobody}]"
    )
    hunyuan, nobody, *_ = planned(capsys, load, "2xT4", code=1)["models"]
    assert "nobody" in nobody["reason"]
    assert (hunyuan["placed"], hunyuan["replicas"]) == (2, 10)
    assert "8 of 10 replicas" in hunyuan["reason"]
    assert "8 more T4" in hunyuan["reason"]
    too_small = planned(capsys, load, "X:8", code=1)["models"][0]
    assert "needs 12 GB" in too_small["reason"]


def test_the_table_names_gpus_and_reasons(capsys: pytest.CaptureFixture[str], load: Path) -> None:
    assert run(["plan", "--gpus", "A10", "--load", str(load)]) == 1
    out = capsys.readouterr().out
    assert "hunyuan3d-mini" in out
    assert "find no room" in out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "load.yaml"),
        ("models: []", "models"),
        ("models: [{name: triposr, jobs_per_hour: -1}]", "jobs_per_hour"),
        ("models: [{name: triposr, jobs_per_hour: .nan}]", "jobs_per_hour"),
        ("models: [{name: triposr, seconds: 0}]", "seconds"),
        ("models: [{name: a}, {name: a}]", "once"),
        ("models: [{name: triposr, speed: 1}]", "speed"),
        ("models: [", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_bad_loads_are_told(
    capsys: pytest.CaptureFixture[str], load: Path, text: str, told: str
) -> None:
    load.write_text(text)
    assert run(["plan", "--gpus", "A10", "--load", str(load)]) == 2
    assert told in capsys.readouterr().err


def test_other_wrong_words(capsys: pytest.CaptureFixture[str], load: Path, tmp_path: Path) -> None:
    assert run(["plan", "--gpus", "A10", "--load", str(tmp_path / "none.yaml")]) == 1
    assert run(["plan", "--gpus", "ten", "--load", str(load)]) == 2
    assert run(["plan", "--gpus", "A10", "--load", str(load), "--strategy", "best"]) == 2
    assert "spread, pack" in capsys.readouterr().err


def test_planner_and_builder_agree(capsys: pytest.CaptureFixture[str], load: Path) -> None:
    text = "4xA10,2xA100-80"
    args = AppArgs(
        models=[
            ModelArgs(name="triposr", checkpoint="published", num_replicas=9),
            ModelArgs(name="hunyuan3d-mini", checkpoint="published", num_replicas=9),
        ],
        placement="pack",
    )
    load.write_text(
        "models: [{name: triposr, replicas: 9}, {name: hunyuan3d-mini, replicas: 9}]\n"
        "text_to_image: {replicas: 1}"
    )
    found = planned(capsys, load, text, "--strategy", "pack", code=1)
    gpus = parse_gpus(text)
    plans = plan_models(args, gpus)[:2]
    stage = plan_text(args.text_to_image, plans, gpus, args.placement)
    for plan, line in zip([*plans, stage], found["models"], strict=True):
        assert plan is not None
        assert plan.num_gpus == line["num_gpus"]
        assert list(plan.accelerators) == line["accelerators"]
    short = {line["name"]: line["replicas"] - line["placed"] for line in found["models"]}
    assert find_shortage(plans, stage, gpus) == {name: n for name, n in short.items() if n}


def test_labels_become_options_of_ray() -> None:
    assert accelerator_options(()) == {}
    assert accelerator_options(("A10",)) == {"accelerator_type": "A10"}
    selector = accelerator_options(("L40S", "H100"))["label_selector"]
    assert selector == {"ray.io/accelerator-type": "in(L40S, H100)"}
