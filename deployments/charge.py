"""Whether this router is the one that dispatches."""

from __future__ import annotations

import asyncio
import logging

from deployments.database_thread import DatabaseThread
from deployments.endings import take_over
from deployments.joblog import job_fields
from dream_cad.exceptions import StorageError

logger = logging.getLogger(__name__)

_CHECK_EVERY_S = 1.0


class Charge:
    """Held by one router at a time; the others answer for the state of jobs meanwhile.

    Args:
        database: the queue's thread.
        router_id: of this router.
    """

    def __init__(self, database: DatabaseThread, router_id: str) -> None:
        self._database = database
        self._router_id = router_id
        self._held = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether this router dispatches."""
        return self._held.is_set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until this router dispatches, or for a while; returns whether it does."""
        try:
            return await asyncio.wait_for(self._held.wait(), timeout_s)
        except TimeoutError:
            return False

    async def keep(self) -> None:
        """Take the charge when it is free, and keep it; for ever."""
        while True:
            try:
                await self.check()
            except StorageError as error:
                # Nothing can be claimed either. Whoever took the charge meanwhile is found when
                # the database answers again.
                logger.error("the charge cannot be checked: %s", error)
            await asyncio.sleep(_CHECK_EVERY_S)

    async def check(self) -> None:
        """Take the charge if it is free, else note that another router has it.

        Raises:
            StorageError: the database does not answer.
        """
        if not await self._database(self._database.queue.hold_dispatch):
            if self.is_held:
                logger.warning("another router dispatches now")
            self._held.clear()
            return
        if not self.is_held:
            taken = await self._database(take_over, self._database.queue, self._router_id)
            for job in taken:
                logger.info(
                    "taken back from an earlier router",
                    extra={**job_fields(job), "status": job.status.value},
                )
            self._held.set()
