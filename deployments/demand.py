"""Tell Serve's autoscaler what each model has to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from ray import serve

from deployments.autoscaling import Demand, tell_demand
from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from deployments.lane import Lane
from dream_cad.exceptions import StorageError

logger = logging.getLogger(__name__)

_TELL_EVERY_S = 1.0
MOST_COUNTED = 20_000
"""Waiting jobs of a model are counted no further. Jobs of 3 s that are to be done in a minute keep
1,000 GPUs busy; a simulation of that many showed that 1,000 jobs, the limit before, keep 50."""


class DemandTeller:
    """Tells the demand for the models whose replicas follow the queue; lives in a router.

    Args:
        database: the queue's thread.
        lanes: by model.
        charge: whether this router dispatches; the others keep silent.
    """

    def __init__(self, database: DatabaseThread, lanes: Mapping[str, Lane], charge: Charge) -> None:
        self._database = database
        self._lanes = lanes
        self._charge = charge
        self._app = serve.get_replica_context().app_name

    async def tell_all(self) -> None:
        """Tell it every second, for ever."""
        while True:
            if self._charge.is_held:
                try:
                    await self.tell_once()
                except StorageError as error:
                    logger.error("the demand is not known: %s", error)
            await asyncio.sleep(_TELL_EVERY_S)

    async def tell_once(self) -> None:
        """Count what waits and tell it.

        Raises:
            StorageError: the database does not answer.
        """
        switches = await self._database(self._database.queue.switches)
        waiting: dict[str, int] = {}
        for name in self._lanes:
            rests = switches.nothing_starts or name in switches.models
            count = self._database.queue.count_waiting
            waiting[name] = 0 if rests else await self._database(count, name, limit=MOST_COUNTED)
        starving = {
            name
            for name, lane in self._lanes.items()
            if waiting[name] > 0 and lane.stages.gate.slots == 0
        }
        for name, lane in self._lanes.items():
            if lane.plan.autoscaling is None:
                continue
            demand = Demand(waiting[name], len(lane.runs), lane.mean_s, bool(starving - {name}))
            await asyncio.to_thread(tell_demand, self._app, lane.plan.deployment_name, demand)
