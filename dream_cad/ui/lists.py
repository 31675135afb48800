"""Tables of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dream_cad.client import AsyncClient, BatchItem, Job
from dream_cad.ui.progress import note_html


async def recent_jobs(client: AsyncClient, most: int, status: str | None = None) -> list[Job]:
    """Return the newest jobs, at most so many."""
    jobs: list[Job] = []
    async for job in client.jobs(status=status):
        jobs.append(job)
        if len(jobs) == most:
            break
    return jobs


def jobs_html(jobs: Sequence[Job]) -> str:
    """Return jobs as a table whose buttons open them."""
    if not jobs:
        return note_html("No such job.")
    rows = "".join(
        f'<tr><td><button type="button" data-job="{escape(job.id)}">{escape(title(job))}</button>'
        f"</td><td>{escape(job.model)}</td><td>{escape(job.status)}</td><td>{_when(job)}</td></tr>"
        for job in jobs
    )
    return _table("Jobs", ("Job", "Model", "State", "When (UTC)"), rows)


def items_html(items: Sequence[BatchItem], total: int) -> str:
    """Return items of a batch as a table; says how many are not shown."""
    rows = "".join(
        f'<tr><td class="dc-number">{item.index + 1}</td><td>{escape(title(item.job))}</td>'
        f"<td>{escape(item.job.model)}</td><td>{escape(_state(item.job))}</td></tr>"
        for item in items
    )
    rest = total - len(items)
    more = note_html(f"and {rest} more") if rest > 0 else ""
    return _table("Items of the batch", ("No.", "Item", "Model", "State"), rows) + more


def title(job: Job) -> str:
    """Return what a job is called: its prompt, shortened."""
    text = job.prompt or "from a picture"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _state(job: Job) -> str:
    return f"failed: {job.reason}" if job.status == "failed" else job.status


def _when(job: Job) -> str:
    return job.created_at.strftime("%b %d %H:%M") if job.created_at is not None else ""


def _table(name: str, heads: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{escape(entry)}</th>' for entry in heads)
    return (
        f'<div class="dc-scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table class="dc-list"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
