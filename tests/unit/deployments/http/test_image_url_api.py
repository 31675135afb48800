from __future__ import annotations

from typing import Any

import pytest

from deployments.args import AppArgs
from deployments.http.fetching import ImageFetcher
from dream_cad.exceptions import DownloadError, PayloadTooLargeError
from tests.unit.deployments.http.conftest import Stand, png
from tests.unit.deployments.http.test_jobs_api import problem

URL = "https://img.example.com/x.png"


@pytest.fixture
def args() -> AppArgs:
    fetch = {"allowed_hosts": ["img.example.com"]}
    return AppArgs.model_validate({"models": [{"name": "echo"}], "fetch": fetch})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | Exception]:
    pages: dict[str, bytes | Exception] = {}

    async def get(_: ImageFetcher, url: str) -> bytes:
        found = pages[url]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(ImageFetcher, "_get", get)
    return pages


async def post(stand: Stand, **fields: Any) -> Any:
    return await stand.client.post("/v1/jobs", json=fields)


async def test_a_fetched_picture_is_stored_as_if_uploaded(stand: Stand, site: Any) -> None:
    site[URL] = png()
    answer = await post(stand, image_url=URL)
    assert answer.status_code == 202
    job = stand.queue.get_job(answer.json()["id"])
    assert job is not None
    assert job.prompt == ""
    assert stand.artifacts.read(str(job.input_uri), "input") == site[URL]
    uploaded = await stand.client.post("/v1/jobs", files={"image": ("x.png", site[URL])})
    other = stand.queue.get_job(uploaded.json()["id"])
    assert other is not None
    assert other.cache_key == job.cache_key


@pytest.mark.parametrize(
    ("page", "status"), [(b"no picture", 415), (DownloadError("did not answer"), 502)]
)
async def test_a_fetch_that_fails(stand: Stand, site: Any, page: Any, status: int) -> None:
    site[URL] = page
    problem(await post(stand, image_url=URL), status)


async def test_one_input_is_enough(stand: Stand, site: Any) -> None:
    assert "one of" in problem(await post(stand, image_url=URL, prompt="x"), 422)["detail"]
    assert site == {}


async def test_a_batch_fetches_its_pictures(stand: Stand, site: Any) -> None:
    site[URL] = png()
    lines = f"prompt,image_url\na chair,\n,{URL}\n,{URL}\n"
    answer = await stand.client.post(
        "/v1/batches", content=lines, headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 202, answer.text
    items = await stand.client.get(answer.json()["links"]["items"])
    jobs = [stand.queue.get_job(item["job"]["id"]) for item in items.json()["items"]]
    assert [job is not None and job.prompt for job in jobs] == ["a chair", "", ""]
    stored = [stand.artifacts.read(str(job.input_uri), "input") for job in jobs[1:] if job]
    assert stored == [site[URL]] * 2


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"image_url": "https://img.example.com/gone.png"}, 502),
        ({"image_url": "https://img.example.com/text"}, 422),
        ({"image_url": URL, "prompt": "a chair"}, 422),
    ],
)
async def test_a_picture_that_cannot_be_had_refuses_the_batch(
    stand: Stand, site: Any, item: dict[str, str], status: int
) -> None:
    site |= {
        URL: png(),
        "https://img.example.com/gone.png": DownloadError("did not answer"),
        "https://img.example.com/text": b"no picture",
    }
    items = [{"prompt": "a chair"}, {"image_url": URL}, item]
    problem(await stand.client.post("/v1/batches", json={"items": items}), status)
    assert stand.queue.list_jobs().jobs == []


async def test_the_pictures_of_a_batch_are_bounded_together(site: Any, args: AppArgs) -> None:
    urls = [f"https://img.example.com/{n}" for n in range(5)]
    site |= dict.fromkeys(urls, bytes(1000))
    fetcher = ImageFetcher(args.fetch)
    assert len(await fetcher.fetch_all(urls, 5000)) == 5
    with pytest.raises(PayloadTooLargeError, match="together"):
        await fetcher.fetch_all(urls, 4999)
