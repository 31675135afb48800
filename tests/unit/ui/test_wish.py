from __future__ import annotations

import json
from typing import Any

from dream_cad.client import Model, Models
from dream_cad.ui.create_tab import WORDS, read_wish

SEED = {"properties": {"seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}


def asked(answers: dict[str, Any], schema: dict[str, Any] = SEED) -> dict[str, Any]:
    listed = Models(default_model="m", models=(Model(name="m", options_schema=schema),))
    options: dict[str, Any] = read_wish(
        WORDS, "a chair", None, [], "normal", json.dumps(answers), listed
    ).options
    return options


def test_generate_draws_a_new_seed_each_time() -> None:
    for answers in ({}, {"options": {"seed": ""}}):
        seeds = {asked(answers)["seed"] for _ in range(4)}
        assert len(seeds) == 4
        assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_seed_that_is_typed_in_is_kept_until_another_is_asked_for() -> None:
    typed = {"options": {"seed": "7"}}
    assert asked(typed) == {"seed": 7}
    assert {asked({**typed, "new_seed": True})["seed"] for _ in range(3)} != {7}


def test_a_model_without_seeds_gets_none() -> None:
    assert asked({}, {"properties": {}}) == {}
