from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments import autoscaling
from deployments.args import ModelArgs
from deployments.autoscaling import Demand, QueuePolicy, wanted_replicas

_IDLE = Demand(0, 0, 2.0)


@pytest.mark.parametrize(
    ("demand", "wanted"),
    [
        (Demand(0, 0, 5.0), 0),
        (Demand(1, 0, 5.0), 1),
        (Demand(500, 0, None), 1),  # nothing was measured yet
        (Demand(24, 0, 5.0), 2),
        (Demand(25, 0, 5.0), 3),
        (Demand(22, 3, 5.0), 3),
        (Demand(2, 0, 600.0), 2),  # never more than jobs
    ],
)
def test_replicas_are_what_the_work_needs(demand: Demand, wanted: int) -> None:
    assert wanted_replicas(demand, drain_s=60.0) == wanted


@given(
    waiting=st.integers(0, 10**6),
    running=st.integers(0, 100),
    seconds=st.floats(0.001, 3600),
    drain_s=st.floats(0.1, 3600),
)
def test_more_work_never_wants_fewer(
    waiting: int, running: int, seconds: float, drain_s: float
) -> None:
    wanted = wanted_replicas(Demand(waiting, running, seconds), drain_s)
    more = wanted_replicas(Demand(waiting + 1, running, seconds), drain_s)
    assert wanted <= more <= wanted + max(1, seconds / drain_s + 1)
    assert wanted <= waiting + running


def test_it_grows_at_once_and_shrinks_after_a_while() -> None:
    policy = QueuePolicy(drain_s=10.0, idle_s=30.0)
    target, needed_at = policy.decide(Demand(10, 0, 4.0), 1, 0.0, 100.0)
    assert (target, needed_at) == (4, 100.0)
    assert policy.decide(_IDLE, 4, needed_at, 129.9) == (4, 100.0)
    assert policy.decide(_IDLE, 4, needed_at, 130.0) == (0, 130.0)


def test_an_idle_model_gives_way_to_one_that_starves() -> None:
    policy = QueuePolicy(drain_s=10.0, idle_s=30.0)
    assert policy.decide(Demand(0, 0, 4.0, others_starve=True), 2, 100.0, 101.0) == (0, 101.0)
    busy = Demand(0, 1, 4.0, others_starve=True)
    assert policy.decide(busy, 2, 100.0, 101.0) == (2, 100.0)


def test_nothing_changes_before_the_router_spoke() -> None:
    assert QueuePolicy(10.0, 30.0).decide(None, 3, 5.0, 100.0) == (3, 100.0)


def test_the_policy_reads_the_demand_of_its_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[bytes, bytes] = {}

    def put(key: bytes, value: bytes, **_: Any) -> None:
        told[key] = value

    def get(key: bytes, **_: Any) -> bytes | None:
        return told.get(key)

    monkeypatch.setattr(autoscaling, "_internal_kv_put", put)
    monkeypatch.setattr(autoscaling, "_internal_kv_get", get)
    autoscaling.tell_demand("app", "model-a", Demand(6, 0, 5.0))
    context = SimpleNamespace(
        app_name="app", deployment_name="model-a", policy_state={}, target_num_replicas=1
    )
    assert QueuePolicy(10.0, 30.0)(context)[0] == 3
    context.deployment_name = "model-b"
    assert QueuePolicy(10.0, 30.0)(context)[0] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"num_replicas": 2, "autoscaling": {"max_replicas": 3}},
        {"autoscaling": {"min_replicas": 4, "max_replicas": 3}},
        {"autoscaling": {"max_replicas": 0}},
        {"autoscaling": {}},
        {"autoscaling": {"max_replicas": 2, "idle_s": 0}},
    ],
)
def test_bad_arguments_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelArgs(name="triposr", **fields)
