"""The tab of earlier jobs: search them, open one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dream_cad.client import Job
from dream_cad.exceptions import DreamCadError
from dream_cad.ui.desk import Desk
from dream_cad.ui.lists import jobs_html, recent_jobs
from dream_cad.ui.progress import error_html, job_html, note_html
from dream_cad.ui.result_view import QUIET, ResultView

_ANY = "any"
_STATES = [_ANY, "completed", "running", "pending", "failed", "cancelled"]
_MOST = 300
_OPEN_JS = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-job]');
  if (button) trigger('select', {job: button.dataset.job});
});"""


class HistoryTab:
    """Builds the tab inside the current Blocks, and answers its events.

    Args:
        desk: the door to the server.
        tab: the tab, whose opening lists the jobs.
    """

    def __init__(self, desk: Desk, tab: Any) -> None:
        self._desk = desk
        with gr.Row(elem_classes="dc-columns"):
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    search = gr.Textbox(
                        label="Search", placeholder="chair", elem_id="dc-search", scale=3
                    )
                    status = gr.Dropdown(_STATES, value=_ANY, label="State", scale=1)
                self._list = gr.HTML("", js_on_load=_OPEN_JS, elem_id="dc-history")
            with gr.Column(scale=6, min_width=320):
                self._job = gr.HTML(note_html("Open a job of the list."), js_on_load=None)
                self._view = ResultView(desk, "dc-old")
        wanted = [search, status]
        tab.select(self.search, wanted, self._list, **QUIET)
        search.change(self.search, wanted, self._list, trigger_mode="always_last", **QUIET)
        status.change(self.search, wanted, self._list, **QUIET)
        self._list.select(self.open, None, [self._job, *self._view.parts], **QUIET)

    async def search(self, words: str, status: str, request: gr.Request) -> str:
        """Return the jobs whose prompt, model, tags or id hold all the words of a search."""
        try:
            async with self._desk.client(request) as client:
                wanted = None if status == _ANY else status
                jobs = await recent_jobs(client, _MOST, status=wanted)
        except DreamCadError as error:
            return error_html(error)
        return jobs_html([job for job in jobs if matches(job, words)])

    async def open(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """Return how a job stands, and its mesh."""
        try:
            async with self._desk.client(request) as client:
                job = await client.get(str(event._data.get("job")))
            if job.status != "completed":
                return job_html(job), *self._view.cleared()
            return job_html(job), *await self._view.shown(job, request)
        except DreamCadError as error:
            return error_html(error), *self._view.cleared()


def matches(job: Job, search: str) -> bool:
    """Return whether a job's prompt, model, tags or id hold every word of a search."""
    text = " ".join([job.prompt, job.model, *job.tags, job.id]).lower()
    return all(word in text for word in search.lower().split())
