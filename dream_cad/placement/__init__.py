"""Which model runs on which kind of GPU, and on what share of one: builder and planner ask here."""

from __future__ import annotations

from dream_cad.placement.gpus import GpuGroup, parse_gpus, uniform
from dream_cad.placement.packing import Packing, PlacedGpu, Tenant, pack
from dream_cad.placement.seats import (
    PACK,
    SPREAD,
    STRATEGIES,
    Seat,
    Site,
    choose_seat,
    gpu_share,
    site_model,
)

__all__ = [
    "PACK",
    "SPREAD",
    "STRATEGIES",
    "GpuGroup",
    "Packing",
    "PlacedGpu",
    "Seat",
    "Site",
    "Tenant",
    "choose_seat",
    "gpu_share",
    "pack",
    "parse_gpus",
    "site_model",
    "uniform",
]
