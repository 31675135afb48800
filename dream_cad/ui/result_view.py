"""The finished mesh on a tab: its viewer, downloads, and the quality report."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dream_cad.client import Job
from dream_cad.exceptions import DreamCadError
from dream_cad.ui.desk import PACKAGE, Desk, file_url
from dream_cad.ui.findings import measured_html
from dream_cad.ui.progress import error_html
from dream_cad.ui.result import (
    FILE,
    download_html,
    downloads_html,
    empty_stage_html,
    extra_files,
    stage_html,
)

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event: our own panels tell of progress, and the API is the server's, not the page's."""

_DOWNLOAD_JS = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-format]');
  if (button) trigger('select', {format: button.dataset.format});
});"""


class ResultView:
    """Builds the parts inside the current Blocks, and answers their events.

    Attributes:
        parts: components that ``cleared`` and ``shown`` return updates for, in order.
        buttons: the row below the viewer; more buttons may be added to it.

    Args:
        desk: the door to the server.
        name: begins the ids of the parts.
    """

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._job_id = gr.State("")
        self._stage = gr.HTML(empty_stage_html(), js_on_load=None, elem_id=f"{name}-stage")
        self._downloads = gr.HTML("", js_on_load=_DOWNLOAD_JS, elem_id=f"{name}-downloads")
        self._file = gr.HTML("", js_on_load=None, elem_id=f"{name}-file")
        with gr.Row(visible=False, elem_classes="dc-actions") as self.buttons:
            measure = gr.Button("Check the mesh", elem_id=f"{name}-measure")
        self._findings = gr.HTML("", js_on_load=None, elem_id=f"{name}-findings")
        self.parts = [
            self._job_id,
            self._stage,
            self._downloads,
            self._file,
            self.buttons,
            self._findings,
        ]
        self._downloads.select(self.download, self._job_id, self._file, **QUIET)
        measure.click(self.measure, self._job_id, self._findings, **QUIET)

    @staticmethod
    def unchanged() -> tuple[Any, ...]:
        """Return updates that leave the parts as they are."""
        return (gr.skip(),) * 6

    @staticmethod
    def cleared() -> tuple[Any, ...]:
        """Return updates that empty the parts."""
        return "", empty_stage_html(), "", "", gr.update(visible=False), ""

    async def shown(self, job: Job, request: Any) -> tuple[Any, ...]:
        """Return updates that show a completed job."""
        path = await self._desk.result(request, job, "glb")
        async with self._desk.client(request) as client:
            receipt = await client.receipt(job.id)
            listed = await client.models()
            stored = await client.files(job.id)
        formats = next((model.formats for model in listed.models if model.name == job.model), ())
        if job.options.get("profile"):
            formats = (*formats, PACKAGE)
        stage = stage_html(file_url(path), job, receipt)
        shown = gr.update(visible=True)
        files = extra_files(file.name for file in stored)
        return job.id, stage, downloads_html(formats or ("glb",), files), "", shown, ""

    async def download(self, job_id: str, event: gr.EventData, request: gr.Request) -> str:
        """Return a link that the page follows at once."""
        try:
            async with self._desk.client(request) as client:
                job = await client.get(job_id)
            wanted = str(event._data.get("format"))
            if wanted.startswith(FILE):
                path = await self._desk.file(request, job, wanted.removeprefix(FILE))
            else:
                path = await self._desk.result(request, job, wanted)
        except DreamCadError as error:
            return error_html(error)
        return download_html(file_url(path), path.name)

    async def measure(self, job_id: str, request: gr.Request) -> str:
        """Return the quality report of the shown mesh."""
        try:
            async with self._desk.client(request) as client:
                job = await client.get(job_id)
            return await measured_html(await self._desk.result(request, job, "glb"))
        except DreamCadError as error:
            return error_html(error)
