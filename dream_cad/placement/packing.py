"""Where replicas find room: large shares first, each on the fullest GPU that still holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dream_cad.placement.gpus import GpuGroup
from dream_cad.placement.seats import Seat

_HUNDRED = 100


@dataclass(frozen=True)
class Tenant:
    """Something that wants replicas on GPUs."""

    name: str
    seat: Seat
    replicas: int


@dataclass
class PlacedGpu:
    """One GPU and what is on it.

    Attributes:
        kind: name of its group.
        number: from 1, within its group.
        free: hundredths of it that nobody has.
        holds: replicas by name.
    """

    kind: str
    number: int
    free: int = _HUNDRED
    holds: Counter[str] = field(default_factory=Counter)

    def take(self, name: str, hundredths: int) -> None:
        """Put one replica on it."""
        self.free -= hundredths
        self.holds[name] += 1


@dataclass(frozen=True)
class Packing:
    """What was placed.

    Attributes:
        gpus: every GPU of the cluster, in the order of the groups.
        placed: replicas that found room, by name.
        left: those that did not, by name.
    """

    gpus: list[PlacedGpu]
    placed: dict[str, int]
    left: dict[str, int]


def pack(tenants: Sequence[Tenant], groups: Sequence[GpuGroup]) -> Packing:
    """Place replicas on GPUs; those on CPUs (share 0) always find room.

    The largest shares go first (first-fit decreasing), so that small ones do not take the last
    whole GPU; each goes where the least stays free, and to the smaller kind where that is equal.
    A share of 2 or more takes empty GPUs of one kind.
    """
    gpus = [PlacedGpu(group.name, number + 1) for group in groups for number in range(group.count)]
    memory = {group.name: group.memory_gb for group in groups}
    placed: Counter[str] = Counter()
    for tenant in sorted(tenants, key=lambda one: -one.seat.share):
        for _ in range(tenant.replicas):
            if tenant.seat.share > 0 and not _place(tenant, gpus, memory):
                break
            placed[tenant.name] += 1
    left = {one.name: one.replicas - placed[one.name] for one in tenants}
    return Packing(gpus, dict(placed), {name: count for name, count in left.items() if count})


def _place(tenant: Tenant, gpus: list[PlacedGpu], memory: dict[str, float]) -> bool:
    share = tenant.seat.share
    if share > 1:
        return _place_whole(tenant, gpus, round(share))
    hundredths = round(share * _HUNDRED)
    fitting = [gpu for gpu in gpus if gpu.kind in tenant.seat.gpus and gpu.free >= hundredths]
    if not fitting:
        return False
    min(fitting, key=lambda gpu: (gpu.free, memory[gpu.kind])).take(tenant.name, hundredths)
    return True


def _place_whole(tenant: Tenant, gpus: list[PlacedGpu], count: int) -> bool:
    for kind in tenant.seat.gpus:
        empty = [gpu for gpu in gpus if gpu.kind == kind and gpu.free == _HUNDRED]
        if len(empty) >= count:
            for gpu in empty[:count]:
                gpu.take(tenant.name, _HUNDRED)
            return True
    return False
