from __future__ import annotations

import subprocess
import sys

from deployments.acceptance import Try, plan_tries

GATES = {"watertight": True}
SEED, NEXT, THIRD = 7, 7 + 1_000_003, 7 + 2_000_006


def test_one_model_without_wishes_is_tried_once() -> None:
    assert plan_tries({}, "a", SEED) == [Try("a", SEED)]


def test_models_try_their_seeds_in_turn() -> None:
    policy = {"models": ["a", "b"], "max_tries": 3, "require": GATES}
    assert plan_tries(policy, "a", SEED) == [Try("a", SEED), Try("a", NEXT), Try("b", SEED)]


def test_each_model_gets_one_try_unless_more_are_asked_for() -> None:
    assert plan_tries({"models": ["a", "b"]}, "a", SEED) == [Try("a", SEED), Try("b", SEED)]


def test_nothing_is_tried_again_where_nothing_is_required() -> None:
    assert plan_tries({"max_tries": 3}, "a", SEED) == [Try("a", SEED)]
    policy = {"models": ["a", "b"], "pick": "best", "max_tries": 8}
    assert plan_tries(policy, "a", SEED) == [Try("a", SEED), Try("b", SEED)]


def test_fewer_tries_than_models() -> None:
    policy = {"models": ["a", "b", "c"], "max_tries": 2}
    assert plan_tries(policy, "a", SEED) == [Try("a", SEED), Try("b", SEED)]


def test_the_best_is_chosen_on_equal_terms() -> None:
    policy = {"models": ["a", "b"], "pick": "best", "max_tries": 4, "require": GATES}
    assert plan_tries(policy, "a", SEED) == [
        Try("a", SEED),
        Try("b", SEED),
        Try("a", NEXT),
        Try("b", NEXT),
    ]


def test_one_model_is_reseeded() -> None:
    assert plan_tries({"max_tries": 3, "require": GATES}, "a", SEED) == [
        Try("a", SEED),
        Try("a", NEXT),
        Try("a", THIRD),
    ]


def test_a_model_without_seeds_is_not_asked_twice() -> None:
    assert plan_tries({"max_tries": 5, "require": GATES}, "a", None) == [Try("a", None)]


def test_the_router_knows_nothing_of_meshes() -> None:
    """A router that is replaced is back the sooner the less it imports."""
    code = (
        "import sys, deployments.router; "
        "print([name for name in ('torch', 'trimesh', 'scipy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
