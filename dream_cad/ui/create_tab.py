"""The first tab: describe an object, watch it being made, look at it, download it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dream_cad.client import AsyncClient, Job, Model, Models
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.ui.cards import cards_html, suggest
from dream_cad.ui.desk import Desk, file_url
from dream_cad.ui.findings import measured_html
from dream_cad.ui.options_panel import panel_html
from dream_cad.ui.presets import preset, values_for
from dream_cad.ui.progress import error_html, job_html, note_html
from dream_cad.ui.result import download_html, downloads_html, empty_stage_html, stage_html
from dream_cad.ui.schema_form import fields_of, read_answers

WORDS, PICTURE = "Words", "A picture"
_PRIORITIES = [("Low", "low"), ("Normal", "normal"), ("High", "high"), ("Urgent", "urgent")]
_CHOOSE_JS = "element.addEventListener('change', () => trigger('select', dreamcad.choice()));"
_DOWNLOAD_JS = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-format]');
  if (button) trigger('select', {format: button.dataset.format});
});"""
_SEEDS = 2**32
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Wish:
    """What the form says, as a request's fields."""

    prompt: str | None
    image: str | None
    model: str
    options: dict[str, Any]
    priority: Any


class CreateTab:
    """Builds the tab inside the current Blocks, and answers its events.

    Args:
        desk: the door to the server.
        blocks: the interface, whose loading fills the tab.
    """

    def __init__(self, desk: Desk, blocks: Any) -> None:
        self._desk = desk
        self.job_id = gr.State("")
        with gr.Row(elem_classes="dc-columns"):
            with gr.Column(scale=4, min_width=320):
                self._build_form()
            with gr.Column(scale=6, min_width=320):
                self._build_result()
        self._connect(blocks)

    def _build_form(self) -> None:
        self._kind = gr.Radio([WORDS, PICTURE], value=WORDS, label="Start from")
        self._prompt = gr.Textbox(
            label="What shall it be?",
            placeholder="a red wooden chair",
            lines=2,
            max_lines=6,
            elem_id="dc-prompt",
        )
        self._image = gr.Image(
            label="Picture of one object",
            type="filepath",
            format="png",
            sources=["upload", "clipboard"],
            height=240,
            visible=False,
            elem_id="dc-image",
        )
        self._form = gr.Textbox("{}", visible=False)  # the page's own form, filled in by app.js
        with gr.Row(elem_classes="dc-actions"):
            self._run = gr.Button("Generate", variant="primary", elem_id="dc-generate", scale=3)
            self._cancel = gr.Button(
                "Cancel", variant="stop", elem_id="dc-cancel", interactive=False, scale=1
            )
        self._cards = gr.HTML(
            note_html("Asking the server for its models …"), js_on_load=_CHOOSE_JS
        )
        self._panel = gr.HTML("", js_on_load=_CHOOSE_JS)
        self._priority = gr.Dropdown(_PRIORITIES, value="normal", label="Priority")

    def _build_result(self) -> None:
        self._progress = gr.HTML(
            note_html("Nothing is running. Ctrl + Enter generates."),
            js_on_load=None,
            elem_id="dc-progress",
        )
        self._stage = gr.HTML(empty_stage_html(), js_on_load=None, elem_id="dc-stage")
        self._downloads = gr.HTML("", js_on_load=_DOWNLOAD_JS, elem_id="dc-downloads")
        self._file = gr.HTML("", js_on_load=None)
        with gr.Row(visible=False, elem_classes="dc-actions") as self._after:
            self._again = gr.Button("Again with another seed", elem_id="dc-again")
            self._measure = gr.Button("Check the mesh", elem_id="dc-measure")
        self._findings = gr.HTML("", js_on_load=None, elem_id="dc-findings")

    def _connect(self, blocks: Any) -> None:
        blocks.load(self.load, None, [self._cards, self._panel], **_QUIET)
        shown = [self._prompt, self._image, self._cards, self._panel]
        self._kind.change(self.switch, self._kind, shown, **_QUIET)
        for part in (self._cards, self._panel):
            part.select(self.choose, self._kind, self._panel, **_QUIET)
        inputs = [self._kind, self._prompt, self._image, self._priority, self._form]
        outputs = [
            self.job_id,
            self._progress,
            self._stage,
            self._downloads,
            self._findings,
            self._after,
            self._run,
            self._cancel,
        ]
        form = "(kind, prompt, image, priority) => [kind, prompt, image, priority, {}]"
        for button, how in ((self._run, "dreamcad.form()"), (self._again, "dreamcad.form(true)")):
            button.click(
                self.run,
                inputs,
                outputs,
                js=form.format(how),
                concurrency_limit=None,
                trigger_mode="once",
                **_QUIET,
            )
        self._cancel.click(self.cancel, self.job_id, self._cancel, **_QUIET)
        self._downloads.select(self.download, self.job_id, self._file, **_QUIET)
        self._measure.click(self.measure, self.job_id, self._findings, **_QUIET)

    async def load(self, request: gr.Request) -> tuple[str, str]:
        """Return the model cards and the options of the one that fits best."""
        return await self._cards_and_panel(request, for_image=False)

    async def switch(self, kind: str, request: gr.Request) -> tuple[Any, Any, str, str]:
        """Show the prompt or the picture, and the models that take it."""
        is_image = kind == PICTURE
        cards, panel = await self._cards_and_panel(request, for_image=is_image)
        return gr.update(visible=not is_image), gr.update(visible=is_image), cards, panel

    async def _cards_and_panel(self, request: gr.Request, *, for_image: bool) -> tuple[str, str]:
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
                cluster = (await client.cluster()).as_sent()
        except DreamCadError as error:
            return error_html(error), ""
        best = suggest(listed.models, listed.default_model, cluster, for_image=for_image)
        chosen = best[0] or listed.default_model
        return cards_html(listed.models, chosen, best), panel_html(
            fields_of(_find(listed.models, chosen).options_schema), "balanced", for_image=for_image
        )

    async def choose(self, kind: str, event: gr.EventData, request: gr.Request) -> str:
        """Return the options of the chosen model, filled in by the chosen preset."""
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
            model = _find(listed.models, str(event._data.get("model") or listed.default_model))
        except DreamCadError as error:
            return error_html(error)
        wanted = str(event._data.get("preset") or "")
        return panel_html(fields_of(model.options_schema), wanted, for_image=kind == PICTURE)

    async def run(
        self,
        kind: str,
        prompt: str,
        image: str | None,
        priority: str,
        form: str,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Queue a job and follow it; yields what the page shows at every change."""
        skip, working = gr.skip(), (gr.update(interactive=False), gr.update(interactive=True))
        idle = (gr.update(interactive=True), gr.update(interactive=False))
        hidden = gr.update(visible=False)
        yield "", note_html("Sending …"), skip, "", "", hidden, working[0], skip
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
                wish = read_wish(kind, prompt, image, priority, form, listed)
                job = await _submit(client, wish)
                yield job.id, job_html(job), empty_stage_html(), skip, skip, skip, *working
                async for event in client.events(job.id):
                    job = event.job
                    yield skip, job_html(job), skip, skip, skip, skip, skip, skip
            if job.status != "completed":
                yield skip, skip, skip, skip, skip, skip, *idle
                return
            stage, downloads = await self.show(job, _find(listed.models, job.model), request)
            yield skip, skip, stage, downloads, skip, gr.update(visible=True), *idle
        except DreamCadError as error:
            yield skip, error_html(error), skip, skip, skip, skip, *idle

    async def show(self, job: Job, model: Model, request: gr.Request) -> tuple[str, str]:
        """Return the viewer of a completed job and its downloads."""
        path = await self._desk.result(request, job, "glb")
        async with self._desk.client(request) as client:
            receipt = await client.receipt(job.id)
        return stage_html(file_url(path), job, receipt), downloads_html(model.formats)

    async def cancel(self, job_id: str, request: gr.Request) -> Any:
        """Cancel the job; the page hears of the end from the job's own events."""
        if job_id:
            try:
                async with self._desk.client(request) as client:
                    await client.cancel(job_id)
            except DreamCadError as error:
                gr.Info(error.message)
        return gr.update(interactive=False)

    async def download(self, job_id: str, event: gr.EventData, request: gr.Request) -> str:
        """Return a link that the page follows at once."""
        try:
            async with self._desk.client(request) as client:
                job = await client.get(job_id)
            path = await self._desk.result(request, job, str(event._data.get("format")))
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


def read_wish(
    kind: str, prompt: str, image: str | None, priority: str, form: str, listed: Models
) -> Wish:
    """Return what the page asks for.

    Args:
        kind: whether words or a picture count.
        prompt: the words.
        image: path of the picture.
        priority: of the job.
        form: JSON of the page's own form: model, preset, options, whether a new seed is wanted.
        listed: the server's models.

    Raises:
        InvalidConfigError: there is no input, or an option cannot be read.
    """
    answers = json.loads(form)
    is_image = kind == PICTURE
    if is_image and not image:
        raise InvalidConfigError(
            "There is no picture.", hint="Drop one, paste one, or choose a file."
        )
    if not is_image and not prompt.strip():
        raise InvalidConfigError("There is no description.", hint="Say what it shall be.")
    model = _find(listed.models, answers.get("model") or listed.default_model)
    fields = fields_of(model.options_schema)
    if "options" in answers:
        options = read_answers(fields, answers["options"])
    else:
        options = values_for(preset(answers.get("preset", "")), fields)
    if answers.get("new_seed") and any(field.name == "seed" for field in fields):
        options["seed"] = secrets.randbelow(_SEEDS)
    return Wish(
        prompt=None if is_image else prompt.strip(),
        image=image if is_image else None,
        model=model.name,
        options=options,
        priority=priority,
    )


async def _submit(client: AsyncClient, wish: Wish) -> Job:
    return await client.submit(
        wish.prompt,
        image=wish.image,
        model=wish.model,
        options=wish.options,
        priority=wish.priority,
        tags=["ui"],
    )


def _find(models: Sequence[Model], name: str) -> Model:
    return next((model for model in models if model.name == name), Model(name=name))
