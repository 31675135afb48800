"""From records to rows that are worth a GPU: every rule is checked before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.http.checks import check_options, takes_option
from deployments.plan import ModelPlan
from dream_cad.exceptions import DreamCadError, InvalidConfigError, ModelUnavailableError
from dream_cad.prompts import check_prompt
from jobs.batch.reading import COLUMNS, Record
from jobs.batch.storage import check_readable

_ID_DIGITS = 32
_MAX_SEED = 2**31 - 1
PlanOf = Callable[[str], ModelPlan]


@dataclass(frozen=True)
class Row:
    """One mesh to make.

    Attributes:
        id: hash of what the row asks for: the same row has the same id in every file.
        index: its number in the input.
        model: the registered name.
        prompt: what to make, or None for a picture.
        image: path or URI of a picture, or None for a prompt.
        seed: of the row, or derived from its id; None for models that take none.
        options: generation options, checked.
    """

    id: str
    index: int
    model: str
    prompt: str | None
    image: str | None
    seed: int | None
    options: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class BadRow:
    """A record that cannot become a row, and why."""

    id: str
    index: int
    model: str | None
    prompt: str | None
    image: str | None
    error: str


class RowChecker:
    """Turns records into rows.

    Args:
        plan_of: says what a model runs on; raises ModelNotFoundError.
        default_model: of rows that name none.
        folder: where relative picture paths start.
        defaults: options of rows that do not set them.
        look_at: refuses a picture that cannot be read, as far as that can be known cheaply.
    """

    def __init__(
        self,
        plan_of: PlanOf,
        default_model: str,
        folder: str,
        defaults: Mapping[str, Any] | None = None,
        look_at: Callable[[str], None] = check_readable,
    ) -> None:
        self._plan_of = plan_of
        self._default_model = default_model
        self._folder = folder
        self._defaults = dict(defaults or {})
        self._look_at = look_at

    def check(self, record: Record) -> Row | BadRow:
        """Return the row, or what is wrong with it."""
        try:
            if record.problem is not None:
                raise InvalidConfigError(f"{record.problem}.")
            return self._row(record.index, record.values)
        except DreamCadError as error:
            return _bad_row(record, str(error))

    def _row(self, index: int, values: Mapping[str, Any]) -> Row:
        prompt, image = values.get("prompt"), _text(values, "image")
        if (prompt is None) == (image is None):
            raise InvalidConfigError("A row needs a prompt or an image, and not both.")
        if prompt is not None:
            prompt = check_prompt(prompt)
        model = _text(values, "model") or self._default_model
        plan = self._deployed(model)
        given = _seed(values.get("seed"))
        options = self._defaults | _options(values.get("options"))
        if given is not None and "seed" in options:
            raise InvalidConfigError("The seed is given twice: as a column and as an option.")
        seed = options.pop("seed", given)
        row_id = content_id([prompt, image, model, seed, options])
        takes_seed = takes_option(plan, "seed")
        if seed is None and takes_seed:
            seed = int(row_id[:8], 16) & _MAX_SEED
        with_seed = options if seed is None else {**options, "seed": seed}
        checked = check_options(plan, with_seed, is_text=prompt is not None)
        seed = checked.pop("seed", None)
        located = self._located(image)
        if located is not None:
            self._look_at(located)
        return Row(row_id, index, model, prompt, located, seed, checked)

    def _deployed(self, model: str) -> ModelPlan:
        plan = self._plan_of(model)
        if not plan.is_deployed:
            raise ModelUnavailableError(f"Model {model!r} cannot run here: {plan.reason}.")
        return plan

    def _located(self, image: str | None) -> str | None:
        if image is None or image.startswith("/") or "://" in image:
            return image
        return f"{self._folder}/{image}"


def content_id(facts: Any) -> str:
    """Return 32 hexadecimal digits that stand for JSON data."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def _bad_row(record: Record, error: str) -> BadRow:
    shown = {name: _printable(record.values.get(name)) for name in ("model", "prompt", "image")}
    known = {name: record.values.get(name) for name in COLUMNS}
    # Rows that cannot be read at all have only their place to tell them apart.
    facts = ["bad", known, record.index if not any(known.values()) else None]
    return BadRow(content_id(facts), record.index, error=error, **shown)


def _printable(value: Any) -> str | None:
    return None if value is None else str(value)[:1000].encode(errors="replace").decode()


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidConfigError(f"{name} is a {type(value).__name__}; text is needed.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidConfigError(f"{name} is not valid Unicode.")
    return value


def _seed(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise InvalidConfigError(f"seed is {value[:40]!r}; a whole number is needed.") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidConfigError(f"seed is {value!r:.40}; a whole number is needed.")
    return value


def _options(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidConfigError(f"options is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidConfigError(f"options is a {type(value).__name__}; an object is needed.")
    return {name: item for name, item in value.items() if item is not None}
