"""``dream-cad doctor``: what this machine has, what it can run, and why not."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import psutil
import pynvml
import typer
from rich.table import Table

from dream_cad.checkpoints import TEXT_TO_IMAGE, nano_folder
from dream_cad.cli.console import output_console, show_json
from dream_cad.cli.models import describe_model
from dream_cad.gpu import get_total_vram
from dream_cad.models.registry import ModelRegistry
from dream_cad.models.weights import PUBLISHED, find_published
from dream_cad.settings import get_settings

SERVER_PORTS = (("HTTP API", 8000), ("Ray dashboard", 8265))
MIN_FREE_BYTES = 2 * 10**9

_GB = 1e9


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, whether it is well, and what was found."""

    name: str
    is_good: bool
    found: str


def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at this machine; the exit code is 1 where the default model cannot run."""
    vram_gb = get_total_vram()
    checks = collect_checks(vram_gb)
    rows = [describe_model(name, vram_gb) for name in ModelRegistry().list_models()]
    if json_output:
        show_json({"checks": [asdict(check) for check in checks], "models": rows})
    else:
        _print_checks(checks)
        for row in rows:
            availability = row["availability"]
            verdict = "runs here" if availability["available"] else "does not run here"
            typer.echo(f"{row['name']}: {verdict}: {availability['reason']}")
    default = get_settings().default_model
    chosen = [row for row in rows if row["name"] == default]
    if not chosen or not chosen[0]["availability"]["available"]:
        raise typer.Exit(1)


def collect_checks(vram_gb: float) -> list[Check]:
    """Return every check, in the order of the report.

    Args:
        vram_gb: GPU memory that CUDA gives this process, in GB.
    """
    settings = get_settings()
    return [
        Check("python", True, f"{platform.python_version()} on {platform.platform(terse=True)}"),
        _check_package("torch", is_needed=True),
        Check("CUDA", True, f"{vram_gb:.1f} GB for this process" if vram_gb else "not usable"),
        *_check_gpus(),
        _check_memory(),
        _check_disk("cache", settings.cache_dir),
        _check_disk("output", settings.output_dir),
        _check_package("ray", is_needed=False),
        _check_nano(),
        *(_check_published(name) for name in PUBLISHED),
        *(_check_port(what, port) for what, port in SERVER_PORTS),
    ]


def _check_package(name: str, *, is_needed: bool) -> Check:
    try:
        found = version(name) if importlib.util.find_spec(name) else None
    except PackageNotFoundError:
        found = None
    text = found or "not installed" + ("" if is_needed else " (needed for serving only)")
    return Check(name, found is not None or not is_needed, text)


def _check_gpus() -> list[Check]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [Check("GPU", True, f"none found by NVML ({error})")]
    try:
        return [_describe_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _describe_gpu(index: int) -> Check:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:  # devices with unified memory do not tell
        return Check(f"GPU {index}", True, f"{name}, memory unknown ({error})")
    found = f"{name}, {memory.total / _GB:.1f} GB, {memory.free / _GB:.1f} GB free"
    return Check(f"GPU {index}", True, found)


def _check_memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.total / _GB:.1f} GB, {memory.available / _GB:.1f} GB free"
    cores = psutil.cpu_count() or 1
    return Check("memory", memory.available >= MIN_FREE_BYTES, f"{found}; {cores} CPU cores")


def _check_disk(name: str, folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Check(f"{name} folder", free >= MIN_FREE_BYTES, f"{folder}, {free / _GB:.1f} GB free")


def _check_nano() -> Check:
    names = [*ModelRegistry().list_models(), TEXT_TO_IMAGE]
    shipped = [name for name in names if nano_folder(name) is not None]
    return Check("nano weights", bool(shipped), ", ".join(shipped) or "none in this installation")


def _check_published(name: str) -> Check:
    folder = find_published(name)
    found = str(folder) if folder else f"not here; 'dream-cad pull {name}' fetches them"
    return Check(f"{name} weights", True, found)


def _check_port(what: str, port: int) -> Check:
    with socket.socket() as probe:
        is_taken = probe.connect_ex(("127.0.0.1", port)) == 0
    return Check(f"port {port}", True, f"{'in use' if is_taken else 'free'} ({what})")


def _print_checks(checks: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        table.add_row("ok" if check.is_good else "!!", check.name, check.found)
    output_console().print(table)
