"""The tabs' answers to their events, on the real API without a socket or a browser."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.http.in_process import InProcessTransport
from tests.unit.deployments.http.conftest import Stand, png

gr = pytest.importorskip("gradio", reason="the extra ui is not installed")

from dream_cad.ui.batch_tab import BatchTab  # noqa: E402  (gradio first)
from dream_cad.ui.cluster_tab import ClusterTab  # noqa: E402
from dream_cad.ui.compare_tab import CompareTab  # noqa: E402
from dream_cad.ui.create_tab import PICTURE, SEVERAL, WORDS, CreateTab  # noqa: E402
from dream_cad.ui.desk import Desk  # noqa: E402
from dream_cad.ui.history_tab import HistoryTab  # noqa: E402
from dream_cad.ui.votes import VOTES_FILE, read_votes  # noqa: E402

ECHO = json.dumps({"model": "echo", "preset": "balanced", "options": {"seed": "7"}})


@pytest.fixture
def desk(stand: Stand) -> Desk:
    return Desk("http://127.0.0.1", transport=InProcessTransport(stand.api))


def event(**data: Any) -> Any:
    return SimpleNamespace(_data=data)


def create_tab(desk: Desk) -> CreateTab:
    with gr.Blocks(analytics_enabled=False) as blocks:
        return CreateTab(desk, blocks)


async def test_the_page_begins_with_cards_and_options(desk: Desk) -> None:
    tab = create_tab(desk)
    cards, panel = await tab.load(None)
    assert 'value="echo" data-choice="model" checked' in cards
    assert "not here" in cards  # why trellis cannot run
    assert 'data-option="seed"' in panel
    _, image, images, _, _ = await tab.switch(PICTURE, None)
    assert (image["visible"], images["visible"]) == (True, False)
    *_, images, cards, _ = await tab.switch(SEVERAL, None)
    assert images["visible"] is True
    assert "No model that is served here" in cards
    chosen = await tab.choose(WORDS, event(model="echo", preset="fast", open=True), None)
    assert '<details class="dc-options" open>' in chosen


async def test_a_prompt_is_followed_to_its_mesh_and_files(desk: Desk, stand: Stand) -> None:
    tab = create_tab(desk)
    steps = tab.run(WORDS, " a chair ", None, None, "high", ECHO, None)
    assert "Sending" in (await anext(steps))[1]
    queued = await anext(steps)
    assert "Waiting in line" in queued[1]
    (job,) = stand.queue.list_jobs().jobs
    assert (job.prompt, job.config, job.priority.name) == ("a chair", {"seed": 7}, "HIGH")
    assert job.tags == ["ui"]
    stand.complete()
    last = [step async for step in steps][-1]
    assert last[4] == job.id
    stage = last[5]
    assert 'data-glb="gradio_api/file=' in stage
    path = Path(stage.split("file=")[1].split('"')[0])
    assert path.read_bytes().startswith(b"glTF")
    assert path.is_relative_to(desk.shelf.folder)
    link = await tab._view.download(job.id, event(format="stl"), None)
    assert "data-follow" in link
    assert "a-chair-" in link
    assert "Closed surface" in await tab._view.measure(job.id, None)


async def test_another_seed_and_a_picture(desk: Desk, stand: Stand, tmp_path: Path) -> None:
    tab = create_tab(desk)
    picture = tmp_path / "x.png"
    picture.write_bytes(png())
    form = json.dumps({"model": "echo", "options": {"seed": "7"}, "new_seed": True})
    steps = tab.run(PICTURE, "ignored", str(picture), None, "normal", form, None)
    await anext(steps)
    await anext(steps)
    (job,) = stand.queue.list_jobs().jobs
    assert job.prompt == ""
    assert job.config["seed"] != 7
    cancelled = await tab.cancel(job.id, None)
    assert cancelled["interactive"] is False
    assert "Cancelled" in [step async for step in steps][-2][1]


@pytest.mark.parametrize(
    ("kind", "prompt", "form", "said"),
    [
        (WORDS, "  ", ECHO, "There is no description."),
        (PICTURE, "a chair", ECHO, "There is no picture."),
        (SEVERAL, "a chair", ECHO, "There are no pictures."),
        (WORDS, "a chair", '{"model": "echo", "options": {"seed": "x"}}', "must be a whole number"),
        (WORDS, "a chair", '{"model": "echo", "options": {"brightness": "3"}}', "brightness"),
        (WORDS, "a chair", '{"model": "trellis"}', "trellis"),
    ],
)
async def test_what_is_wrong_is_said(
    desk: Desk, kind: str, prompt: str, form: str, said: str
) -> None:
    steps = [s async for s in create_tab(desk).run(kind, prompt, None, None, "normal", form, None)]
    assert 'role="alert"' in steps[-1][1]
    assert said in steps[-1][1]
    assert steps[-1][2]["interactive"] is True  # one can try again


async def test_history_finds_jobs_and_opens_them(desk: Desk, stand: Stand) -> None:
    with gr.Blocks(analytics_enabled=False), gr.Tabs(), gr.Tab("History") as own:
        history = HistoryTab(desk, own)
    red = await stand.submit(prompt="a red chair")
    await stand.submit(prompt="a blue <table>")
    listed = await history.search("RED chair", "any", None)
    assert red in listed
    assert "blue" not in listed
    assert "a blue &lt;table&gt;" in await history.search("", "pending", None)
    assert "No such job" in await history.search("", "failed", None)
    waiting = await history.open(event(job=red), None)
    assert "Waiting in line" in waiting[0]
    stand.complete()
    opened = await history.open(event(job=red), None)
    assert "data-glb" in opened[2]
    assert "There is no job" in (await history.open(event(job="none"), None))[0]


async def test_a_blind_vote_is_stored_and_then_told(
    desk: Desk, stand: Stand, tmp_path: Path
) -> None:
    votes = tmp_path / "new" / VOTES_FILE
    with gr.Blocks(analytics_enabled=False), gr.Tabs(), gr.Tab("Compare") as own:
        compare = CompareTab(desk, own, votes)
    ids = {await stand.submit(prompt="one"), await stand.submit(prompt="two", model="echo2")}
    stand.complete()
    stand.complete()
    choices, _ = await compare.offer(None)
    one, other = (job_id for _, job_id in choices["choices"])
    shown, left, right, _, _ = await compare.show(one, other, None)
    assert set(shown) == ids
    assert "echo" not in left + right
    buttons, told = await compare.vote("a", shown, None)
    assert buttons["visible"] is False
    assert "Left: " in told
    (vote,) = read_votes(votes)
    assert (vote.a.job, vote.b.job, vote.choice) == (*shown, "a")
    assert "Choose two different meshes" in (await compare.show(one, one, None))[4]


async def test_a_batch_file_is_queued_watched_and_zipped(
    desk: Desk, stand: Stand, tmp_path: Path
) -> None:
    with gr.Blocks(analytics_enabled=False):
        batch = BatchTab(desk)
    assert "There is no file" in (await anext(batch.start(None, None)))[1]
    assert "no batch yet" in await batch.archive("", None)
    file = tmp_path / "shop.csv"
    file.write_text("prompt\na chair\na table\n")
    steps = batch.start(str(file), None)
    batch_id, html = await anext(steps)
    assert "0 of 2" in html
    stand.complete()
    stand.fail()
    states = [state async for _, state in steps]
    assert "1 completed, 1 failed" in states[-1]
    assert "round" in states[-1]
    link = await batch.archive(batch_id, None)
    assert "shop.zip" in link
    again = batch.retry(batch_id, None)
    assert "1 of 2" in (await anext(again))[1]
    assert "cancelled" in await batch.cancel(batch_id, None)
    assert "1 completed, 1 cancelled" in [state async for _, state in again][-1]


async def test_the_cluster_shows_what_waits(desk: Desk, stand: Stand) -> None:
    with gr.Blocks(analytics_enabled=False), gr.Tabs(), gr.Tab("Cluster") as own:
        cluster = ClusterTab(desk, own, [])
    html, depths = await cluster.show([3], None)
    assert depths == [3, 0]
    assert "Jobs waiting" in html
