"""The tab of the cluster: GPUs, replicas, what waits, and what was done by the minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import gradio as gr

from dream_cad.client import Job
from dream_cad.exceptions import DreamCadError
from dream_cad.ui.charts import bars_svg, per_minute
from dream_cad.ui.desk import Desk
from dream_cad.ui.lists import recent_jobs
from dream_cad.ui.progress import error_html
from dream_cad.ui.result_view import QUIET

_EVERY_S = 3.0
_MINUTES = 30
_MOST_JOBS = 500
_MOST_DEPTHS = 100


class ClusterTab:
    """Builds the tab inside the current Blocks; it asks the server while it is open.

    Args:
        desk: the door to the server.
        tab: its own tab.
        others: the other tabs, whose opening ends the asking.
    """

    def __init__(self, desk: Desk, tab: Any, others: Sequence[Any]) -> None:
        self._desk = desk
        depths = gr.State([])
        shown = gr.HTML("", js_on_load=None, elem_id="dc-cluster")
        clock = gr.Timer(_EVERY_S, active=False)
        outputs = [shown, depths]
        tab.select(self.show, depths, outputs, **QUIET)
        tab.select(lambda: gr.Timer(active=True), None, clock, **QUIET)
        for other in others:
            other.select(lambda: gr.Timer(active=False), None, clock, **QUIET)
        clock.tick(self.show, depths, outputs, **QUIET)

    async def show(self, depths: list[int], request: gr.Request) -> tuple[str, list[int]]:
        """Return the cluster as it stands, and how many jobs waited so far."""
        try:
            async with self._desk.client(request) as client:
                cluster = (await client.cluster()).as_sent()
                done = await recent_jobs(client, _MOST_JOBS, status="completed")
        except DreamCadError as error:
            return error_html(error), depths
        depths = [*depths, waiting(cluster)][-_MOST_DEPTHS:]
        return cluster_html(cluster, done, depths, datetime.now(UTC)), depths


def waiting(cluster: Mapping[str, Any]) -> int:
    """Return how many jobs wait."""
    return sum(int(entry.get("count", 0)) for entry in cluster.get("depth", ()))


def cluster_html(
    cluster: Mapping[str, Any], done: Sequence[Job], depths: Sequence[int], now: datetime
) -> str:
    """Return tiles of sums, a table of models, and the charts.

    Args:
        cluster: ``/v1/cluster``.
        done: the newest completed jobs.
        depths: how many jobs waited, oldest first.
        now: the time.
    """
    models: Mapping[str, Mapping[str, Any]] = cluster.get("models", {})
    nodes = [node for node in cluster.get("nodes", ()) if node.get("alive")]
    gpus = sum(node.get("resources", {}).get("GPU", 0) for node in nodes)
    tiles = (
        ("Nodes", len(nodes)),
        ("GPUs", f"{gpus:g}"),
        ("Waiting", waiting(cluster)),
        ("Running", sum(int(facts.get("running", 0)) for facts in models.values())),
        ("State", _state(cluster)),
    )
    body = "".join(
        f'<div class="dc-tile"><b>{escape(str(value))}</b><span>{name}</span></div>'
        for name, value in tiles
    )
    ends = [job.completed_at for job in done if job.completed_at is not None]
    throughput = per_minute(ends, now, _MINUTES)
    return (
        f'<div class="dc-tiles">{body}</div>{_models_table(models, cluster)}'
        f"{bars_svg(throughput, 'Meshes a minute', f'{_MINUTES} minutes ago', 'now')}"
        f"{bars_svg(depths, 'Jobs waiting', 'since this tab was opened', 'now')}"
    )


def _state(cluster: Mapping[str, Any]) -> str:
    if cluster.get("draining"):
        return "draining"
    return "paused" if cluster.get("paused") else "serving"


def _models_table(models: Mapping[str, Mapping[str, Any]], cluster: Mapping[str, Any]) -> str:
    paused = set(cluster.get("paused_models", ()))
    heads = ("Model", "State", "Replicas", "Running", "Seconds a job", "GPU share", "Loads")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "".join(_row(name, facts, name in paused) for name, facts in models.items())
    return (
        '<div class="dc-scroll" tabindex="0" role="region" aria-label="Models">'
        f'<table class="dc-list"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(name: str, facts: Mapping[str, Any], is_paused: bool) -> str:
    state = "paused" if is_paused else "ready" if facts.get("ready") else "not ready"
    seconds = facts.get("seconds_per_job")
    cells = (
        name,
        state,
        facts.get("slots", 0),
        facts.get("running", 0),
        f"{seconds:.1f}" if seconds else "–",
        f"{facts.get('num_gpus') or 0:g}",
        facts.get("loads", 0),
    )
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
