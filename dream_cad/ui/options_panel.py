"""The panel of presets and options of the chosen model."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dream_cad.ui.presets import PRESETS, Preset, is_offered, preset, values_for
from dream_cad.ui.schema_form import Field, form_html


def panel_html(
    fields: Sequence[Field], chosen: str, *, for_image: bool, is_open: bool = False
) -> str:
    """Return the presets that suit a model, and its options filled in by one of them.

    Args:
        fields: the model's options.
        chosen: name of the preset.
        for_image: leave out what concerns only the picture that is drawn from words.
        is_open: show the options, not only the presets.
    """
    fields = [field for field in fields if not (for_image and is_text_only(field))]
    offered = [entry for entry in PRESETS if is_offered(entry, fields)]
    wish = preset(chosen)
    if wish not in offered:
        wish = offered[0]
    choices = "".join(_choice(entry, entry is wish) for entry in offered)
    return (
        f'<fieldset class="dc-presets"><legend>Preset</legend>{choices}</fieldset>'
        f'<details class="dc-options"{" open" if is_open else ""}><summary>Options</summary>'
        f"{form_html(fields, values_for(wish, fields))}</details>"
    )


def is_text_only(field: Field) -> bool:
    """Return whether an option says of itself, or is known, to concern words only."""
    return "(text only)" in field.description or field.name == "negative_prompt"


def _choice(entry: Preset, is_chosen: bool) -> str:
    return (
        f'<label class="dc-preset" title="{escape(entry.purpose)}">'
        f'<input type="radio" name="dc-preset" value="{escape(entry.name)}" data-choice="preset"'
        f"{' checked' if is_chosen else ''}><span>{escape(entry.title)}</span></label>"
    )
