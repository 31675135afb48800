"""Jobs that need other jobs: a count of open needs on each, settled when a needed one ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, insert, select, update

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue.jobs import GenerationJob
from dream_cad.queue.problems import NEED_NOT_MET
from dream_cad.queue.schema import jobs
from dream_cad.queue.tables import job_dependencies

_COMPLETED = "completed"
_LOST = ("failed", "cancelled")


def count_open(connection: Connection, new_jobs: Sequence[GenerationJob]) -> dict[str, int]:
    """Return for each new job with needs how many have not completed; marks the needed ones.

    Marking locks their rows, so that none can end between this look and our commit. Needs within
    ``new_jobs`` count as open.

    Raises:
        InvalidConfigError: a needed job is unknown, has failed, or comes later in ``new_jobs``.
    """
    needy = [job for job in new_jobs if job.depends_on]
    if not needy:
        return {}
    needed = {need for job in needy for need in job.depends_on}
    mark = update(jobs).where(jobs.c.id.in_(needed)).values(is_needed=True)
    states = {
        row.id: row.status for row in connection.execute(mark.returning(jobs.c.id, jobs.c.status))
    }
    counts = {}
    for job in new_jobs:
        if job.depends_on:
            counts[job.id] = _open_needs(job, states)
        states.setdefault(job.id, "pending")
    return counts


def _open_needs(job: GenerationJob, states: dict[str, str]) -> int:
    for need in job.depends_on:
        if states.get(need, "unknown") in ("unknown", *_LOST):
            raise InvalidConfigError(
                f"Job {job.id} depends on {need!r}, which is {states.get(need, 'unknown')}.",
                hint="Add the needed job first, and depend on ones that have not failed.",
            )
    return sum(states[need] != _COMPLETED for need in set(job.depends_on))


def link(connection: Connection, new_jobs: Sequence[GenerationJob]) -> None:
    """Record who needs whom; call it after the jobs were added."""
    pairs = [
        {"job_id": job.id, "needs_id": need} for job in new_jobs for need in set(job.depends_on)
    ]
    if pairs:
        connection.execute(insert(job_dependencies), pairs)
        needed = {pair["needs_id"] for pair in pairs} & {job.id for job in new_jobs}
        if needed:
            connection.execute(update(jobs).where(jobs.c.id.in_(needed)).values(is_needed=True))


def settle(connection: Connection, ended: Iterable[str], now: float) -> None:
    """Release or fail, through all generations, what waits for jobs that have just ended."""
    wave = list(ended)
    while wave:
        statement = select(jobs.c.id, jobs.c.status).where(jobs.c.id.in_(wave))
        states = connection.execute(statement).all()
        _release(connection, [row.id for row in states if row.status == _COMPLETED], now)
        wave = _fail(connection, [row.id for row in states if row.status in _LOST], now)


def _release(connection: Connection, completed: list[str], now: float) -> None:
    for need in completed:
        dependents = select(job_dependencies.c.job_id).where(job_dependencies.c.needs_id == need)
        connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(dependents), jobs.c.status == "pending")
            .values(waits_for=jobs.c.waits_for - 1, levelled_at=now)
        )


def _fail(connection: Connection, lost: list[str], now: float) -> list[str]:
    if not lost:
        return []
    dependents = select(job_dependencies.c.job_id).where(job_dependencies.c.needs_id.in_(lost))
    statement = (
        update(jobs)
        .where(jobs.c.id.in_(dependents), jobs.c.status == "pending")
        .values(status="failed", completed_at=now, changed_at=now, problem=NEED_NOT_MET)
    )
    return list(connection.execute(statement.returning(jobs.c.id)).scalars())
