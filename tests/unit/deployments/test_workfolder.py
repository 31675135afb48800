"""Long jobs keep their state between attempts, and show how far they are."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from deployments.database_thread import DatabaseThread
from deployments.messages import PREVIEW_NOTE, Done, Event, Failed, Progress, StageRequest
from deployments.metrics import RouterMetrics
from deployments.model import ModelReplica
from deployments.sweeper import Sweeper
from deployments.workfolder import checkpoint_option, job_folder, latest_preview, work_store
from dream_cad.artifacts import ArtifactStore
from dream_cad.models.base import GenerationResult
from dream_cad.queue import GenerationJob, JobQueue
from tests.cluster.echo_model import EchoModel
from tests.cluster.tiny_sds_model import OPTIONS, TinySDS
from tests.tiny_mvdream import PROMPT, write_checkpoint
from tests.unit.test_artifacts import ObjectStore

REQUEST = StageRequest("job-1", PROMPT, OPTIONS)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny steps on many threads take longer, and other tests run beside these."""
    monkeypatch.setattr("deployments.model.use_all_cores", lambda: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("mvdream"))


def replica(weights: Path, folder: Path) -> ModelReplica:
    options = {"folder": str(weights), "log": str(folder / "log")}
    module = "tests.cluster.tiny_sds_model"
    return ModelReplica("tiny-sds", options, [module], str(folder / "artifacts"), 0.0)


async def work(made: ModelReplica, request: StageRequest, stop_at: str = "nowhere") -> list[Event]:
    """Follow a job; cancel it at the first stage that holds a text."""
    events: list[Event] = []
    async for event in made.generate(request):
        events.append(event)
        if isinstance(event, Progress) and event.stage.endswith(stop_at):
            made.cancel(request.job_id)
    return events


def begun_at(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "log").read_text().splitlines()]


async def test_the_next_attempt_goes_on_where_the_last_one_was(
    weights: Path, tmp_path: Path
) -> None:
    first = await work(replica(weights, tmp_path), REQUEST, stop_at=PREVIEW_NOTE)
    assert isinstance(first[-1], Failed)
    assert first[-1].is_cancelled
    store = work_store(ArtifactStore(tmp_path / "artifacts"))
    picture = latest_preview(store, "job-1")
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    last = (await work(replica(weights, tmp_path), REQUEST))[-1]
    assert isinstance(last, Done)
    start, resumed = begun_at(tmp_path)
    assert start == 0
    assert 4 <= resumed < 12
    result = last.product
    assert isinstance(result, GenerationResult)
    assert result.metadata["sds_steps"] == 12
    assert str(tmp_path) not in str(result.metadata["options"])


async def test_a_damaged_checkpoint_begins_anew(weights: Path, tmp_path: Path) -> None:
    await work(replica(weights, tmp_path), REQUEST, stop_at=PREVIEW_NOTE)
    (checkpoint,) = (tmp_path / "artifacts" / ".work" / "job-1").glob("*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert isinstance((await work(replica(weights, tmp_path), REQUEST))[-1], Done)
    assert begun_at(tmp_path) == [0, 0]


def test_other_options_have_other_files(tmp_path: Path) -> None:
    store = work_store(ArtifactStore(tmp_path))
    names = set()
    for request in (
        REQUEST,
        StageRequest("job-1", PROMPT, OPTIONS | {"seed": 2}),
        StageRequest("job-1", "another", OPTIONS),
    ):
        with job_folder(store, request) as folder:
            names.add(folder.checkpoint)
    assert len(names) == 3
    assert {name.parent for name in names} == {tmp_path / ".work" / "job-1"}


def test_an_object_store_gets_copies_and_gives_them_back() -> None:
    store = work_store(ObjectStore())
    stages: list[str] = []
    with job_folder(store, REQUEST) as folder:
        tell = folder.watched(lambda _, stage: stages.append(stage))
        tell(0.0, "a")
        folder.checkpoint.write_bytes(b"state 1")
        folder.checkpoint.with_suffix(".png").write_bytes(b"picture")
        tell(0.5, "b")
        assert store.read("job-1", folder.checkpoint.name) == b"state 1"
        folder.checkpoint.write_bytes(b"state 2 at the end")
    assert not folder.checkpoint.exists()
    assert stages == ["a", f"b{PREVIEW_NOTE}"]
    assert latest_preview(store, "job-1") == b"picture"
    with job_folder(store, REQUEST) as again:
        assert again.checkpoint.read_bytes() == b"state 2 at the end"
        assert again.discard()
        assert not again.discard()
    assert store.keys() == ["job-1"]


def test_folders_are_no_results(tmp_path: Path) -> None:
    artifacts = ArtifactStore(tmp_path)
    artifacts.publish("job-1-1", {"mesh.glb": b"x"})
    store = work_store(artifacts)
    with job_folder(store, REQUEST):
        pass
    assert artifacts.keys() == ["job-1-1"]
    assert store.keys() == ["job-1"]
    assert latest_preview(store, "job-1") is None
    store.delete("job-1")
    assert store.keys() == []


def test_models_say_whether_they_keep_anything(weights: Path, tmp_path: Path) -> None:
    assert checkpoint_option(EchoModel()) is None
    assert checkpoint_option(TinySDS(str(weights), str(tmp_path / "log"))) == "sds_checkpoint"


def test_a_preview_can_be_opened_at_any_moment(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "field.ckpt"
    sizes = set()

    def look(fraction: float, stage: str) -> None:
        if path.with_suffix(".png").is_file():
            with Image.open(path.with_suffix(".png")) as picture:
                sizes.add(picture.size)

    model = TinySDS(str(weights), str(tmp_path / "log"))
    model.generate_from_text(PROMPT, progress=look, sds_checkpoint=str(path), **OPTIONS)
    assert sizes == {(32, 8)}


async def test_folders_end_with_their_jobs(tmp_path: Path) -> None:
    thread = DatabaseThread(lambda: JobQueue(f"sqlite:///{tmp_path}/jobs.sqlite3"))
    await thread.open()
    jobs = [GenerationJob(prompt="x", model_name="echo") for _ in range(2)]
    waiting, cancelled = [thread.queue.add_job(job) for job in jobs]
    thread.queue.cancel(cancelled)
    artifacts = ArtifactStore(tmp_path / "artifacts")
    store = work_store(artifacts)
    for job_id in (waiting, cancelled, "nobody"):
        store.publish(job_id, {"a.ckpt": b"state"})
    sweeper = Sweeper(
        thread,
        {},
        artifacts,
        cast("RouterMetrics", None),
        lease_s=9,
        keep_records_s=9e9,
        on_change=lambda job_id: None,
    )
    await sweeper.clean_once()
    assert store.keys() == [waiting]
    await thread(thread.queue.close)
