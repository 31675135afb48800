"""What the databases say of how they run the claim: by index alone, with no sort, no scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, CursorResult, text

from dream_cad.queue.claim import LANE, MODELS, OWNERS, TAKE, Lease
from dream_cad.queue.database import open_engine
from tests.unit.queue.conftest import MakeQueue, make_job

JOBS = 4000
OWNERS_OF_JOBS = ["", "k1", "k2"]
WANTED = {"model": "triposr", "floor": 0, "ceiling": 3, "now": 2e9, "priority": 1}
STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "models": (MODELS, {}),
    "lane": (LANE, {"model": "triposr", "now": 2e9}),
    "owners": (OWNERS, WANTED),
    "take": (
        TAKE,
        {"b_model": "triposr", "b_level": 1, "b_owner": "k1"}
        | Lease("t", 2e9, 2e9 + 30, 1.0).values(),
    ),
}
INDEXES = {"lane": {"ix_jobs_priority"}}
"""All other steps read by level, owner and number."""


@pytest.fixture(params=["analysed", "fresh"])
def connection(make_queue: MakeQueue, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Many ended jobs before the waiting ones: a walk through the primary key would be slow.

    A table that was filled a moment ago has no statistics yet; its claims must not sort either.
    """
    queue = make_queue()
    owners = [OWNERS_OF_JOBS[number % 3] for number in range(JOBS)]
    queue.add_jobs([make_job(owner=owner) for owner in owners])
    engine = open_engine(queue.database_url)
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE jobs SET status = 'failed', completed_at = 1 WHERE seq <= {JOBS // 2}")
        )
        if request.param == "analysed":
            connection.execute(text("ANALYZE"))
        yield connection
    engine.dispose()


def explain(
    connection: Connection, prefix: str, statement: Any, values: dict[str, Any]
) -> CursorResult[Any]:
    compiled = statement.compile(dialect=connection.dialect)
    named = compiled.construct_params(values)
    positional = compiled.positional
    given = tuple(named[name] for name in compiled.positiontup) if positional else named
    return connection.exec_driver_sql(f"{prefix} {compiled}", given)


def nodes_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes_of(child))]


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_claim_reads_its_index_and_does_not_sort(name: str, connection: Connection) -> None:
    statement, values = STATEMENTS[name]
    if connection.dialect.name == "sqlite":
        rows = explain(connection, "EXPLAIN QUERY PLAN", statement, values)
        plan = [str(row[-1]) for row in rows]
        reads = [step for step in plan if "ix_jobs" in step]
        assert reads, plan
        allowed = INDEXES.get(name, {"ix_jobs_claim"})
        assert all(any(f"INDEX {index}" in step for index in allowed) for step in reads), plan
        assert not [step for step in plan if "TEMP B-TREE" in step or step == "SCAN jobs"]
        return
    plans = explain(connection, "EXPLAIN (FORMAT JSON)", statement, values).scalar_one()
    nodes = nodes_of(plans[0]["Plan"])
    reads = [node for node in nodes if node.get("Relation Name") == "jobs"]
    kinds = {(node["Node Type"], node.get("Index Name")) for node in reads}
    kinds -= {("ModifyTable", None), ("Index Scan", "jobs_pkey1")}  # the row that was found
    assert {index for _, index in kinds} <= INDEXES.get(name, {"ix_jobs_claim"})
    assert kinds
    assert {"Sort", "Incremental Sort"}.isdisjoint(node["Node Type"] for node in nodes)
