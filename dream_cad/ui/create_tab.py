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
from dream_cad.ui.cards import cards_html, suggest, takes_image, takes_several, takes_text
from dream_cad.ui.desk import Desk
from dream_cad.ui.options_panel import panel_html
from dream_cad.ui.presets import preset, values_for
from dream_cad.ui.progress import error_html, job_html, note_html
from dream_cad.ui.result_view import QUIET, ResultView
from dream_cad.ui.schema_form import fields_of, read_answers
from dream_cad.ui.views import Pictures, read_views

WORDS, PICTURE, SEVERAL = "Words", "A picture", "Several pictures"
_TAKES = {WORDS: takes_text, PICTURE: takes_image, SEVERAL: takes_several}
_PRIORITIES = [("Low", "low"), ("Normal", "normal"), ("High", "high"), ("Urgent", "urgent")]
_CHOOSE_JS = """element.addEventListener('change', event => {
  if (event.target.matches('[data-choice]')) trigger('select', dreamcad.choice());
});"""
_SEEDS = 2**32


@dataclass(frozen=True)
class Wish:
    """What the form says, as a request's fields."""

    prompt: str | None
    image: str | None
    images: Pictures | None
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
        self._job_id = gr.State("")
        with gr.Row(elem_classes="dc-columns"):
            with gr.Column(scale=4, min_width=320):
                self._build_form()
            with gr.Column(scale=6, min_width=320):
                self._build_result()
        self._connect(blocks)

    def _build_form(self) -> None:
        self._kind = gr.Radio([WORDS, PICTURE, SEVERAL], value=WORDS, label="Start from")
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
        self._images = gr.File(
            label="Pictures of one object, called front.png, back.png and so on",
            file_count="multiple",
            file_types=["image"],
            type="filepath",
            height=240,
            visible=False,
            elem_id="dc-images",
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
        self._view = ResultView(self._desk, "dc")
        with self._view.buttons:
            self._again = gr.Button("Again with another seed", elem_id="dc-again")

    def _connect(self, blocks: Any) -> None:
        blocks.load(self.load, None, [self._cards, self._panel], **QUIET)
        shown = [self._prompt, self._image, self._images, self._cards, self._panel]
        self._kind.change(self.switch, self._kind, shown, **QUIET)
        for part in (self._cards, self._panel):
            part.select(self.choose, self._kind, self._panel, **QUIET)
        inputs = [self._kind, self._prompt, self._image, self._images, self._priority, self._form]
        outputs = [self._job_id, self._progress, self._run, self._cancel, *self._view.parts]
        form = "(kind, text, one, more, priority) => [kind, text, one, more, priority, {}]"
        for button, how in ((self._run, "dreamcad.form()"), (self._again, "dreamcad.form(true)")):
            button.click(
                self.run,
                inputs,
                outputs,
                js=form.format(how),
                concurrency_limit=None,
                trigger_mode="once",
                **QUIET,
            )
        self._cancel.click(self.cancel, self._job_id, self._cancel, **QUIET)

    async def load(self, request: gr.Request) -> tuple[str, str]:
        """Return the model cards and the options of the one that fits best."""
        return await self._cards_and_panel(request, WORDS)

    async def switch(self, kind: str, request: gr.Request) -> tuple[Any, Any, Any, str, str]:
        """Show the prompt or the pictures, and the models that take them."""
        cards, panel = await self._cards_and_panel(request, kind)
        inputs = [gr.update(visible=kind == own) for own in (WORDS, PICTURE, SEVERAL)]
        return inputs[0], inputs[1], inputs[2], cards, panel

    async def _cards_and_panel(self, request: gr.Request, kind: str) -> tuple[str, str]:
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
                cluster = (await client.cluster()).as_sent()
        except DreamCadError as error:
            return error_html(error), ""
        best = suggest(listed.models, listed.default_model, cluster, takes=_TAKES[kind])
        chosen = best[0] or listed.default_model
        nobody = "" if best[0] else note_html(f"No model that is served here takes this: {kind}.")
        fields = fields_of(_find(listed.models, chosen).options_schema)
        panel = panel_html(fields, "balanced", for_image=kind != WORDS)
        return nobody + cards_html(listed.models, chosen, best), panel

    async def choose(self, kind: str, event: gr.EventData, request: gr.Request) -> str:
        """Return the options of the chosen model, filled in by the chosen preset."""
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
            model = _find(listed.models, str(event._data.get("model") or listed.default_model))
        except DreamCadError as error:
            return error_html(error)
        return panel_html(
            fields_of(model.options_schema),
            str(event._data.get("preset") or ""),
            for_image=kind != WORDS,
            is_open=bool(event._data.get("open")),
        )

    async def run(
        self,
        kind: str,
        prompt: str,
        image: str | None,
        images: list[str] | None,
        priority: str,
        form: str,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Queue a job and follow it; yields what the page shows at every change."""
        skip, same = gr.skip(), self._view.unchanged()
        working = gr.update(interactive=False), gr.update(interactive=True)
        idle = gr.update(interactive=True), gr.update(interactive=False)
        yield "", note_html("Sending …"), working[0], skip, *same
        try:
            async with self._desk.client(request) as client:
                listed = await client.models()
                wish = read_wish(kind, prompt, image, images, priority, form, listed)
                job = await _submit(client, wish)
                yield job.id, job_html(job), *working, *self._view.cleared()
                async for event in client.events(job.id):
                    job = event.job
                    yield skip, job_html(job), skip, skip, *same
            shown = await self._view.shown(job, request) if job.status == "completed" else same
            yield skip, skip, *idle, *shown
        except DreamCadError as error:
            yield skip, error_html(error), *idle, *same

    async def cancel(self, job_id: str, request: gr.Request) -> Any:
        """Cancel the job; the page hears of the end from the job's own events."""
        if job_id:
            try:
                async with self._desk.client(request) as client:
                    await client.cancel(job_id)
            except DreamCadError as error:
                gr.Info(error.message)
        return gr.update(interactive=False)


def read_wish(
    kind: str,
    prompt: str,
    image: str | None,
    images: list[str] | None,
    priority: str,
    form: str,
    listed: Models,
) -> Wish:
    """Return what the page asks for.

    Args:
        kind: whether words, a picture or several count.
        prompt: the words.
        image: path of the picture.
        images: paths of several.
        priority: of the job.
        form: JSON of the page's own form: model, preset, options, whether a new seed is wanted.
        listed: the server's models.

    Raises:
        InvalidConfigError: there is no input, or an option cannot be read.
    """
    answers = json.loads(form)
    if kind == PICTURE and not image:
        raise InvalidConfigError(
            "There is no picture.", hint="Drop one, paste one, or choose a file."
        )
    if kind == WORDS and not prompt.strip():
        raise InvalidConfigError("There is no description.", hint="Say what it shall be.")
    model = _find(listed.models, answers.get("model") or listed.default_model)
    fields = fields_of(model.options_schema)
    if "options" in answers:
        options = read_answers(fields, answers["options"])
    else:
        options = values_for(preset(answers.get("preset", "")), fields)
    # Who presses Generate again wants another variant, not the earlier answer from the cache.
    has_seed = any(field.name == "seed" for field in fields)
    if has_seed and (answers.get("new_seed") or "seed" not in options):
        options["seed"] = secrets.randbelow(_SEEDS)
    return Wish(
        prompt=prompt.strip() if kind == WORDS else None,
        image=image if kind == PICTURE else None,
        images=read_views(model, images) if kind == SEVERAL else None,
        model=model.name,
        options=options,
        priority=priority,
    )


async def _submit(client: AsyncClient, wish: Wish) -> Job:
    return await client.submit(
        wish.prompt,
        image=wish.image,
        images=wish.images,
        model=wish.model,
        options=wish.options,
        priority=wish.priority,
        tags=["ui"],
    )


def _find(models: Sequence[Model], name: str) -> Model:
    return next((model for model in models if model.name == name), Model(name=name))
