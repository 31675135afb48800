"""What the databases say of how they run the claim: by index alone, with no sort, no scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ClauseElement, Connection, TextClause, text

from dream_cad.queue.claim import MODELS, OWNERS, Lease, take_statement
from dream_cad.queue.database import open_engine
from tests.unit.queue.conftest import MakeQueue, make_job

JOBS = 4000
OWNERS_OF_JOBS = ["", "k1", "k2"]
WANTED = {"model": "triposr", "floor": 0, "ceiling": 3, "now": 2e9}
STATEMENTS: dict[str, tuple[ClauseElement, dict[str, Any]]] = {
    "models": (MODELS, {}),
    "owners": (OWNERS, WANTED),
    "take": (take_statement("triposr", 1, "k1", Lease("t", 2e9, 2e9 + 30, 1.0)), {}),
}


@pytest.fixture
def connection(make_queue: MakeQueue) -> Iterator[Connection]:
    """Many ended jobs before the waiting ones: a walk through the primary key would be slow."""
    queue = make_queue()
    owners = [OWNERS_OF_JOBS[number % 3] for number in range(JOBS)]
    queue.add_jobs([make_job(owner=owner) for owner in owners])
    engine = open_engine(queue.database_url)
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE jobs SET status = 'failed', completed_at = 1 WHERE seq <= {JOBS // 2}")
        )
        connection.execute(text("ANALYZE"))
        yield connection
    engine.dispose()


def literal_sql(statement: ClauseElement, values: dict[str, Any], dialect: Any) -> str:
    bound = statement.bindparams(**values) if isinstance(statement, TextClause) else statement
    return str(bound.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def explain_sqlite(connection: Connection, sql: str) -> list[str]:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all()
    return [str(row[-1]) for row in rows]


def explain_postgresql(connection: Connection, sql: str) -> list[dict[str, Any]]:
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}").scalar_one()
    found, todo = [], [plan[0]["Plan"]]
    while todo:
        node = todo.pop()
        found.append(node)
        todo += node.get("Plans", [])
    return found


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_claim_reads_its_index_and_does_not_sort(name: str, connection: Connection) -> None:
    statement, values = STATEMENTS[name]
    sql = literal_sql(statement, values, connection.dialect)
    if connection.dialect.name == "sqlite":
        plan = explain_sqlite(connection, sql)
        reads = [step for step in plan if "ix_jobs" in step]
        assert reads, plan
        assert all("INDEX ix_jobs_claim" in step for step in reads), plan
        assert not [step for step in plan if "TEMP B-TREE" in step or step == "SCAN jobs"]
        return
    nodes = explain_postgresql(connection, sql)
    reads = [node for node in nodes if node.get("Relation Name") == "jobs"]
    kinds = {(node["Node Type"], node.get("Index Name")) for node in reads}
    kinds -= {("ModifyTable", None), ("Index Scan", "jobs_pkey1")}  # the row that was found
    assert {index for _, index in kinds} == {"ix_jobs_claim"}
    assert {"Sort", "Incremental Sort"}.isdisjoint(node["Node Type"] for node in nodes)
