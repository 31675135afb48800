"""Put the lanes of a router together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray.serve.handle import DeploymentHandle

import dream_cad
from deployments.args import AppArgs
from deployments.attempt import Stages
from deployments.charge import Charge
from deployments.database_thread import DatabaseThread
from deployments.gate import PriorityGate
from deployments.lane import Lane
from deployments.metrics import RouterMetrics
from deployments.plan import ModelPlan

_FINISHING_PER_SLOT = 4


def open_lanes(
    args: AppArgs,
    plans: list[ModelPlan],
    models: dict[str, DeploymentHandle[Any]],
    text: DeploymentHandle[Any] | None,
    finisher: DeploymentHandle[Any],
    *,
    database: DatabaseThread,
    charge: Charge,
    router_id: str,
    metrics: RouterMetrics,
    on_change: Callable[[str], None],
) -> dict[str, Lane]:
    """Return a lane for each deployed model; they share text stage and finisher.

    Args:
        args: the application's arguments.
        plans: the deployed models.
        models: their handles by name.
        text: the text stage's handle, if there is one.
        finisher: the finisher's handle.
        database: the queue's thread.
        charge: whether this router dispatches.
        router_id: its id.
        metrics: what is counted.
        on_change: called with the id of a job that changed.
    """
    slots = args.finisher.num_replicas * args.finisher.concurrency
    finishing = asyncio.Semaphore(_FINISHING_PER_SLOT * slots)
    text_gate = PriorityGate(args.text_to_image.num_replicas)
    lanes: dict[str, Lane] = {}
    for plan in plans:
        stages = Stages(
            model=models[plan.name],
            text=text if plan.needs_picture else None,
            text_gate=text_gate,
            finisher=finisher,
            gate=PriorityGate(plan.num_replicas),
            finishing=finishing,
            timeout_s=args.limits.job_timeout_s,
            grace_s=args.queue.cancel_grace_s,
            backoff_s=args.queue.retry_backoff_s,
            finish_options=plan.finish_options,
            text_options=plan.text_options,
            receipt={
                "dream_cad": dream_cad.__version__,
                "checkpoint": plan.checkpoint,
                "license": plan.weights_license,
            },
            gpu_share=plan.num_gpus or 1.0,
        )
        lanes[plan.name] = Lane(
            plan,
            stages,
            database,
            metrics,
            look_ahead=args.queue.look_ahead,
            is_shared=args.queue.routers > 1,
            charge=charge,
            router_id=router_id,
            find_site=lanes.get,
            on_change=on_change,
        )
    return lanes
