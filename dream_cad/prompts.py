"""What a prompt must look like, in one place for library, command line and HTTP."""

from __future__ import annotations

import unicodedata

from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import get_settings

_LINE_BREAKS = "\t\n\r\v\f"


def check_prompt(prompt: object) -> str:
    """Return the prompt with its whitespace normalised, ready for a text encoder.

    Tabs and line breaks count as spaces; other control characters are refused, because they are
    a sign of damaged input and no tokenizer has a meaning for them.

    Args:
        prompt: text of at most ``DREAM_CAD_MAX_PROMPT_CHARS`` characters.

    Returns:
        The text in Unicode NFC, words separated by single spaces.

    Raises:
        InvalidConfigError: not text, empty, too long, control characters, or lone surrogates.
    """
    if not isinstance(prompt, str):
        raise InvalidConfigError(f"The prompt is a {type(prompt).__name__}; text is needed.")
    limit = get_settings().max_prompt_chars
    if len(prompt) > limit:  # before any work that grows with the length
        raise InvalidConfigError(
            f"The prompt has {len(prompt)} characters; at most {limit} are accepted.",
            hint="Shorten it; a dozen words name an object well.",
            details={"length": len(prompt), "limit": limit},
        )
    _refuse_bad_characters(prompt)
    words = unicodedata.normalize("NFC", prompt).split()
    if not any(character.isprintable() for word in words for character in word):
        raise InvalidConfigError(
            "The prompt is empty.", hint='Name an object, for example "a red wooden chair".'
        )
    return " ".join(words)


def _refuse_bad_characters(prompt: str) -> None:
    if prompt.isprintable():  # nearly all are, and batches hold thousands
        return
    for position, character in enumerate(prompt):
        category = unicodedata.category(character)
        if category == "Cs":
            raise InvalidConfigError(
                f"The prompt is not valid Unicode: a lone surrogate at position {position}.",
                details={"position": position},
            )
        if category == "Cc" and character not in _LINE_BREAKS:
            raise InvalidConfigError(
                f"The prompt holds the control character U+{ord(character):04X} "
                f"at position {position}.",
                hint="Remove it.",
                details={"position": position},
            )
