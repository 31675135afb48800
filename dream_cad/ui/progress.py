"""A job as people read it: where it stands, what went wrong."""

from __future__ import annotations

from html import escape

from dream_cad.client import Job
from dream_cad.exceptions import DreamCadError

_HEADINGS = {
    "pending": "Waiting in line",
    "running": "At work",
    "completed": "Done",
    "failed": "It failed",
    "cancelled": "Cancelled",
}


def job_html(job: Job) -> str:
    """Return the panel of a job: state, place in line, stage, progress and time left."""
    heading = _HEADINGS.get(job.status, job.status)
    if job.status == "running" and job.cancel_requested:
        heading = "Stopping"
    bar = ""
    if not job.is_final:
        percent = round(100 * (job.progress or 0.0))
        value = f' value="{percent}"' if job.status == "running" else ""
        bar = f'<progress max="100"{value} aria-label="Progress of the job">{percent} %</progress>'
    return (
        f'<section class="dc-job" data-status="{escape(job.status)}" data-job="{escape(job.id)}">'
        f'<p class="dc-job-head" role="status"><b>{heading}</b> <span>{escape(_where(job))}</span>'
        f"</p>{bar}{_failure(job)}</section>"
    )


def _where(job: Job) -> str:
    if job.status == "pending":
        place = f"place {job.position}" if job.position is not None else ""
        return _joined(place, _left(job))
    if job.status == "running":
        percent = f"{100 * (job.progress or 0.0):.0f} %"
        return _joined(job.stage.replace("_", " "), percent, _left(job))
    if job.status == "completed":
        took = _seconds(sum_seconds(job))
        cached = "the same request was answered before" if job.cached_from else ""
        return _joined(f"in {took}" if took else "", f"by {job.model}" if job.model else "", cached)
    return ""


def sum_seconds(job: Job) -> float | None:
    """Return the seconds from start to end of a job; None if it has not both."""
    if job.started_at is None or job.completed_at is None:
        return None
    return (job.completed_at - job.started_at).total_seconds()


def _left(job: Job) -> str:
    left = _seconds(job.eta_s)
    return f"about {left} left" if left and (job.eta_s or 0) >= 1 else ""


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _failure(job: Job) -> str:
    if job.status != "failed":
        return ""
    hint = str((job.error or {}).get("hint") or "")
    return alert_html(job.reason, hint)


def alert_html(message: str, hint: str = "") -> str:
    """Return a message that screen readers announce at once."""
    more = f"<span>{escape(hint)}</span>" if hint else ""
    return f'<div class="dc-alert" role="alert"><b>{escape(message)}</b>{more}</div>'


def error_html(error: DreamCadError) -> str:
    """Return an error as its message and what to do."""
    return alert_html(error.message, error.hint or "")


def note_html(text: str) -> str:
    """Return a quiet remark."""
    return f'<p class="dc-hint" role="status">{escape(text)}</p>'
