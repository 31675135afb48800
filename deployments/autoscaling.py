"""Autoscaling by the queue: the router tells the demand, a Serve policy makes replicas of it.

Serve pickles this module by value into its controller, which may lack the package: it imports
nothing of it. Demand goes through the cluster's own key-value store, so the controller needs no
access to the database.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

_NAMESPACE = b"dream_cad"
_READ_EVERY_S = 1.0


@dataclass(frozen=True)
class Demand:
    """What a model has to do.

    Attributes:
        waiting: jobs that could start.
        running: jobs at work.
        seconds_per_job: as measured; None before the first.
        others_starve: another model has jobs and no replica.
    """

    waiting: int
    running: int
    seconds_per_job: float | None
    others_starve: bool = False


def tell_demand(app: str, deployment: str, demand: Demand) -> None:
    """Let the policy of a deployment know what there is to do."""
    content = json.dumps(asdict(demand)).encode()
    _internal_kv_put(_key(app, deployment), content, overwrite=True, namespace=_NAMESPACE)


def read_demand(app: str, deployment: str) -> Demand | None:
    """Return what was told last; None before that."""
    content = _internal_kv_get(_key(app, deployment), namespace=_NAMESPACE)
    return None if content is None else Demand(**json.loads(content))


def _key(app: str, deployment: str) -> bytes:
    return f"demand/{app}/{deployment}".encode()


def wanted_replicas(demand: Demand, drain_s: float) -> int:
    """Return how many replicas do the work there is within ``drain_s`` seconds.

    As many as ``ceil(jobs * seconds a job / drain_s)``, at least one for any work, at most one a
    job. One until a job was measured.
    """
    work = demand.waiting + demand.running
    if work == 0:
        return 0
    if demand.seconds_per_job is None:
        return 1
    return min(max(math.ceil(work * demand.seconds_per_job / drain_s), 1), work)


class QueuePolicy:
    """Serve's autoscaling policy of one model's deployment.

    Grows at once, shrinks when fewer replicas would have done for ``idle_s`` seconds, or at once
    where an idle model keeps another's jobs from a GPU. Serve keeps the result within the
    configured bounds.

    Args:
        drain_s: waiting work is to be done within so many seconds.
        idle_s: a replica that is not needed for so long is stopped.
    """

    def __init__(self, drain_s: float, idle_s: float) -> None:
        self._drain_s = drain_s
        self._idle_s = idle_s
        self._demand: Demand | None = None
        self._read_at = -math.inf

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas for an AutoscalingContext, and what to remember."""
        now = time.monotonic()
        if now - self._read_at >= _READ_EVERY_S:  # Serve asks ten times a second
            self._demand, self._read_at = (
                read_demand(context.app_name, context.deployment_name),
                now,
            )
        needed_at = min(float((context.policy_state or {}).get("needed_at", now)), now)
        target, needed_at = self.decide(self._demand, context.target_num_replicas, needed_at, now)
        return target, {"needed_at": needed_at}

    def decide(
        self, demand: Demand | None, target: int, needed_at: float, now: float
    ) -> tuple[int, float]:
        """Return the new target, and when the target was last needed."""
        if demand is None:
            return target, now
        wanted = wanted_replicas(demand, self._drain_s)
        if wanted >= target:
            return wanted, now
        gives_way = demand.others_starve and wanted == 0
        if gives_way or now - needed_at >= self._idle_s:
            return wanted, now
        return target, needed_at
