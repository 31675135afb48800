"""What is deployed, decided when the application is built: which models, on what share of a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.args import AppArgs, AutoscalingArgs, ModelArgs, TextToImageArgs
from deployments.calls import list_nodes
from deployments.options import TEXT_OPTIONS, finisher_options, text_options
from dream_cad.checkpoints import TEXT_TO_IMAGE, nano_folder
from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.availability import ModelAvailability, get_availability
from dream_cad.models.base import ModelCapabilities
from dream_cad.models.registry import ModelRegistry, resolve_implementation
from dream_cad.settings import get_settings

_BYTES_PER_GB = 10**9
_CPU_OF_GPU_MODEL = 1.0
_CPU_OF_CPU_MODEL = 0.25  # bookkeeping: a laptop of one core must hold all deployments
_NANO_VRAM_GB = 1.0
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


def plan_models(args: AppArgs, gpu_gb: float) -> list[ModelPlan]:
    """Decide on every registered model; configured ones first.

    Args:
        args: the application's arguments; their modules are imported already.
        gpu_gb: memory of the cluster's smallest GPU in GB, 0 without one.

    Raises:
        ModelNotFoundError: a configured model is not registered.
    """
    plans = [_plan_model(model, gpu_gb) for model in args.models]
    configured = {plan.name for plan in plans}
    registry = ModelRegistry()
    for name in registry.list_models():
        if name not in configured:
            found = get_availability(name, vram_gb=gpu_gb)
            reason = "not listed in serve_config.yaml" if found.available else found.reason
            plans.append(_left_out(name, reason))
    return plans


def _plan_model(model: ModelArgs, gpu_gb: float) -> ModelPlan:
    found = _availability(model, gpu_gb)
    if not found.available:
        return _left_out(model.name, found.reason)
    registry = ModelRegistry()
    capabilities = registry.require_capabilities(model.name)
    needs_gb = capabilities.min_vram_gb if found.checkpoint != "nano" else _NANO_VRAM_GB
    num_gpus = model.num_gpus
    if num_gpus is None:
        num_gpus = gpu_share(needs_gb, gpu_gb) if gpu_gb else 0.0
    model_class = resolve_implementation(model.name)
    options = dict(model.options)
    if found.checkpoint is not None:
        options["checkpoint"] = found.checkpoint
    return ModelPlan(
        name=model.name,
        is_deployed=True,
        reason=found.reason,
        checkpoint=found.checkpoint,
        options=options,
        num_gpus=num_gpus,
        num_cpus=_cpus(model.num_cpus, num_gpus),
        num_replicas=model.num_replicas,
        autoscaling=model.autoscaling,
        needs_picture=model_class.text_through_image,
        capabilities=capabilities,
        finish_options=finisher_options(model_class.options_model()),
        text_options=text_options(model_class.options_model()),
    )


def _availability(model: ModelArgs, gpu_gb: float) -> ModelAvailability:
    found = get_availability(model.name, vram_gb=gpu_gb)
    choice = model.checkpoint
    if choice in (None, "auto") or not ModelRegistry().get_entry(model.name).is_implemented:
        return found
    if choice == "nano" and nano_folder(model.name) is None:
        return ModelAvailability(False, None, "no nano checkpoint is shipped for it", None)
    return ModelAvailability(True, choice, f"checkpoint {choice}, as configured", None)


def _left_out(name: str, reason: str) -> ModelPlan:
    capabilities = ModelRegistry().get_capabilities(name)
    return ModelPlan(name, is_deployed=False, reason=reason, capabilities=capabilities)


def plan_text(args: TextToImageArgs, models: list[ModelPlan], gpu_gb: float) -> TextPlan | None:
    """Decide on the text stage; None where no model needs one, or nothing can be loaded.

    Without a configured source, models at full size get the pipeline of the settings, and the
    small ones the small one that ships with the package.
    """
    readers = [plan for plan in models if plan.is_deployed and plan.needs_picture]
    if not readers:
        return None
    source, needs_gb = args.source, args.min_vram_gb
    if source is None and all(plan.checkpoint == "nano" for plan in readers):
        folder = nano_folder(TEXT_TO_IMAGE)
        if folder is None:
            return None
        source, needs_gb = str(folder), _NANO_VRAM_GB
    num_gpus = args.num_gpus
    if num_gpus is None:
        num_gpus = gpu_share(needs_gb, gpu_gb) if gpu_gb else 0.0
    return TextPlan(
        source or get_settings().text_to_image,
        num_gpus,
        _cpus(args.num_cpus, num_gpus),
        args.num_replicas,
    )


def gpu_share(needs_gb: float, gpu_gb: float) -> float:
    """Return the share of a GPU that holds ``needs_gb``, rounded up to 1/100.

    More than one GPU's memory gives whole GPUs.
    """
    share = math.ceil(100 * needs_gb / gpu_gb - 1e-9) / 100
    return share if share <= 1 else float(math.ceil(share))


def _cpus(given: float | None, num_gpus: float) -> float:
    if given is not None:
        return given
    return _CPU_OF_GPU_MODEL if num_gpus > 0 else _CPU_OF_CPU_MODEL


def cluster_gpu_gb() -> float:
    """Return the memory of the cluster's smallest GPU in GB (10^9 bytes); 0 without GPUs.

    Asks NVML on every node that has GPUs; call it from a driver or a task of the cluster.

    Raises:
        InvalidConfigError: Ray counts GPUs where no NVIDIA driver answers.
    """
    nodes = [node for node in list_nodes() if node["Alive"] and node["Resources"].get("GPU", 0) > 0]
    if not nodes:
        return 0.0
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
            hint="Set args.gpu_memory_gb in serve_config.yaml.",
        )
    return float(min(sizes)) / _BYTES_PER_GB


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
