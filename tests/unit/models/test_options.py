from __future__ import annotations

import math
from typing import Any

import pytest

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.base import GenerationResult, Model3D
from dream_cad.models.options import validate_options
from tests.unit.cli.stub_model import Tetrahedron


class Open(Model3D):
    def generate_from_text(self, prompt: str, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError

    def generate_from_image(self, image: Any, **kwargs: Any) -> GenerationResult:
        raise NotImplementedError


def test_text_is_converted_and_defaults_are_not_added() -> None:
    found = validate_options(Tetrahedron, {"resolution": "16", "scale": "0.5"})
    assert found == {"resolution": 16, "scale": 0.5}
    assert validate_options(Tetrahedron, {"seed": None}) == {"seed": None}


def test_a_model_that_describes_nothing_takes_anything() -> None:
    options = {"anything": object()}
    found = validate_options(Open, options)
    assert found == options
    assert found is not options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "There is no option 'colour'. Options: seed, resolution"),
        ({"resolution": 7}, "Option 'resolution' is 7: Input should be greater than or equal to 8"),
        ({"resolution": 8.5}, "Option 'resolution' is 8.5"),
        ({"scale": math.nan}, "Option 'scale' is nan: Input should be a finite number"),
        ({"scale": math.inf}, "Option 'scale' is inf"),
        ({"seed": "x" * 500}, "Option 'seed' is 'xxxx"),
    ],
)
def test_what_is_refused_and_how(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        validate_options(Tetrahedron, options)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 300
    assert caught.value.details["option"] == next(iter(options))
    assert "seed" in caught.value.details["allowed"]
