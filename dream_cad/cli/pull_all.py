"""``dream-cad pull --all --to DIR``: a mirror of every published weight, for machines offline.

The mirror is what DREAM_CAD_MODEL_PATH expects: a folder for each model in the published layout,
and one for each repository of the text and matting stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import typer
from rich.filesize import decimal

from dream_cad.cli.console import download_bar, show_error
from dream_cad.cli.pull_show import fetch_plan, show_license, show_plan, show_stage
from dream_cad.cli.pull_stage import STAGES, stage_source
from dream_cad.exceptions import DreamCadError
from dream_cad.images.hub import download_repository, list_repository, split_source
from dream_cad.models.download import CheckpointDownloader, LicenseFile
from dream_cad.models.registry import ModelRegistry
from dream_cad.models.weights import PUBLISHED


@dataclass(frozen=True)
class _Parcel:
    """One folder of the mirror: what fetching takes, and how it is done."""

    name: str
    folder: Path
    size: int
    licenses: tuple[LicenseFile, ...]
    fetch: Callable[[], object]


@dataclass
class _Mirror:
    """What can be pulled, and why the rest cannot."""

    parcels: list[_Parcel] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def plan(self, name: str, make: Callable[[], _Parcel]) -> None:
        """Add a parcel, or the reason why there is none."""
        try:
            self.parcels.append(make())
        except DreamCadError as error:
            self.failed[name] = str(error)

    def fetch(self, parcel: _Parcel) -> None:
        """Fetch a parcel; a failure leaves the others alone."""
        try:
            parcel.fetch()
            for license in parcel.licenses:
                license.write(parcel.folder)
            typer.echo(f"{parcel.name}: {parcel.folder}", err=True)
        except DreamCadError as error:
            self.failed[parcel.name] = str(error)


def pull_all(root: Path, *, latest: bool, yes: bool) -> bool:
    """Fetch everything that is published into ``root``; an earlier run's work is continued.

    Sizes and licences are shown first. What cannot be pulled is named with its reason, and does
    not keep the others from being pulled.

    Returns:
        Whether everything that is published was pulled.
    """
    mirror = _Mirror()
    with closing(CheckpointDownloader()) as downloader:
        _plan_models(mirror, downloader, root, latest=latest)
        _plan_stages(mirror, downloader, root)
        total = sum(parcel.size for parcel in mirror.parcels)
        if total and not yes:
            typer.confirm(f"Fetch up to {decimal(total)}?", abort=True, err=True)
        for parcel in mirror.parcels:
            mirror.fetch(parcel)
    for name, reason in (mirror.missing | mirror.failed).items():
        show_error(f"{name} was not pulled: {reason}")
    typer.echo(root)
    return not mirror.failed


def _plan_models(
    mirror: _Mirror, downloader: CheckpointDownloader, root: Path, *, latest: bool
) -> None:
    for name in ModelRegistry().list_models():
        if name not in PUBLISHED:
            mirror.missing[name] = "this version knows no published weights of it"
    # Those of models, and what is pulled under a name of its own, as the texture networks.
    for name in PUBLISHED:
        make = partial(_model_parcel, downloader, name, root / name, latest=latest)
        mirror.plan(name, make)


def _model_parcel(
    downloader: CheckpointDownloader, name: str, folder: Path, *, latest: bool
) -> _Parcel:
    plan = downloader.plan(name, folder, latest=latest)
    show_plan(plan)
    found = tuple(_licenses(downloader, plan.revisions))

    def fetch() -> None:
        with download_bar() as bar:
            fetch_plan(downloader, plan, bar)

    return _Parcel(name, folder, plan.bytes_to_fetch, found, fetch)


def _plan_stages(mirror: _Mirror, downloader: CheckpointDownloader, root: Path) -> None:
    for stage in STAGES:
        source, patterns = stage_source(stage)
        if Path(source).expanduser().exists():
            mirror.missing[stage] = f"{source} is on this machine already: copy it"
            continue
        mirror.plan(
            stage,
            partial(_stage_parcel, downloader, stage, source, patterns, root),
        )


def _stage_parcel(
    downloader: CheckpointDownloader, stage: str, source: str, patterns: tuple[str, ...], root: Path
) -> _Parcel:
    repository, revision = split_source(source)
    sizes = list_repository(source, patterns=patterns)
    show_stage(stage, source, sizes)
    found = tuple(_licenses(downloader, {repository: revision}))
    folder = root / repository.rpartition("/")[2]
    size = sum(sizes.values())
    fetch = lambda: download_repository(source, patterns=patterns, folder=folder)  # noqa: E731
    return _Parcel(stage, folder, size, found, fetch)


def _licenses(
    downloader: CheckpointDownloader, revisions: Mapping[str, str | None]
) -> Iterator[LicenseFile]:
    """Show the licences of repositories; yield them, of a second repository by another name."""
    names: set[str] = set()
    for repository, revision in revisions.items():
        found = downloader.read_license(repository, revision)
        show_license(found, repository)
        if found is not None:
            of = repository.rpartition("/")[2]
            yield found if found.name not in names else replace(found, name=f"{found.name}-{of}")
            names.add(found.name)
