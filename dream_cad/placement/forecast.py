"""What would run where under a load, and why something cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dream_cad.checkpoints import TEXT_TO_IMAGE
from dream_cad.exceptions import DreamCadError
from dream_cad.models.registry import ModelRegistry, resolve_implementation
from dream_cad.placement.gpus import GpuGroup
from dream_cad.placement.load import Load, ModelLoad
from dream_cad.placement.packing import Packing, PlacedGpu, Tenant, pack
from dream_cad.placement.seats import SPREAD, Seat, choose_seat, site_model

_HUNDRED = 100


@dataclass(frozen=True)
class Line:
    """What becomes of one model or of the text stage.

    Attributes:
        name: of the model.
        seat: kinds of GPU and share of each replica; None if it runs nowhere.
        checkpoint: its weights.
        seconds: of a job.
        jobs_per_hour: asked for.
        capacity_per_hour: what the replicas that found room do when they are always busy.
        replicas: wanted.
        placed: that found room.
        reason: why it does not run, or not all of it; None if all is well.
    """

    name: str
    seat: Seat | None
    checkpoint: str | None = None
    seconds: float = 0.0
    jobs_per_hour: float = 0.0
    capacity_per_hour: float = 0.0
    replicas: int = 0
    placed: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Forecast:
    """A plan.

    Attributes:
        lines: of the models in the order of the load, and of the text stage if there is one.
        gpus: every GPU and what it holds.
    """

    lines: list[Line]
    gpus: list[PlacedGpu]

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for runs."""
        return all(line.reason is None for line in self.lines)


@dataclass(frozen=True)
class _Wish:
    name: str
    seat: Seat
    checkpoint: str | None
    seconds: float
    jobs_per_hour: float
    replicas: int


def forecast(load: Load, groups: Sequence[GpuGroup], strategy: str = SPREAD) -> Forecast:
    """Plan a load on the GPUs of a cluster, by the rules of the deployment builder."""
    wishes: list[_Wish | Line] = [_wish(model, load, groups, strategy) for model in load.models]
    text = _text_wish(load, wishes, groups, strategy)
    wishes += [text] if text is not None else []
    tenants = [Tenant(one.name, one.seat, one.replicas) for one in wishes if isinstance(one, _Wish)]
    packing = pack(tenants, groups)
    lines = [
        one if isinstance(one, Line) else _line(one, packing, groups, strategy) for one in wishes
    ]
    return Forecast(lines, packing.gpus)


def _wish(model: ModelLoad, load: Load, groups: Sequence[GpuGroup], strategy: str) -> _Wish | Line:
    try:
        site = site_model(
            model.name,
            groups,
            checkpoint=model.checkpoint,
            strategy=strategy,
            accelerator=model.accelerator,
            num_gpus=model.num_gpus,
        )
        if site.seat is None:
            return Line(model.name, None, reason=site.found.reason)
        capabilities = ModelRegistry().require_capabilities(model.name)
        if site.found.checkpoint == "published" and _is_too_large(
            capabilities.min_vram_gb, model, groups
        ):
            sizes = ", ".join(f"{group.name} has {group.memory_gb:g}" for group in groups)
            needs = f"needs {capabilities.min_vram_gb:g} GB of GPU memory"
            return Line(model.name, None, reason=f"{needs}; {sizes or 'there is no GPU'}")
        seconds = model.seconds_on(site.seat.gpus, capabilities.typical_generation_time)
    except DreamCadError as error:
        return Line(model.name, None, reason=str(error))
    replicas = model.replicas
    if replicas is None:
        replicas = load.replicas_for(model.jobs_per_hour, seconds)
    return _Wish(
        model.name, site.seat, site.found.checkpoint, seconds, model.jobs_per_hour, replicas
    )


def _is_too_large(needs_gb: float, model: ModelLoad, groups: Sequence[GpuGroup]) -> bool:
    """Tell whether no kind holds it; the built-in models do not divide themselves over GPUs."""
    return model.num_gpus is None and not any(group.memory_gb >= needs_gb for group in groups)


def _text_wish(
    load: Load, wishes: Sequence[_Wish | Line], groups: Sequence[GpuGroup], strategy: str
) -> _Wish | Line | None:
    running = {one.name: one.checkpoint for one in wishes if isinstance(one, _Wish)}
    jobs = [
        model.jobs_per_hour * model.from_text
        for model in load.models
        if model.name in running
        and model.from_text > 0
        and _draws_picture_first(model.name, running[model.name])
    ]
    if not jobs:
        return None
    text = load.text_to_image
    try:
        seat = choose_seat(text.min_vram_gb, groups, strategy, text.accelerator)
    except DreamCadError as error:
        return Line(TEXT_TO_IMAGE, None, reason=str(error))
    replicas = text.replicas
    if replicas is None:
        replicas = load.replicas_for(sum(jobs), text.seconds)
    return _Wish(TEXT_TO_IMAGE, seat, None, text.seconds, sum(jobs), replicas)


def _draws_picture_first(name: str, checkpoint: str | None) -> bool:
    """Tell whether text goes through the text stage: not where the weights read it themselves."""
    options = {} if checkpoint is None else {"checkpoint": checkpoint}
    return resolve_implementation(name).draws_picture_first(options)


def _line(wish: _Wish, packing: Packing, groups: Sequence[GpuGroup], strategy: str) -> Line:
    placed = packing.placed.get(wish.name, 0)
    capacity = placed * 3600 / wish.seconds
    reason = None
    if placed < wish.replicas:
        reason = _shortage(wish, placed, packing, groups, strategy)
    elif wish.jobs_per_hour > capacity:
        reason = f"{placed} replicas do {capacity:,.0f} jobs an hour; raise replicas"
    return Line(
        wish.name,
        wish.seat,
        wish.checkpoint,
        wish.seconds,
        wish.jobs_per_hour,
        capacity,
        wish.replicas,
        placed,
        reason,
    )


def _shortage(
    wish: _Wish, placed: int, packing: Packing, groups: Sequence[GpuGroup], strategy: str
) -> str:
    """Say which GPUs are full, where there would be room, and what would do."""
    seat = wish.seat
    missing = wish.replicas - placed
    text = f"{missing} of {wish.replicas} replicas of {seat.share:g} GPU find no room: "
    text += ", ".join(_room(kind, packing) for kind in seat.gpus)
    others = [group.name for group in groups if group.name not in seat.gpus]
    hundredths = round(min(seat.share, 1) * _HUNDRED)
    roomy = [gpu.kind for gpu in packing.gpus if gpu.kind in others and gpu.free >= hundredths]
    if roomy and strategy != SPREAD:
        kinds = ", ".join(sorted(set(roomy)))
        return f"{text}. There is room on {kinds}: --strategy {SPREAD}"
    per_gpu = max(1, _HUNDRED // max(hundredths, 1))
    more = -(-missing // per_gpu) if seat.share <= 1 else missing * round(seat.share)
    return f"{text}. {more} more {seat.gpus[0]} would do"


def _room(kind: str, packing: Packing) -> str:
    gpus = [gpu for gpu in packing.gpus if gpu.kind == kind]
    return f"the {len(gpus)} {kind} have {max(gpu.free for gpu in gpus) / _HUNDRED:g} free at most"
