"""Prompts of the text-to-image stage: checking, object-shot template, unknown words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dream_cad.exceptions import InvalidConfigError
from dream_cad.prompts import check_prompt

__all__ = ["apply_template", "check_prompt", "find_unknown_words", "split_words"]

_WORD = re.compile(r"\w+")
_PLACEHOLDER = "{prompt}"


def apply_template(template: str, prompt: str) -> str:
    """Put the prompt into an object-shot template such as ``"{prompt}, plain background"``.

    Raises:
        InvalidConfigError: the template does not hold ``{prompt}`` exactly once.
    """
    if template.count(_PLACEHOLDER) != 1:
        raise InvalidConfigError(
            f"The prompt template {template!r} must hold {_PLACEHOLDER} exactly once.",
            hint="Correct DREAM_CAD_PROMPT_TEMPLATE or the checkpoint's dream_cad.json.",
        )
    return template.replace(_PLACEHOLDER, prompt)  # not str.format: prompts may hold braces


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def find_unknown_words(prompt: str, vocabulary: Iterable[str]) -> list[str]:
    """Return the words of ``prompt`` outside ``vocabulary``, each once, in order of appearance."""
    known = {word.lower() for word in vocabulary}
    return [word for word in dict.fromkeys(split_words(prompt)) if word not in known]
