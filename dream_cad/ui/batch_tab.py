"""The tab of batches: upload a file of prompts, watch, retry what failed, take all as a zip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from dream_cad.client import AsyncClient, Batch, BatchItem
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.ui.desk import Desk, file_url
from dream_cad.ui.lists import items_html
from dream_cad.ui.progress import error_html, note_html
from dream_cad.ui.result import download_html
from dream_cad.ui.result_view import QUIET

_ASK_EVERY_S = 1.0
_MOST_SHOWN = 100
_HELP = (
    '<p class="dc-hint">A CSV file with a column <code>prompt</code>, and if you like '
    "<code>model</code>, <code>priority</code>, <code>tags</code> and <code>option.…</code>; or "
    "JSON lines with the same names.</p>"
)


class BatchTab:
    """Builds the tab inside the current Blocks, and answers its events.

    Args:
        desk: the door to the server.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._batch_id = gr.State("")
        with gr.Row(elem_classes="dc-columns"):
            with gr.Column(scale=4, min_width=320):
                file = gr.File(
                    label="CSV or JSON lines",
                    file_types=[".csv", ".jsonl"],
                    height=150,
                    elem_id="dc-batch-file",
                )
                gr.HTML(_HELP, js_on_load=None)
                start = gr.Button("Start the batch", variant="primary", elem_id="dc-batch-start")
                with gr.Row(elem_classes="dc-actions"):
                    retry = gr.Button("Retry failed", elem_id="dc-batch-retry")
                    cancel = gr.Button("Cancel the rest", variant="stop", elem_id="dc-batch-cancel")
                    archive = gr.Button("Download zip", elem_id="dc-batch-zip")
                self._file = gr.HTML("", js_on_load=None)
            with gr.Column(scale=6, min_width=320):
                self._state = gr.HTML(
                    note_html("No batch yet."), js_on_load=None, elem_id="dc-batch-state"
                )
        outputs = [self._batch_id, self._state]
        following: dict[str, Any] = {"concurrency_limit": None, **QUIET}
        start.click(self.start, file, outputs, **following)
        retry.click(self.retry, self._batch_id, outputs, **following)
        cancel.click(self.cancel, self._batch_id, self._file, **QUIET)
        archive.click(self.archive, self._batch_id, self._file, **QUIET)

    async def start(self, file: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, str]]:
        """Queue the rows of a file and follow them; yields the batch and how it stands."""
        try:
            if not file:
                raise InvalidConfigError(
                    "There is no file.", hint="Choose a CSV or JSON lines file."
                )
            async with self._desk.client(request) as client:
                batch = await client.submit_batch_file(file, name=Path(file).stem)
                async for html in _follow(client, batch):
                    yield batch.id, html
        except DreamCadError as error:
            yield gr.skip(), error_html(error)

    async def retry(self, batch_id: str, request: gr.Request) -> AsyncIterator[tuple[Any, str]]:
        """Queue failed items again and follow the batch."""
        try:
            async with self._desk.client(request) as client:
                await client.retry_batch(_known(batch_id))
                async for html in _follow(client, await client.get_batch(batch_id)):
                    yield gr.skip(), html
        except DreamCadError as error:
            yield gr.skip(), error_html(error)

    async def cancel(self, batch_id: str, request: gr.Request) -> str:
        """Cancel what has not ended."""
        try:
            async with self._desk.client(request) as client:
                await client.cancel_batch(_known(batch_id))
        except DreamCadError as error:
            return error_html(error)
        return note_html("What has not ended is cancelled.")

    async def archive(self, batch_id: str, request: gr.Request) -> str:
        """Return a link to the zip, which the page follows at once."""
        try:
            async with self._desk.client(request) as client:
                batch = await client.get_batch(_known(batch_id))
            state = repr(sorted(batch.counts.items()))
            path = await self._desk.archive(request, batch_id, batch.name, state)
        except DreamCadError as error:
            return error_html(error)
        return download_html(file_url(path), path.name)


def _known(batch_id: str) -> str:
    if not batch_id:
        raise InvalidConfigError("There is no batch yet.", hint="Start one first.")
    return batch_id


async def _follow(client: AsyncClient, batch: Batch) -> AsyncIterator[str]:
    """Yield how a batch stands, every second until all of its jobs have ended."""
    shown = ""
    while True:
        items: list[BatchItem] = []
        async for item in client.batch_items(batch.id):
            items.append(item)
            if len(items) == _MOST_SHOWN:
                break
        html = batch_html(batch, items)
        if html != shown:
            yield html
            shown = html
        if batch.is_final:
            return
        await asyncio.sleep(_ASK_EVERY_S)
        batch = await client.get_batch(batch.id)


def batch_html(batch: Batch, items: list[BatchItem]) -> str:
    """Return how a batch stands, and its items."""
    counts = [f"{count} {state}" for state, count in batch.counts.items() if count]
    ended = sum(batch.counts.get(state, 0) for state in ("completed", "failed", "cancelled"))
    heading = "Done" if batch.is_final else f"{ended} of {batch.total}"
    status = "completed" if batch.is_final else "running"
    return (
        f'<section class="dc-job" data-status="{status}"><p class="dc-job-head" role="status">'
        f"<b>{heading}</b> <span>{escape(batch.name)} · {escape(', '.join(counts))}</span></p>"
        f'<progress max="{max(batch.total, 1)}" value="{ended}" aria-label="Progress of the batch">'
        f"</progress></section>{items_html(items, batch.total)}"
    )
