from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.prompts import apply_template, check_prompt, find_unknown_words
from dream_cad.settings import reload_settings


@pytest.mark.parametrize(
    ("given_prompt", "normalised"),
    [
        ("a red chair", "a red chair"),
        ("  a \n red\tchair ", "a red chair"),
        ("ein grüner Stuhl", "ein grüner Stuhl"),
        ("cafe\u0301", "café"),
        ("красный стул 椅子 🪑", "красный стул 椅子 🪑"),
    ],
)
def test_whitespace_and_unicode_are_normalised(given_prompt: str, normalised: str) -> None:
    assert check_prompt(given_prompt) == normalised


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("\u200b\u200b", "empty"),
        ("a\x00chair", r"U\+0000 at position 1"),
        ("chair\x1b[31m", r"U\+001B"),
        ("chair\x85", r"U\+0085"),
        ("chair\ud800", "surrogate at position 5"),
        ("x" * 100_000, "100000 characters; at most 2000"),
        (7, "int; text is needed"),
        (None, "NoneType; text is needed"),
        (b"chair", "bytes; text is needed"),
    ],
)
def test_bad_prompts_are_refused_with_the_reason(prompt: object, reason: str) -> None:
    with pytest.raises(InvalidConfigError, match=reason):
        check_prompt(prompt)


def test_length_limit_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_CAD_MAX_PROMPT_CHARS", "5")
    reload_settings()
    try:
        assert check_prompt("chair") == "chair"
        with pytest.raises(InvalidConfigError, match="at most 5"):
            check_prompt("chairs")
    finally:
        monkeypatch.undo()
        reload_settings()


@given(st.text(max_size=60))
def test_any_text_is_refused_or_becomes_stable_and_encodable(text: str) -> None:
    try:
        normalised = check_prompt(text)
    except InvalidConfigError:
        return
    assert check_prompt(normalised) == normalised
    assert normalised.encode("utf-8").decode("utf-8") == normalised
    assert normalised == normalised.strip()
    assert normalised


def test_template_keeps_braces_of_the_prompt() -> None:
    assert apply_template("{prompt}, on grey", "a {0} chair") == "a {0} chair, on grey"


@pytest.mark.parametrize("template", ["no place", "{prompt} {prompt}", "{prompts}", ""])
def test_template_without_one_place_is_refused(template: str) -> None:
    with pytest.raises(InvalidConfigError, match="exactly once"):
        apply_template(template, "a chair")


def test_unknown_words_are_listed_once_in_order_without_case_or_punctuation() -> None:
    unknown = find_unknown_words(
        "A Baroque, RED chair (baroque) with gilding!", ["a", "Red", "chair"]
    )
    assert unknown == ["baroque", "with", "gilding"]
