"""Build the Serve application: ``serve run serve_config.yaml``."""

# No ``from __future__ import annotations``: Serve reads the class of ``args`` from the signature of
# build_app and hands over a plain dict where it finds only its name.

import logging
from collections.abc import Sequence
from pathlib import Path

from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deployments.args import AppArgs, AutoscalingArgs
from deployments.autoscaling import QueuePolicy
from deployments.calls import make_deployment
from deployments.gateway import Gateway
from deployments.model import ModelReplica
from deployments.plan import (
    ModelPlan,
    TextPlan,
    accelerator_options,
    cluster_gpus,
    find_shortage,
    plan_models,
    plan_text,
)
from deployments.process import import_modules
from deployments.router import Router
from deployments.stages import MeshFinisher, TextToImageReplica
from dream_cad.exceptions import InvalidConfigError
from dream_cad.queue.database import sqlite_path
from dream_cad.settings import get_settings

logger = logging.getLogger(__name__)

_SMALL_CPU = 0.1
_WORK_AND_CONTROL = 4
"""A replica works on one job; the rest lets cancel and adopt through beside it (Serve's broadcast
waits for a free place like any request: measured, ray 2.60)."""
_SHUTDOWN_S = 5.0
_MANY = 1_000
"""Requests that a router or gateway holds at once: waiting clients cost little."""


def build_app(args: AppArgs) -> Application:
    """Check the arguments, decide what runs where, and bind the deployments.

    Call it in a process that is connected to the cluster, as ``serve run`` does: the models' GPU
    shares follow from the cluster's GPUs.

    Raises:
        ModelNotFoundError: a configured model is not registered.
        InvalidConfigError: a module cannot be imported, or GPU memory cannot be found out.
    """
    import_modules(args.modules)
    output_dir = _absolute(args.output_dir or str(get_settings().output_dir))
    database_url = args.database_url or get_settings().database_url or _sqlite_in(output_dir)
    gpus = cluster_gpus(args.gpu_memory_gb)
    plans = plan_models(args, gpus)
    text_plan = plan_text(args.text_to_image, plans, gpus, args.placement)
    deployed = [plan for plan in plans if plan.is_deployed]
    for plan in plans:
        logger.info("model %s: %s", plan.name, plan.reason)
    for name, count in find_shortage(plans, text_plan, gpus).items():
        logger.warning("%s: %d replicas find no room on the cluster's GPUs and wait", name, count)
    artifacts_root = f"{output_dir}/jobs"
    if args.queue.routers > 1 and sqlite_path(database_url) is not None:
        raise InvalidConfigError(
            f"args.queue.routers is {args.queue.routers}, but SQLite can have one router only.",
            hint="Set args.database_url (or DREAM_CAD_DATABASE_URL) to a PostgreSQL database.",
        )
    router = _deployment(
        Router, "router", _SMALL_CPU, num_replicas=args.queue.routers, max_ongoing=_MANY
    ).bind(
        args,
        database_url,
        artifacts_root,
        deployed,
        {plan.name: _bind_model(plan, args, artifacts_root) for plan in deployed},
        _bind_text(text_plan) if text_plan is not None else None,
        _bind_finisher(args, artifacts_root),
    )
    gateway = _deployment(Gateway, "gateway", _SMALL_CPU, max_ongoing=_MANY)
    return gateway.bind(args, plans, router, artifacts_root, text_plan is not None)


def _bind_model(plan: ModelPlan, args: AppArgs, artifacts_root: str) -> Application:
    scaled = plan.autoscaling
    deployment = _deployment(
        ModelReplica,
        plan.deployment_name,
        plan.num_cpus,
        num_gpus=plan.num_gpus,
        accelerators=plan.accelerators,
        num_replicas=plan.num_replicas if scaled is None else _scaled_by_queue(scaled),
        max_ongoing=_WORK_AND_CONTROL,
        # A replica that is stopped for want of work may still have a job: it may end it.
        shutdown_s=_SHUTDOWN_S if scaled is None else args.limits.job_timeout_s,
    )
    return deployment.bind(plan.name, plan.options, args.modules, artifacts_root, plan.num_gpus)


def _scaled_by_queue(scaled: AutoscalingArgs) -> AutoscalingConfig:
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=QueuePolicy,
        policy_kwargs={"drain_s": scaled.drain_s, "idle_s": scaled.idle_s},
    )
    return AutoscalingConfig(
        min_replicas=scaled.min_replicas,
        initial_replicas=scaled.min_replicas,
        max_replicas=scaled.max_replicas,
        # The policy itself knows when to wait.
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=policy,
    )


def _bind_text(plan: TextPlan) -> Application:
    deployment = _deployment(
        TextToImageReplica,
        "text-to-image",
        plan.num_cpus,
        num_gpus=plan.num_gpus,
        accelerators=plan.accelerators,
        num_replicas=plan.num_replicas,
        max_ongoing=_WORK_AND_CONTROL,
    )
    return deployment.bind(plan.source, plan.num_gpus)


def _bind_finisher(args: AppArgs, artifacts_root: str) -> Application:
    finisher = args.finisher
    deployment = _deployment(
        MeshFinisher,
        "mesh-finisher",
        _SMALL_CPU if finisher.num_cpus is None else finisher.num_cpus,
        num_replicas=finisher.num_replicas,
        max_ongoing=2 * finisher.concurrency,
    )
    return deployment.bind(artifacts_root, finisher.concurrency, finisher.preview_size)


def _deployment(
    replica: type,
    name: str,
    num_cpus: float,
    *,
    num_gpus: float = 0.0,
    accelerators: Sequence[str] = (),
    num_replicas: int | AutoscalingConfig = 1,
    max_ongoing: int,
    shutdown_s: float = _SHUTDOWN_S,
) -> Deployment:
    is_fixed = isinstance(num_replicas, int)
    return make_deployment(
        replica,
        name=name,
        **{"num_replicas" if is_fixed else "autoscaling_config": num_replicas},
        max_ongoing_requests=max_ongoing,
        health_check_period_s=5,
        health_check_timeout_s=60,  # a model may keep the interpreter busy for long
        graceful_shutdown_timeout_s=shutdown_s,
        ray_actor_options={
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            **accelerator_options(accelerators),
        },
    )


def _absolute(output_dir: str) -> str:
    return output_dir if "://" in output_dir else str(Path(output_dir).expanduser().absolute())


def _sqlite_in(output_dir: str) -> str:
    folder = get_settings().output_dir.absolute() if "://" in output_dir else Path(output_dir)
    return f"sqlite:///{folder / 'jobs.sqlite3'}"
