"""The same batch through a running service: its HTTP batches instead of actors of our own.

Interactive jobs keep their priority, since the service's queue orders everything. A batch is noted
in the output, with its idempotency key, before it is sent: a run that was killed sends the same
again, which the service knows, and waits for it.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

from dream_cad.client import Batch, BatchItem, BatchItemFields, Job
from dream_cad.client.fields import PriorityName
from dream_cad.exceptions import DreamCadError, RateLimitedError, ServiceUnavailableError
from dream_cad.images.loading import ImageLimits
from jobs.batch.intake import Work, read_part
from jobs.batch.manifest import COMPLETED, FAILED, Entry, Manifest
from jobs.batch.pipeline import Advance
from jobs.batch.rows import Row
from jobs.batch.storage import Storage, read_limited

SENT = "sent"
_POLL_S = 1.0
_MOST_OPEN = 4
_PAGE = 200


class Service(Protocol):
    """What is asked of the service (dream_cad.client.Client)."""

    def submit_batch(
        self,
        *,
        items: list[BatchItemFields],
        name: str,
        idempotency_key: str,
        priority: PriorityName,
    ) -> Batch:
        """Queue a batch; the same key queues it once."""

    def batch_items(self, batch_id: str) -> Iterator[BatchItem]:
        """Yield a batch's items, in order."""

    def read_result(self, job_id: str, format: str) -> bytes:
        """Return a job's mesh."""


@dataclasses.dataclass(frozen=True)
class Errand:
    """How a batch is sent.

    Attributes:
        storage: the output.
        format: of the meshes.
        priority: of its jobs.
        max_items: most jobs in one HTTP batch.
        pause: waits the given seconds between two questions.
    """

    storage: Storage
    format: str
    priority: PriorityName = "low"
    max_items: int = 200
    pause: Callable[[float], None] = time.sleep


@dataclasses.dataclass(frozen=True)
class _Parcel:
    """Rows that are one HTTP batch, and the key under which the service knows it."""

    key: str
    priority: PriorityName
    rows: list[Row]

    @property
    def path(self) -> str:
        return f"{SENT}/{self.key}.json"

    def note(self, storage: Storage) -> None:
        rows = [row.to_json() for row in self.rows]
        content = {"key": self.key, "priority": self.priority, "rows": rows}
        storage.write(self.path, json.dumps(content).encode())


def follow_sent(service: Service, errand: Errand) -> Iterator[Advance]:
    """Wait for the batches that an earlier run sent, and note their rows."""
    storage = errand.storage
    for path in storage.list_files(SENT):
        note = json.loads(storage.read(path))
        rows = [Row(**values) for values in note["rows"]]
        yield from _work_off(
            service, errand, [_Parcel(note["key"], cast("PriorityName", note["priority"]), rows)]
        )


def send_work(service: Service, errand: Errand, work: Work) -> Iterator[Advance]:
    """Send what is left to make, a few batches at a time; yields as rows end.

    Raises:
        ServiceUnavailableError: the service cannot be reached; run it again later.
        DreamCadError: it refuses a request as a whole.
    """
    parcels = (_Parcel(uuid.uuid4().hex, errand.priority, rows) for rows in _chunks(errand, work))
    yield from _work_off(service, errand, parcels)


def _work_off(service: Service, errand: Errand, parcels: Iterable[_Parcel]) -> Iterator[Advance]:
    """Send parcels, a few ahead of the one that is waited for."""
    waiting: list[tuple[str, _Parcel]] = []
    for parcel in parcels:
        sent, refused = _send(service, errand, parcel)
        if refused:
            Manifest(errand.storage).add(refused)
            yield Advance(0, len(refused), None)
        if sent is not None:
            waiting.append(sent)
        if len(waiting) >= _MOST_OPEN:
            yield from _collect(service, errand, *waiting.pop(0))
    for one in waiting:
        yield from _collect(service, errand, *one)


def _chunks(errand: Errand, work: Work) -> Iterator[list[Row]]:
    for todo in work.by_model.values():
        chunk: list[Row] = []
        for path in todo.parts:
            for row in read_part(errand.storage, path):
                chunk.append(row)
                if len(chunk) == errand.max_items:
                    yield chunk
                    chunk = []
        if chunk:
            yield chunk


