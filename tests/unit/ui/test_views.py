from __future__ import annotations

import pytest

from dream_cad.client import Model
from dream_cad.exceptions import InvalidConfigError
from dream_cad.ui.views import read_views

NAMED = Model(name="hunyuan3d-mini", views=("front", "left", "back", "right"))
ANY = Model(name="trellis", views=())


def test_files_are_views_by_their_names() -> None:
    found = read_views(NAMED, ["/tmp/x/Chair_Front.png", "/tmp/x/back.jpg"])
    assert found == {"front": "/tmp/x/Chair_Front.png", "back": "/tmp/x/back.jpg"}


def test_any_files_in_order() -> None:
    assert read_views(ANY, ["/tmp/2.png", "/tmp/1.png"]) == ["/tmp/2.png", "/tmp/1.png"]


@pytest.mark.parametrize(
    ("model", "paths", "word"),
    [
        (NAMED, None, "no pictures"),
        (NAMED, ["/tmp/chair.png"], "chair.png"),
        (NAMED, ["/tmp/front-back.png"], "Which view"),
        (NAMED, ["/tmp/front.png", "/tmp/front 2.png"], "same view"),
        (Model(name="triposr"), ["/tmp/a.png"], "one picture"),
    ],
)
def test_what_is_missing_is_said(model: Model, paths: list[str] | None, word: str) -> None:
    with pytest.raises(InvalidConfigError, match=word):
        read_views(model, paths)
