"""Where the models of a batch run, by the same rules as the served ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.args import AppArgs, ModelArgs, TextToImageArgs
from deployments.calls import list_nodes
from deployments.plan import ModelPlan, TextPlan, node_accelerator, plan_models, plan_text
from dream_cad.exceptions import InvalidConfigError
from dream_cad.placement import GpuGroup
from jobs.batch.attempts import Counts
from jobs.batch.intake import ModelWork
from jobs.batch.pools import Node, Pools, size_pools
from jobs.batch.stages import StageSetup
from jobs.batch.storage import Storage


@dataclass
class Planner:
    """Plans models as rows name them.

    Attributes:
        gpus: the cluster's GPUs by kind; none without one.
        checkpoint: of all models; None for the setting.
        text_source: what the text stage loads; None for the choice by settings.
        modules: that register custom models.
    """

    gpus: Sequence[GpuGroup]
    checkpoint: str | None = None
    text_source: str | None = None
    modules: tuple[str, ...] = ()
    _plans: dict[str, ModelPlan] = field(default_factory=dict)

    def plan(self, name: str) -> ModelPlan:
        """Return what a model runs on.

        Raises:
            ModelNotFoundError: it is not registered.
            InvalidConfigError: its name is malformed.
        """
        if name not in self._plans:
            if not 0 < len(name) <= 64:
                raise InvalidConfigError(f"{name[:80]!r} is not the name of a model.")
            models = [ModelArgs(name=name, checkpoint=self.checkpoint)]
            self._plans[name] = plan_models(AppArgs(models=models), self.gpus)[0]
        return self._plans[name]

    def plan_text(self, name: str) -> TextPlan:
        """Return what the text stage before a model runs on.

        Raises:
            InvalidConfigError: no text stage can be loaded.
        """
        wishes = TextToImageArgs(source=self.text_source)
        plan = plan_text(wishes, [self.plan(name)], self.gpus)
        if plan is None:
            raise InvalidConfigError(
                f"{name} makes prompts into pictures first, and no text stage is installed.",
                hint="Give --text-to-image, or pictures instead of prompts.",
            )
        return plan


def plan_stages(
    planner: Planner, name: str, work: ModelWork, *, storage: Storage, format: str, tally: Counts
) -> tuple[StageSetup, Pools]:
    """Return what the stages of one model know, and how many workers each gets.

    Raises:
        InvalidConfigError: the cluster cannot hold them.
    """
    plan = planner.plan(name)
    text = planner.plan_text(name) if plan.needs_picture and work.prompts else None
    nodes = cluster_nodes()
    pools = size_pools(
        _usable(nodes, plan.accelerators),
        plan.num_gpus,
        text.num_gpus if text else None,
        text_nodes=_usable(nodes, text.accelerators) if text else None,
    )
    setup = StageSetup(
        storage=storage,
        tally=tally,
        model=name,
        model_options=plan.options,
        modules=planner.modules,
        finish_names=plan.finish_options,
        text_names=plan.text_options,
        format=format,
        gpu_share=plan.num_gpus,
        accelerators=plan.accelerators,
        text_source=text.source if text else None,
        text_gpu_share=text.num_gpus if text else 0.0,
        text_accelerators=text.accelerators if text else (),
        is_alone=pools.model == 1,
    )
    return setup, pools


def cluster_nodes() -> list[Node]:
    """Return the machines of the cluster that this process is connected to."""
    alive = [node["Resources"] for node in list_nodes() if node["Alive"]]
    return [
        Node(found.get("CPU", 0.0), int(found.get("GPU", 0)), node_accelerator(found))
        for found in alive
    ]


def _usable(nodes: Sequence[Node], accelerators: Sequence[str]) -> list[Node]:
    return [node for node in nodes if not accelerators or node.accelerator in accelerators]
