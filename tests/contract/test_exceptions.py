from __future__ import annotations

import copy
import json
import pickle

import pytest

import dream_cad.client  # noqa: F401 - defines an error of its own
from dream_cad.exceptions import DreamCadError


def _family(base: type[DreamCadError]) -> list[type[DreamCadError]]:
    """The class and all that derive from it, except those that tests define."""
    found = [base, *(one for child in base.__subclasses__() for one in _family(child))]
    return [one for one in found if not one.__module__.startswith("tests.")]


ERRORS = _family(DreamCadError)

every_error = pytest.mark.parametrize("error_class", ERRORS, ids=lambda one: one.__name__)


def make(error_class: type[DreamCadError]) -> DreamCadError:
    return error_class("It broke.", hint="Mend it.", details={"allowed": ["a"], "size": 3})


def test_the_documented_errors_are_there() -> None:
    documented = {
        "ModelNotFoundError": 404,
        "InsufficientVRAMError": 503,
        "GenerationError": 500,
        "InvalidConfigError": 422,
        "FileFormatError": 415,
    }
    found = {one.__name__: one.http_status for one in ERRORS}
    assert {name: found[name] for name in documented} == documented


def test_codes_are_unique() -> None:
    codes = [one.code for one in ERRORS]
    assert len(codes) == len(set(codes))


@every_error
def test_class_facts(error_class: type[DreamCadError]) -> None:
    assert error_class.code == error_class.code.lower()
    assert error_class.code.replace("-", "").isalnum()
    assert "code" in vars(error_class), "inherits the code of another class"
    assert "title" in vars(error_class)
    assert 400 <= error_class.http_status < 600
    assert error_class.__doc__


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_every_field(error_class: type[DreamCadError], protocol: int) -> None:
    error = make(error_class)
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
    assert type(again) is error_class
    assert (again.message, again.hint) == ("It broke.", "Mend it.")
    assert again.details == {"allowed": ["a"], "size": 3}
    assert str(again) == str(error) == "It broke. Mend it."


@every_error
def test_copying_keeps_every_field(error_class: type[DreamCadError]) -> None:
    again = copy.deepcopy(make(error_class))
    assert (again.message, again.hint, again.details["size"]) == ("It broke.", "Mend it.", 3)


@every_error
def test_a_message_alone_is_enough(error_class: type[DreamCadError]) -> None:
    error = error_class("It broke.")
    assert (str(error), error.hint, error.details) == ("It broke.", None, {})
    assert json.dumps(error.details) == "{}"


def test_details_are_the_errors_own() -> None:
    details = {"a": 1}
    error = DreamCadError("x", details=details)
    details["a"] = 2
    assert error.details == {"a": 1}
