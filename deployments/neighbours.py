"""What the other routers of a PostgreSQL queue did: a short look at the database, often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from deployments.database_thread import DatabaseThread
from deployments.lane import Lane
from dream_cad.exceptions import StorageError

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1


class Neighbours:
    """Wakes who waits here for a job that another router accepted, worked or cancelled.

    Numbers of PostgreSQL's transactions may become visible out of order: a change that is missed
    is found by whoever waits, who looks by himself once a second.

    Args:
        database: the queue's thread.
        lanes: by model.
        on_change: called with the id of a job that changed.
    """

    def __init__(
        self,
        database: DatabaseThread,
        lanes: Mapping[str, Lane],
        on_change: Callable[[str], None],
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._on_change = on_change

    async def listen(self) -> None:
        """Look for ever."""
        seen: int | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                seen = await self._look(seen)
            except StorageError as error:
                logger.error("the other routers are not heard: %s", error)

    async def _look(self, seen: int | None) -> int:
        queue = self._database.queue
        if seen is None:
            seen = int(await self._database(queue.newest_event))
        newest: int
        newest, changed = await self._database(queue.changed_since, seen)
        for job_id in changed:
            self._on_change(job_id)
        for lane in self._lanes.values():
            if changed:
                lane.wake()
        await self._stop_cancelled()
        return newest

    async def _stop_cancelled(self) -> None:
        runs = {job_id: run for lane in self._lanes.values() for job_id, run in lane.runs.items()}
        if not runs:
            return
        for job_id in await self._database(self._database.queue.asked_to_stop):
            if job_id in runs:
                runs[job_id].stop()
