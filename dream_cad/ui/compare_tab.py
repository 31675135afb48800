"""The tab of comparisons: two meshes side by side, judged before it is told what made them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.ui.desk import Desk, file_url
from dream_cad.ui.lists import recent_jobs, title
from dream_cad.ui.progress import error_html, note_html
from dream_cad.ui.result import blind_stage_html, caption, empty_stage_html
from dream_cad.ui.result_view import QUIET
from dream_cad.ui.votes import Choice, Vote, append_vote, read_votes, side_of, tally

_MOST = 100
_CHOICES: tuple[tuple[str, Choice], ...] = (
    ("Left is better", "a"),
    ("As good", "tie"),
    ("Right is better", "b"),
)


class CompareTab:
    """Builds the tab inside the current Blocks, and answers its events.

    Args:
        desk: the door to the server.
        tab: the tab, whose opening lists what can be compared.
        votes: file that votes are added to.
    """

    def __init__(self, desk: Desk, tab: Any, votes: Path) -> None:
        self._desk, self._votes = desk, votes
        shown = gr.State([])
        with gr.Row():
            one = gr.Dropdown([], label="One mesh", elem_id="dc-one")
            other = gr.Dropdown([], label="Another mesh", elem_id="dc-other")
        show = gr.Button("Show side by side", variant="primary", elem_id="dc-compare")
        with gr.Row(elem_classes="dc-columns"):
            with gr.Column(min_width=300):
                left = gr.HTML(empty_stage_html(), js_on_load=None, elem_id="dc-left")
            with gr.Column(min_width=300):
                right = gr.HTML(empty_stage_html(), js_on_load=None, elem_id="dc-right")
        with gr.Row(visible=False, elem_classes="dc-actions") as choices:
            buttons = [(gr.Button(text, elem_id=f"dc-vote-{c}"), c) for text, c in _CHOICES]
        verdict = gr.HTML("", js_on_load=None, elem_id="dc-verdict")
        tab.select(self.offer, None, [one, other], **QUIET)
        show.click(self.show, [one, other], [shown, left, right, choices, verdict], **QUIET)
        for button, choice in buttons:
            button.click(self._voter(choice), shown, [choices, verdict], **QUIET)

    async def offer(self, request: gr.Request) -> tuple[Any, Any]:
        """Return the newest completed jobs as choices."""
        try:
            async with self._desk.client(request) as client:
                jobs = await recent_jobs(client, _MOST, status="completed")
        except DreamCadError as error:
            gr.Warning(error.message)
            return gr.skip(), gr.skip()
        labels = [(f"{title(job)} ({job.id[-6:]})", job.id) for job in jobs]
        return gr.update(choices=labels), gr.update(choices=labels)

    async def show(
        self, one: str | None, other: str | None, request: gr.Request
    ) -> tuple[Any, ...]:
        """Show two meshes in an order that nobody knows, without what made them."""
        try:
            if not one or not other or one == other:
                raise InvalidConfigError("Choose two different meshes.")
            ids = [one, other] if secrets.randbelow(2) else [other, one]
            async with self._desk.client(request) as client:
                jobs = [await client.get(job_id) for job_id in ids]
            urls = [file_url(await self._desk.result(request, job, "glb")) for job in jobs]
        except DreamCadError as error:
            return [], gr.skip(), gr.skip(), gr.update(visible=False), error_html(error)
        left, right = (
            blind_stage_html(url, side) for url, side in zip(urls, ("left", "right"), strict=True)
        )
        return ids, left, right, gr.update(visible=True), note_html("Which one is better?")

    def _voter(
        self, choice: Choice
    ) -> Callable[[list[str], gr.Request], Awaitable[tuple[Any, str]]]:
        async def vote(ids: list[str], request: gr.Request) -> tuple[Any, str]:
            return await self.vote(choice, ids, request)

        return vote

    async def vote(self, choice: Choice, ids: list[str], request: gr.Request) -> tuple[Any, str]:
        """Store a vote, and tell what was on which side."""
        try:
            async with self._desk.client(request) as client:
                jobs = [await client.get(job_id) for job_id in ids]
                receipts = [await client.receipt(job_id) for job_id in ids]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            append_vote(self._votes, Vote(now, side_of(jobs[0]), side_of(jobs[1]), choice))
            rows = tally(read_votes(self._votes))
        except DreamCadError as error:
            return gr.skip(), error_html(error)
        captions = [caption(job, receipt) for job, receipt in zip(jobs, receipts, strict=True)]
        return gr.update(visible=False), told_html(captions, rows)


def told_html(captions: Sequence[str], rows: Sequence[tuple[str, int, int, int]]) -> str:
    """Return what was on which side, and how the models stand over all votes."""
    standing = "".join(
        f"<tr><td>{escape(model)}</td><td>{won}</td><td>{lost}</td><td>{tied}</td></tr>"
        for model, won, lost, tied in rows
    )
    table = (
        '<table class="dc-list"><thead><tr><th scope="col">Model</th><th scope="col">Won</th>'
        '<th scope="col">Lost</th><th scope="col">Tied</th></tr></thead>'
        f"<tbody>{standing}</tbody></table>"
    )
    return (
        f'<section class="dc-job" role="status"><p>Left: {escape(captions[0])}</p>'
        f"<p>Right: {escape(captions[1])}</p></section>{table if rows else ''}"
    )
