"""Bodies as clients send them, well-formed or not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deployments.http.body import decode_image, parse_json, read_submission
from dream_cad.exceptions import InvalidConfigError

PNG = b"\x89PNG not really"


def request_of(content: bytes, headers: Mapping[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    # Starlette answers 400 for a malformed form only within an application.
    scope = {"type": "http", "method": "POST", "headers": raw, "app": None}
    return Request(scope, receive)


def form(**parts: Any) -> Request:
    """A multipart request as httpx builds it."""
    files = [
        (name, value if isinstance(value, tuple) else (None, value))
        for name, values in parts.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    built = httpx.Request("POST", "http://x/", files=files)
    return request_of(built.read(), built.headers)


def json_request(body: Any, **headers: str) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request_of(content, {"Content-Type": "application/json; charset=utf-8", **headers})


async def test_json_with_a_picture() -> None:
    coded = "data:image/png;base64," + base64.b64encode(PNG).decode()
    submission = await read_submission(json_request({"image": coded, "tags": ["a"]}))
    assert submission.image == PNG
    assert submission.request.tags == ["a"]


async def test_a_form_says_what_json_would() -> None:
    submission = await read_submission(
        form(
            image=("x.png", PNG),
            options='{"steps": 4}',
            require='{"max_faces": 100}',
            models='["a", "b"]',
            tags="x,,y",
            priority="high",
        )
    )
    request = submission.request
    assert submission.image == PNG
    assert (request.options, request.models) == ({"steps": 4}, ["a", "b"])
    assert request.require.max_faces == 100
    assert (request.tags, request.priority) == (["x", "y"], "high")


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"prompt": ["a", "b"]}, "'prompt' more than once"),
        ({"picture": ("x.png", PNG)}, "call it 'image'"),
        ({"prompt": "a", "colour": "red"}, "colour"),
        ({"prompt": "a", "options": '["steps"]'}, "options"),
    ],
)
async def test_forms_that_are_refused(parts: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidConfigError, match=word):
        await read_submission(form(**parts))


async def test_a_second_picture_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="'image' more than once"):
        await read_submission(form(image=[("x.png", PNG), ("y.png", PNG)]))


OTHER = b"\x89PNG another"
IN_ORDER, BY_VIEW = {"0": PNG, "1": OTHER}, {"front": PNG, "back": OTHER}


@pytest.mark.parametrize("views", [IN_ORDER, BY_VIEW])
async def test_several_pictures_in_json_and_in_forms(views: dict[str, bytes]) -> None:
    coded = {name: base64.b64encode(picture).decode() for name, picture in views.items()}
    body = {"images": list(coded.values()) if views is IN_ORDER else coded}
    by_json = await read_submission(json_request(body))
    assert (by_json.image, dict(by_json.views)) == (None, views)
    parts: dict[str, Any] = {f"images.{name}": ("x", data) for name, data in views.items()}
    if views is IN_ORDER:
        parts = {"images": [("x.png", data) for data in views.values()]}
    by_form = await read_submission(form(**parts, priority="low"))
    assert (by_form.image, dict(by_form.views)) == (None, views)
    assert list(by_form.views) == list(views)


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"images.../up": ("x", PNG)}, "not the name of a view"),
        ({"images.": ("x", PNG)}, "not the name of a view"),
        ({"images.front": [("x", PNG), ("y", PNG)]}, "more than once"),
        ({"images.front": ("x", PNG), "images": ("y", PNG)}, "not two of them"),
        ({"image": ("x", PNG), "images": ("y", PNG)}, "not two of them"),
    ],
)
async def test_forms_of_several_pictures_that_are_refused(parts: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidConfigError, match=word):
        await read_submission(form(**parts))


@pytest.mark.parametrize(
    ("images", "word"),
    [
        ([], "images"),
        (["A" * 8] * 17, "images"),
        ({"front": "no base64!"}, "images.front"),
        ({"Front side": "AAAA"}, "not the name of a view"),
        ("AAAA", "images"),
    ],
)
async def test_several_pictures_in_json_that_are_refused(images: Any, word: str) -> None:
    with pytest.raises(InvalidConfigError, match=word):
        await read_submission(json_request({"images": images}))


async def test_too_many_files_are_refused_before_they_are_kept() -> None:
    with pytest.raises(HTTPException) as caught:
        await read_submission(form(images=[("x.png", PNG)] * 18))
    assert caught.value.status_code == 400
    with pytest.raises(InvalidConfigError, match="at most 16"):
        await read_submission(form(images=[("x.png", PNG)] * 17))


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"x", {"Content-Type": "text/plain"}, 415),
        (b"x", {}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        (b"[1]", {"Content-Type": "application/json"}, 400),
        (b'{"prompt": }', {"Content-Type": "application/json"}, 400),
        (b"\xff\xfe", {"Content-Type": "application/json"}, 400),
    ],
)
async def test_bodies_that_cannot_be_read(
    content: bytes, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(HTTPException) as caught:
        await read_submission(request_of(content, headers))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[NaN]", "NaN is not a JSON number"),
        ("-Infinity", "-Infinity"),
        ("1e999", "too large"),
        ("[" * 100_000, "cannot be read"),
        ('{"a":\n1,}', "line 2, column"),
    ],
)
def test_json_is_strict(text: str, word: str) -> None:
    with pytest.raises(HTTPException) as caught:
        parse_json(text.encode())
    assert word in caught.value.detail
    assert caught.value.status_code == 400


def test_large_integers_are_kept() -> None:
    assert parse_json(b"[12345678901234567890, 1.5]") == [12345678901234567890, 1.5]


@pytest.mark.parametrize("text", ["not base64!", "YWJj\nYWJj", "data:image/png;base64,%%%", "YWJ"])
def test_pictures_that_are_not_base64(text: str) -> None:
    with pytest.raises(InvalidConfigError, match="not base64"):
        decode_image(text)
