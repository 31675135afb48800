"""Keys, licences, webhooks, measured memory."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue import JobQueue
from dream_cad.queue.database import open_engine
from tests.unit.queue.conftest import FakeClock, make_job


def test_a_key_is_known_by_its_text_alone(queue: JobQueue) -> None:
    assert not queue.keys.any_key()
    key, plaintext = queue.keys.create_key(
        "team", ["submit", "admin"], rate_per_minute=60, max_pending=5, weight=2.0
    )
    assert plaintext.startswith(f"dcad_{key.id}_")
    assert queue.keys.verify(plaintext) == key
    assert (key.scopes, key.max_pending, key.weight) == ({"submit", "admin"}, 5, 2.0)
    assert queue.keys.any_key()
    assert queue.keys.list_keys() == [key]
    assert queue.keys.get(key.id) == key


def test_wrong_texts_are_refused(queue: JobQueue) -> None:
    key, plaintext = queue.keys.create_key("team")
    for wrong in ("", "dcad", f"dcad_{key.id}", f"dcad_{key.id}_", plaintext[:-1], f"x{plaintext}"):
        assert queue.keys.verify(wrong) is None


def test_a_revoked_key_is_refused(queue: JobQueue) -> None:
    key, plaintext = queue.keys.create_key("team")
    assert queue.keys.revoke(key.id)
    assert queue.keys.verify(plaintext) is None
    assert not queue.keys.any_key()
    assert not queue.keys.revoke(key.id)
    assert queue.keys.list_keys()[0].revoked_at is not None


def test_secrets_are_not_in_the_database(queue: JobQueue, database_url: str) -> None:
    _, plaintext = queue.keys.create_key("team")
    engine = open_engine(database_url)
    with engine.begin() as connection:
        rows = str(connection.execute(text("SELECT * FROM api_keys")).all())
    engine.dispose()
    assert plaintext.split("_", 2)[2] not in rows


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": " "},
        {"name": "x" * 201},
        {"scopes": []},
        {"scopes": ["root"]},
        {"rate_per_minute": 0},
        {"max_pending": -1},
        {"weight": 0.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
    ],
)
def test_senseless_keys_are_refused(queue: JobQueue, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        queue.keys.create_key(**{"name": "team", **arguments})  # type: ignore[arg-type]
    assert queue.keys.list_keys() == []


def test_licences_are_accepted_by_text(queue: JobQueue) -> None:
    queue.licenses.accept("triposr", "MIT", "ada")
    queue.licenses.accept("triposr", "MIT", "bob")
    assert queue.licenses.is_accepted("triposr", "MIT")
    assert not queue.licenses.is_accepted("triposr", "Other")
    assert [row.accepted_by for row in queue.licenses.list()] == ["ada"]


def test_a_delivery_is_tried_until_it_is_recorded(queue: JobQueue, clock: FakeClock) -> None:
    job = make_job(owner="k1")
    queue.add_job(job)
    sent = queue.webhooks.schedule(job, "https://example.org/hook", "job.completed", "{}")
    (first,) = queue.webhooks.due(lease_s=60.0)
    assert (first.id, first.attempts, first.owner) == (sent, 1, "k1")
    assert queue.webhooks.due() == []
    clock.now += 60  # the sender died: another may have it
    (again,) = queue.webhooks.due()
    assert again.attempts == 2
    assert queue.webhooks.record(
        sent, state="pending", status_code=500, error="e" * 900, next_at=clock.now + 10
    )
    assert queue.webhooks.due() == []
    clock.now += 10
    assert len(queue.webhooks.due()) == 1
    assert queue.webhooks.record(sent, state="delivered", status_code=204)
    assert not queue.webhooks.record(sent, state="failed")
    (log,) = queue.webhooks.list_for(job.id)
    assert (log.state, log.status_code, log.attempts) == ("delivered", 204, 3)
    assert log.done_at is not None
    clock.now += 1000
    assert queue.webhooks.due() == []


def test_memory_peaks_keep_the_highest(queue: JobQueue) -> None:
    place = ("triposr", "nano", "256", "H100")
    assert queue.memory.peak(*place) is None
    for peak in (5, 9, 7):
        queue.memory.record(*place, peak)
    assert queue.memory.peak(*place) == 9
