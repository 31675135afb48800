"""The queue's switches, kept in the database so that every process sees them: pause and drain."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select, text

from dream_cad.queue.connection import Database
from dream_cad.queue.tables import queue_state

_PAUSED, _DRAINING = "paused", "draining"

_SET = (
    "INSERT INTO queue_state (name, value) VALUES (:name, {value}) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_SET_SQLITE = text(_SET.format(value=":value"))
_SET_POSTGRESQL = text(_SET.format(value="CAST(:value AS json)"))


_ALL = select(queue_state)


@dataclass(frozen=True)
class Switches:
    """What rests: everything, some models, or everything until the upgrade is done."""

    all_paused: bool = False
    models: tuple[str, ...] = ()
    draining: bool = False

    @property
    def nothing_starts(self) -> bool:
        """Whether no job at all may be claimed."""
        return self.all_paused or self.draining


class StateStore:
    """Reads and sets the switches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> Switches:
        """Return the switches as they are."""
        with self._database.connect(write=False) as connection:
            return read_switches(connection)

    def change(self, changed: Callable[[Switches], Switches]) -> Switches:
        """Set the switches to what ``changed`` makes of them, and return them."""
        with self._database.connect(write=True) as connection:
            new = changed(read_switches(connection))
            paused = {"all": new.all_paused, "models": list(new.models)}
            for name, value in ((_PAUSED, paused), (_DRAINING, new.draining)):
                write_state(self._database, connection, name, json.dumps(value))
        return new


def write_state(database: Database, connection: Connection, name: str, value: str) -> None:
    """Set one entry of ``queue_state`` within a transaction; the value is JSON."""
    statement = _SET_POSTGRESQL if database.is_postgresql else _SET_SQLITE
    connection.execute(statement, {"name": name, "value": value})


def with_pause(model: str | None, paused: bool) -> Callable[[Switches], Switches]:
    """Return the change that pauses or resumes one model, or everything for None."""

    def change(old: Switches) -> Switches:
        if model is None:
            return replace(old, all_paused=paused)
        models = set(old.models) | {model} if paused else set(old.models) - {model}
        return replace(old, models=tuple(sorted(models)))

    return change


def with_drain(draining: bool) -> Callable[[Switches], Switches]:
    """Return the change that starts or ends draining."""
    return lambda old: replace(old, draining=draining)


def read_switches(connection: Connection) -> Switches:
    """Return the switches within a transaction."""
    values = {row.name: row.value for row in connection.execute(_ALL)}
    paused = values.get(_PAUSED, {})
    return Switches(
        all_paused=paused.get("all", False),
        models=tuple(paused.get("models", ())),
        draining=values.get(_DRAINING, False),
    )
