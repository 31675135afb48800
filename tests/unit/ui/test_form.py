from __future__ import annotations

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.built_in import BUILT_IN_IMPLEMENTATIONS
from dream_cad.models.registry import resolve_implementation
from dream_cad.ui.options_panel import panel_html
from dream_cad.ui.presets import PRESETS, is_offered, preset, values_for
from dream_cad.ui.schema_form import fields_of, form_html, read_answers

SCHEMA = {
    "properties": {
        "texture": {"type": "boolean", "default": False, "description": "Bake a texture."},
        "resolution": {
            "anyOf": [{"type": "integer", "minimum": 32, "maximum": 128}, {"type": "null"}],
            "default": None,
        },
        "threshold": {"type": "number", "exclusiveMinimum": 0.0, "maximum": 9.0, "default": 2.5},
        "matting": {"type": "string", "enum": ["auto", "alpha"], "default": "auto"},
        "scheduler": {"$ref": "#/$defs/Scheduler", "default": "ddim"},
        "negative_prompt": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "seed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None},
        "weights": {"type": "array", "items": {"type": "number"}},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"Scheduler": {"enum": ["ddim", "euler"], "type": "string"}},
}


def test_fields_follow_the_schema_and_the_usual_ones_come_first() -> None:
    fields = {field.name: field for field in fields_of(SCHEMA)}
    assert list(fields)[:2] == ["seed", "resolution"]
    assert fields["weights"].kind == "numbers"
    assert "names" not in fields  # a list of texts has no input; the server's default holds
    assert (fields["resolution"].least, fields["resolution"].most) == (32, 128)
    assert fields["threshold"].least == 0.0
    assert fields["scheduler"].choices == ("ddim", "euler")
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds["texture"] == "boolean"
    assert kinds["negative_prompt"] == "text"
    assert fields_of(None) == []


def test_answers_become_typed_options_and_empty_ones_are_left_out() -> None:
    answers = {
        "texture": "true",
        "resolution": " 64 ",
        "threshold": "1.5",
        "matting": "",
        "seed": "",
        "scheduler": "euler",
        "unknown": "1",
    }
    assert read_answers(fields_of(SCHEMA), answers) == {
        "texture": True,
        "resolution": 64,
        "threshold": 1.5,
        "scheduler": "euler",
    }


@pytest.mark.parametrize(("name", "text"), [("resolution", "6.5"), ("threshold", "thick")])
def test_an_answer_that_is_no_number_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=name.capitalize()):
        read_answers(fields_of(SCHEMA), {name: text})


def test_every_input_has_a_label_and_what_it_shows_is_escaped() -> None:
    hostile = {"properties": {'a"><b': {"type": "string", "description": "<script>"}}}
    html = form_html(fields_of(hostile), {})
    assert "<script>" not in html
    assert '"><b' not in html
    html = form_html(fields_of(SCHEMA), {"resolution": 64, "texture": True})
    for field in fields_of(SCHEMA):
        assert f'<label for="dc-option-{field.name}">' in html
        assert f'data-option="{field.name}"' in html
    assert 'min="32" max="128"' in html
    assert 'value="64"' in html
    assert '<option value="true" selected>on</option>' in html


def test_presets_take_what_the_model_has_within_its_limits() -> None:
    fields = fields_of(SCHEMA)
    assert values_for(preset("high"), fields) == {"resolution": 128, "texture": True}
    assert values_for(preset("fast"), fields) == {"resolution": 64, "texture": False}
    assert values_for(preset("balanced"), fields) == {}
    assert preset("no such preset").name == "balanced"


def test_splats_are_offered_where_a_model_makes_them() -> None:
    splats = preset("splats")
    assert not is_offered(splats, fields_of(SCHEMA))
    lgm = fields_of({"properties": {"reconstruction": {"enum": ["lgm", "sds"]}}})
    assert is_offered(splats, lgm)
    assert values_for(splats, lgm) == {"reconstruction": "lgm"}
    assert all(is_offered(entry, []) for entry in PRESETS if not entry.needs)


def test_every_registered_model_gets_the_presets_it_can_do() -> None:
    offered = {}
    for name in BUILT_IN_IMPLEMENTATIONS:
        options = resolve_implementation(name).options_model()
        assert options is not None
        fields = fields_of(options.model_json_schema())
        splats = preset("splats")
        if is_offered(splats, fields):
            values = values_for(splats, fields)
            offered[name] = values
            options.model_validate(values)  # what the preset asks for is legal
    assert offered == {
        "mvdream": {"reconstruction": "lgm"},
        "trellis": {"representation": "gaussian_splatting"},
    }


def test_one_of_several_is_a_choice() -> None:
    options = resolve_implementation("trellis").options_model()
    assert options is not None
    (field,) = (f for f in fields_of(options.model_json_schema()) if f.name == "representation")
    assert (field.kind, field.default) == ("choice", "mesh")
    assert field.choices == ("mesh", "nerf", "gaussian_splatting", "slat")
    assert "usual (mesh)" in form_html([field], {})


def test_pairs_of_numbers_are_written_with_a_comma() -> None:
    options = resolve_implementation("trellis").options_model()
    assert options is not None
    fields = fields_of(options.model_json_schema())
    (field,) = (field for field in fields if field.name == "structure_interval")
    assert (field.kind, field.default) == ("numbers", None)
    assert 'type="text"' in form_html([field], {})
    found = read_answers(fields, {"structure_interval": "0.5, 1"})
    assert found == {"structure_interval": [0.5, 1.0]}
    options.model_validate(found)
    with pytest.raises(InvalidConfigError, match="commas"):
        read_answers(fields, {"structure_interval": "half"})


def test_every_option_of_every_model_has_a_field() -> None:
    for name in BUILT_IN_IMPLEMENTATIONS:
        options = resolve_implementation(name).options_model()
        assert options is not None
        missing = options.model_fields.keys() - {
            f.name for f in fields_of(options.model_json_schema())
        }
        assert missing == set(), name


def test_the_panel_leaves_out_what_concerns_only_words() -> None:
    fields = fields_of(SCHEMA)
    assert "negative_prompt" in panel_html(fields, "fast", for_image=False)
    panel = panel_html(fields, "splats", for_image=True)
    assert "negative_prompt" not in panel
    assert 'value="balanced" data-choice="preset" checked' in panel
    assert "no options" in panel_html([], "", for_image=False)
