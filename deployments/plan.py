"""What is deployed, decided when the application is built: which models, on what share of a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.args import AppArgs, AutoscalingArgs, ModelArgs, TextToImageArgs
from deployments.calls import list_nodes
from deployments.options import TEXT_OPTIONS, finisher_options, text_options
from dream_cad.checkpoints import TEXT_TO_IMAGE, nano_folder
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.availability import get_availability
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.registry import ModelRegistry, resolve_implementation
from dream_cad.placement import SPREAD, GpuGroup, Seat, Tenant, choose_seat, pack, site_model
from dream_cad.placement.gpus import largest_gb
from dream_cad.placement.seats import NANO_VRAM_GB
from dream_cad.settings import get_settings

_BYTES_PER_GB = 10**9
_CPU_OF_GPU_MODEL = 1.0
_CPU_OF_CPU_MODEL = 0.25  # bookkeeping: a laptop of one core must hold all deployments
_TYPE = "accelerator_type:"
_ACCELERATOR_LABEL = "ray.io/accelerator-type"
_FREE_LICENSES = frozenset({"MIT", "Apache-2.0", "BSD-3-Clause"})


@dataclass(frozen=True)
class ModelPlan:
    """One model: deployed, or listed with the reason why not.

    Attributes:
        name: the registered name.
        is_deployed: whether it gets a deployment.
        reason: one sentence on what it runs with, or what is missing.
        checkpoint: which weights; None for models that have none to choose.
        options: constructor options.
        num_gpus: share of a GPU of each replica.
        accelerators: Ray's labels of the GPUs that it may be on; none for any.
        gpus: names of these kinds of GPU.
        num_cpus: logical CPUs of each replica.
        num_replicas: slots, where their number is fixed.
        autoscaling: how their number follows the queue, else.
        needs_picture: whether text goes through the shared text stage first.
        capabilities: as registered.
        finish_options: names of the options that the finisher reads.
        text_options: options of the text stage, and its argument that each becomes.
    """

    name: str
    is_deployed: bool
    reason: str
    checkpoint: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    num_gpus: float = 0.0
    accelerators: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    num_cpus: float = 0.0
    num_replicas: int = 0
    autoscaling: AutoscalingArgs | None = None
    needs_picture: bool = False
    capabilities: ModelCapabilities | None = None
    finish_options: frozenset[str] = frozenset()
    text_options: dict[str, str] = field(default_factory=lambda: dict(TEXT_OPTIONS))

    @property
    def deployment_name(self) -> str:
        """Name of its Serve deployment."""
        return f"model-{self.name}"

    @property
    def first_replicas(self) -> int:
        """Replicas that are started at once."""
        return self.num_replicas if self.autoscaling is None else self.autoscaling.min_replicas

    @property
    def may_sleep(self) -> bool:
        """Whether it has no replica while nobody needs it."""
        return self.autoscaling is not None and self.autoscaling.min_replicas == 0

    @property
    def weights_license(self) -> str | None:
        """Licence of the weights; nano's are the package's own."""
        if self.checkpoint == "nano":
            return "Apache-2.0"
        return self.capabilities.license_type if self.capabilities is not None else None

    @property
    def needs_acceptance(self) -> bool:
        """Whether an administrator has to accept the licence before the model is served."""
        return self.checkpoint is not None and self.weights_license not in _FREE_LICENSES


@dataclass(frozen=True)
class TextPlan:
    """The text stage: what it loads and on what share of a GPU."""

    source: str
    num_gpus: float
    num_cpus: float
    num_replicas: int
    accelerators: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()


def plan_models(args: AppArgs, gpus: Sequence[GpuGroup]) -> list[ModelPlan]:
    """Decide on every registered model; configured ones first.

    Args:
        args: the application's arguments; their modules are imported already.
        gpus: the cluster's GPUs by kind; none without one.

    Raises:
        ModelNotFoundError: a configured model is not registered.
        InvalidConfigError: a model is to be on an accelerator that the cluster lacks.
    """
    plans = [_plan_model(model, gpus, args.placement) for model in args.models]
    configured = {plan.name for plan in plans}
    registry = ModelRegistry()
    for name in registry.list_models():
        if name not in configured:
            found = get_availability(name, vram_gb=largest_gb(gpus))
            reason = "not listed in serve_config.yaml" if found.available else found.reason
            plans.append(_left_out(name, reason))
    return plans


def _plan_model(model: ModelArgs, gpus: Sequence[GpuGroup], strategy: str) -> ModelPlan:
    site = site_model(
        model.name,
        gpus,
        checkpoint=model.checkpoint,
        strategy=strategy,
        accelerator=model.accelerator,
        num_gpus=model.num_gpus,
    )
    found, seat = site.found, site.seat
    if seat is None:
        return _left_out(model.name, found.reason)
    model_class = resolve_implementation(model.name)
    options = dict(model.options)
    if found.checkpoint is not None:
        options["checkpoint"] = found.checkpoint
    needs_picture = model_class.draws_picture_first(options)
    return ModelPlan(
        name=model.name,
        is_deployed=True,
        reason=found.reason,
        checkpoint=found.checkpoint,
        options=options,
        num_gpus=seat.share,
        accelerators=seat.accelerators,
        gpus=seat.gpus,
        num_cpus=_cpus(model.num_cpus, seat.share),
        num_replicas=model.num_replicas,
        autoscaling=model.autoscaling,
        needs_picture=needs_picture,
        capabilities=ModelRegistry().require_capabilities(model.name),
        finish_options=finisher_options(model_class.options_model()),
        text_options=text_options(model_class.options_model()) if needs_picture else {},
    )


def _left_out(name: str, reason: str) -> ModelPlan:
    capabilities = ModelRegistry().get_capabilities(name)
    return ModelPlan(name, is_deployed=False, reason=reason, capabilities=capabilities)


def plan_text(
    args: TextToImageArgs,
    models: list[ModelPlan],
    gpus: Sequence[GpuGroup],
    strategy: str = SPREAD,
) -> TextPlan | None:
    """Decide on the text stage; None where no model needs one, or nothing can be loaded.

    Without a configured source, models at full size get the pipeline of the settings, and the
    small ones the small one that ships with the package.

    Raises:
        InvalidConfigError: it is to be on an accelerator that the cluster lacks.
    """
    readers = [plan for plan in models if plan.is_deployed and plan.needs_picture]
    if not readers:
        return None
    source, needs_gb = args.source, args.min_vram_gb
    if source is None and all(plan.checkpoint == "nano" for plan in readers):
        folder = nano_folder(TEXT_TO_IMAGE)
        if folder is None:
            return None
        source, needs_gb = str(folder), NANO_VRAM_GB
    seat = choose_seat(needs_gb, gpus, strategy, args.accelerator, args.num_gpus)
    return TextPlan(
        source or get_settings().text_to_image,
        seat.share,
        _cpus(args.num_cpus, seat.share),
        args.num_replicas,
        seat.accelerators,
        seat.gpus,
    )


def find_shortage(
    plans: Sequence[ModelPlan], text: TextPlan | None, gpus: Sequence[GpuGroup]
) -> dict[str, int]:
    """Return how many of the replicas to start find no room on the GPUs, by name."""
    tenants = [
        Tenant(plan.name, Seat(plan.num_gpus, plan.gpus, plan.accelerators), plan.first_replicas)
        for plan in plans
        if plan.is_deployed
    ]
    if text is not None:
        seat = Seat(text.num_gpus, text.gpus, text.accelerators)
        tenants.append(Tenant(TEXT_TO_IMAGE, seat, text.num_replicas))
    return pack(tenants, gpus).left


def accelerator_options(accelerators: Sequence[str]) -> dict[str, Any]:
    """Return the options of a Ray actor that keep it on GPUs of these kinds."""
    if len(accelerators) > 1:
        return {"label_selector": {_ACCELERATOR_LABEL: f"in({', '.join(accelerators)})"}}
    return {"accelerator_type": accelerators[0]} if accelerators else {}


def _cpus(given: float | None, num_gpus: float) -> float:
    if given is not None:
        return given
    return _CPU_OF_GPU_MODEL if num_gpus > 0 else _CPU_OF_CPU_MODEL


def cluster_gpus(memory_gb: float | None = None) -> list[GpuGroup]:
    """Return the cluster's GPUs by kind; none without any.

    Asks NVML on every node that has GPUs; call it from a driver or a task of the cluster.

    Args:
        memory_gb: of every GPU, as configured; None to ask.

    Raises:
        InvalidConfigError: Ray counts GPUs where no NVIDIA driver answers.
    """
    nodes = [node for node in list_nodes() if node["Alive"] and node["Resources"].get("GPU", 0) > 0]
    sizes = [memory_gb] * len(nodes) if memory_gb else _ask_sizes(nodes)
    groups: dict[str | None, GpuGroup] = {}
    for node, size in zip(nodes, sizes, strict=True):
        label = node_accelerator(node["Resources"])
        count = int(node["Resources"]["GPU"])
        known = groups.get(label)
        groups[label] = GpuGroup(
            count + (known.count if known else 0),
            label or "GPU",
            min(size, known.memory_gb) if known else size,
            label,
        )
    return list(groups.values())


def node_accelerator(resources: Mapping[str, float]) -> str | None:
    """Return the most exact accelerator type of a node (A100-80G before A100), if it has one."""
    names = [name.removeprefix(_TYPE) for name in resources if name.startswith(_TYPE)]
    return max(names, key=len, default=None)


def _ask_sizes(nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    ask = ray.remote(num_cpus=0)(_node_gpu_bytes)
    asked = [
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    sizes = ray.get(asked)
    if not all(sizes):
        raise InvalidConfigError(
            "Ray counts GPUs on a node where no NVIDIA driver answers.",
            hint="Set args.gpu_memory_gb in serve_config.yaml; for a batch --gpu-memory-gb.",
        )
    return [size / _BYTES_PER_GB for size in sizes]


def _node_gpu_bytes() -> int:
    """Return the memory of this node's smallest GPU in bytes; 0 if no driver answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return min((int(pynvml.nvmlDeviceGetMemoryInfo(h).total) for h in handles), default=0)
    except pynvml.NVMLError:
        return 0
