from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from dream_cad.client import Batch, BatchItem, BatchItemFields, RemoteProblemError
from dream_cad.exceptions import InvalidConfigError, ModelNotFoundError, ServiceUnavailableError
from dream_cad.models.base import Model3D, ModelCapabilities
from dream_cad.models.factory import register_model
from jobs.batch.intake import Work, take_in
from jobs.batch.manifest import COMPLETED, FAILED, Entry, Manifest
from jobs.batch.reading import Record
from jobs.batch.rows import RowChecker
from jobs.batch.service import SENT, Errand, follow_sent, send_work
from jobs.batch.service_plan import ServicePlanner
from jobs.batch.storage import Storage


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int | None = Field(None, ge=0)


ANSWER = {
    "default_model": "own",
    "models": [
        {"name": "own", "state": "ready", "reason": "here"},
        {"name": "away", "state": "not-deployed", "reason": "needs 80 GB"},
    ],
}


@pytest.fixture(autouse=True)
def own_model(clean_registry: None) -> None:
    class Own(Model3D):
        @classmethod
        def options_model(cls) -> type[BaseModel]:
            return Options

        def generate_from_text(self, prompt: str, **kwargs: Any) -> Any:
            raise NotImplementedError

        generate_from_image = generate_from_text  # type: ignore[assignment]

    register_model("own", ModelCapabilities(0.0, 0.0))(Own)


class Desk:
    """A service that knows keys, ends a job each time it is asked, and can be away."""

    def __init__(self) -> None:
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.bodies: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.is_away = False

    def submit_batch(
        self, *, items: list[BatchItemFields], name: str, idempotency_key: str, priority: str
    ) -> Batch:
        body = {"items": items, "name": name, "priority": priority}
        if idempotency_key in self.batches:
            assert self.bodies[idempotency_key] == body
            return Batch(id=idempotency_key)
        wrong = [i for i, item in enumerate(items) if item.get("prompt") == "refused"]
        if wrong:
            errors = [{"field": f"items.{i}", "message": "not that"} for i in wrong]
            raise InvalidConfigError("The batch is not valid.", details={"errors": errors})
        self.bodies[idempotency_key] = body
        self.batches[idempotency_key] = [
            {**item, "id": f"{idempotency_key}-{i}", "status": "pending"}
            for i, item in enumerate(items)
        ]
        return Batch(id=idempotency_key)

    def batch_items(self, batch_id: str) -> Iterator[BatchItem]:
        self.asked += 1
        if self.is_away:
            raise ServiceUnavailableError("away")
        jobs = self.batches[batch_id]
        for job in jobs:
            if job["status"] == "pending":
                is_bad = job.get("prompt") == "fails"
                job["status"] = "failed" if is_bad else "completed"
                job["error"] = {"detail": "no luck"} if is_bad else None
                job["timings"] = {"model_s": 1.0, "finish_s": 0.5}
                break
        for index, job in enumerate(jobs):
            known = {key: job[key] for key in ("id", "status", "error", "timings") if key in job}
            yield BatchItem.model_validate({"index": index, "job": known})

    def read_result(self, job_id: str, format: str) -> bytes:
        return f"{format} of {job_id}".encode()


def take(storage: Storage, *prompts: str) -> Work:
    records = [Record(index, {"prompt": prompt}) for index, prompt in enumerate(prompts)]
    checker = RowChecker(ServicePlanner(ANSWER).plan, "own", ".")
    return take_in(records, checker, storage, max_part_rows=4)


def errand(storage: Storage, **more: Any) -> Errand:
    return Errand(storage, "glb", pause=lambda seconds: None, **more)


def entries(storage: Storage) -> dict[str, Entry]:
    return {str(entry.prompt): entry for entry in Manifest(storage).read()}


def test_rows_become_batches_and_meshes(tmp_path: Path) -> None:
    storage, desk = Storage(str(tmp_path)), Desk()
    work = take(storage, "a", "b", "fails", "c", "refused", "d")
    news = list(send_work(desk, errand(storage, max_items=3), work))
    assert (sum(n.completed for n in news), sum(n.failed for n in news)) == (4, 2)
    rows = entries(storage)
    assert rows["a"].status == COMPLETED
    assert rows["a"].seconds == 1.5
    assert storage.read(str(rows["a"].path)).startswith(b"glb of")
    assert (rows["fails"].status, rows["fails"].error) == (FAILED, "no luck")
    assert rows["refused"].error == "not that"
    assert {body["priority"] for body in desk.bodies.values()} == {"low"}
    assert len(desk.batches) == 2
    assert storage.list_files(SENT) == []


def test_a_run_that_was_killed_follows_what_it_sent(tmp_path: Path) -> None:
    storage, desk = Storage(str(tmp_path)), Desk()
    desk.is_away = True
    with pytest.raises(ServiceUnavailableError):
        list(send_work(desk, errand(storage), take(storage, "a", "b")))
    assert len(storage.list_files(SENT)) == 1
    desk.is_away = False
    assert sum(n.completed for n in follow_sent(desk, errand(storage))) == 2
    assert len(desk.batches) == 1  # the key is known: nothing was queued twice
    again = take(storage, "a", "b", "c")
    assert (again.finished, again.rows) == (2, 1)


def test_a_refusal_of_the_whole_is_no_rows_fault(tmp_path: Path) -> None:
    class Full(Desk):
        def submit_batch(self, **_: Any) -> Batch:
            raise RemoteProblemError("The queue is full.", details={"status": 429})

    storage = Storage(str(tmp_path))
    with pytest.raises(RemoteProblemError, match="full"):
        list(send_work(Full(), errand(storage), take(storage, "a")))
    assert entries(storage) == {}


def test_pictures_are_sent_and_unreadable_ones_fail_alone(tmp_path: Path) -> None:
    storage, desk = Storage(str(tmp_path / "out")), Desk()
    (tmp_path / "in.png").write_bytes(b"picture")
    records = [
        Record(0, {"image": str(tmp_path / "in.png")}),
        Record(1, {"image": str(tmp_path / "none.png")}),
    ]
    checker = RowChecker(ServicePlanner(ANSWER).plan, "own", ".")
    work = take_in(records, checker, storage, max_part_rows=4)
    list(send_work(desk, errand(storage), work))
    by_index = {entry.index: entry for entry in Manifest(storage).read()}
    assert by_index[0].status == COMPLETED
    assert "none.png" in str(by_index[1].error)
    (body,) = desk.bodies.values()
    assert [item["image"] for item in body["items"]] == [b"picture"]


def test_the_service_says_which_models_there_are() -> None:
    planner = ServicePlanner(ANSWER)
    assert planner.default_model == "own"
    assert planner.plan("own").is_deployed
    assert planner.plan("away").reason == "needs 80 GB"
    assert not planner.plan("away").is_deployed
    with pytest.raises(ModelNotFoundError, match="no model 'nobody'"):
        planner.plan("nobody")


def test_a_variant_that_reads_text_itself_takes_no_options_of_the_text_stage() -> None:
    """The service knows its checkpoint; the class alone would say that a picture comes first."""
    trellis = {"name": "trellis", "state": "ready", "reason": "here"}
    for answer, is_drawn in (({}, True), ({"draws_picture_first": False}, False)):
        models = [{**trellis, **answer}]
        plan = ServicePlanner({"default_model": "trellis", "models": models}).plan("trellis")
        assert plan.needs_picture is is_drawn
        assert bool(plan.text_options) is is_drawn