def _send(
    service: Service, errand: Errand, parcel: _Parcel
) -> tuple[tuple[str, _Parcel] | None, list[Entry]]:
    """Queue a parcel; the rows that the service does not take come back with the reason.

    A parcel that is refused for some of its rows is sent again without them, as another one.
    """
    refused: list[Entry] = []
    while True:
        bodies: list[BatchItemFields] = []
        wrong: dict[int, str] = {}
        for place, row in enumerate(parcel.rows):
            try:
                bodies.append(_item(row))
            except DreamCadError as error:
                wrong[place] = str(error)
        if parcel.rows and not wrong:
            parcel.note(errand.storage)
            try:
                batch_id = service.submit_batch(
                    items=bodies,
                    name=f"batch {parcel.key[:8]}",
                    idempotency_key=parcel.key,
                    priority=parcel.priority,
                ).id
                return (batch_id, parcel), refused
            except DreamCadError as error:
                wrong = _wrong_items(error.details, len(parcel.rows))
                if not wrong:
                    raise
        refused += [_failure(parcel.rows[place], text) for place, text in wrong.items()]
        left = [row for place, row in enumerate(parcel.rows) if place not in wrong]
        if errand.storage.exists(parcel.path):
            errand.storage.delete(parcel.path)
        if not left:
            return None, refused
        parcel = _Parcel(uuid.uuid4().hex, parcel.priority, left)


def _item(row: Row) -> BatchItemFields:
    options = row.options if row.seed is None else {**row.options, "seed": row.seed}
    item: BatchItemFields = {"model": row.model, "options": options}
    if row.image is not None:
        return {**item, "image": read_limited(row.image, ImageLimits.from_settings().max_bytes)}
    return {**item, "prompt": row.prompt}


def _wrong_items(details: Mapping[str, Any], count: int) -> dict[int, str]:
    """Return place and reason of the items that a problem document complains of."""
    wrong: dict[int, str] = {}
    for error in details.get("errors") or ():
        place = str(error.get("field", "")).split(".")
        if len(place) > 1 and place[0] == "items" and place[1].isdigit():
            number = int(place[1])
            if number < count:
                wrong.setdefault(number, str(error.get("message", "refused")))
    return wrong


def _collect(service: Service, errand: Errand, batch_id: str, parcel: _Parcel) -> Iterator[Advance]:
    """Wait until a batch has ended; fetch each mesh and write its row as soon as it is there."""
    rows = parcel.rows
    done: set[int] = set()
    while len(done) < len(rows):
        fresh = [
            item
            for item in service.batch_items(batch_id)
            if item.index not in done and item.job.is_final
        ]
        for begin in range(0, len(fresh), _PAGE):
            page = fresh[begin : begin + _PAGE]
            entries = [_entry(service, errand, rows[one.index], one.job) for one in page]
            Manifest(errand.storage).add(entries)
            done.update(one.index for one in page)
            good = sum(entry.status == COMPLETED for entry in entries)
            yield Advance(good, len(entries) - good, None)
        if len(done) < len(rows):
            errand.pause(_POLL_S)
    errand.storage.delete(parcel.path)


def _entry(service: Service, errand: Errand, row: Row, job: Job) -> Entry:
    if job.status != COMPLETED:
        return _failure(row, job.reason if job.error else f"the job was {job.status}")
    try:
        content = service.read_result(job.id, errand.format)
    except (ServiceUnavailableError, RateLimitedError):
        raise
    except DreamCadError as error:
        return _failure(row, str(error))
    path = f"meshes/{row.id[:2]}/{row.id}.{errand.format}"
    errand.storage.write(path, content)
    seconds = sum(job.timings.values())
    return Entry(
        id=row.id,
        index=row.index,
        status=COMPLETED,
        path=path,
        model=row.model,
        prompt=row.prompt,
        image=row.image,
        seed=row.seed,
        seconds=round(seconds, 4),
    )


def _failure(row: Row, error: str) -> Entry:
    return Entry(
        row.id,
        row.index,
        FAILED,
        model=row.model,
        prompt=row.prompt,
        image=row.image,
        seed=row.seed,
        error=error,
    )
