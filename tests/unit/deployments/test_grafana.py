from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Metric

from deployments.metrics import ReplicaMetrics, RouterMetrics

DASHBOARD = Path(__file__).parents[3] / "deployments" / "grafana" / "dream_cad.json"
_EXPORTED = re.compile(r"ray_(dream_cad_\w+?)(_bucket|_sum|_count)?(?![a-z_])")


def metrics() -> dict[str, dict[str, Any]]:
    """What the code exports, by name."""
    owners = [RouterMetrics(), ReplicaMetrics("echo")]
    found = [value for owner in owners for value in vars(owner).values()]
    return {one.info["name"]: one.info for one in found if isinstance(one, Metric)}


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_metric_of_the_dashboard_is_exported(panels: list[dict[str, Any]]) -> None:
    exported = metrics()
    assert len(exported) >= 8
    for expression in expressions(panels):
        named = {name for name, _ in _EXPORTED.findall(expression)}
        assert named, expression
        assert named <= exported.keys(), expression


def test_every_metric_that_is_exported_is_shown(panels: list[dict[str, Any]]) -> None:
    shown = {name for text in expressions(panels) for name, _ in _EXPORTED.findall(text)}
    assert shown == metrics().keys()


def test_labels_are_those_of_the_metric(panels: list[dict[str, Any]]) -> None:
    exported = metrics()
    for panel in panels:
        for target in panel["targets"]:
            name = _EXPORTED.findall(target["expr"])[0][0]
            labels = {*exported[name]["tag_keys"], "le"}
            matched = re.findall(r"(\w+)=~?\"", target["expr"])
            grouped = [
                label
                for group in re.findall(r"by \(([^)]*)\)", target["expr"])
                for label in group.split(", ")
            ]
            shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert {*matched, *grouped} <= labels, target
            assert set(shown) <= {*grouped}, target


def test_counters_are_read_as_rates(panels: list[dict[str, Any]]) -> None:
    for expression in expressions(panels):
        for name, suffix in _EXPORTED.findall(expression):
            if name.endswith("_total") or suffix:
                assert re.search(rf"(rate|increase)\(ray_{name}{suffix}\{{", expression), expression


def test_panels_do_not_overlap(panels: list[dict[str, Any]]) -> None:
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
