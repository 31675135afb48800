from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dream_cad.models import registry
from dream_cad.settings import Settings, get_settings, reload_settings
from tests.postgres import TEMPLATE, PostgresServer, find_binaries

SetSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No DREAM_CAD_* of the developer's shell reaches a test; outputs go to its own folder."""
    for name in [name for name in os.environ if name.startswith("DREAM_CAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DREAM_CAD_OUTPUT_DIR", str(tmp_path / "outputs"))
    monkeypatch.setenv("DREAM_CAD_CACHE_DIR", str(tmp_path / "cache"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def set_settings(monkeypatch: pytest.MonkeyPatch) -> SetSettings:
    """Set DREAM_CAD_<KEY> for each keyword and read the settings again."""

    def apply(**values: object) -> Settings:
        for name, value in values.items():
            monkeypatch.setenv(f"DREAM_CAD_{name.upper()}", str(value))
        return reload_settings()

    return apply


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of its own, with the built-in models alone; the process's table comes back after."""
    monkeypatch.setattr(registry, "_table", registry.Table())


@pytest.fixture
def without_code(clean_registry: None) -> Callable[[str], None]:
    """Take the implementation of a built-in model out of the test's own table."""

    def take_out(name: str) -> None:
        entries = registry._table.entries
        entries[name] = replace(entries[name], implementation=None)

    return take_out


@pytest.fixture(scope="session")
def tiny_text_to_image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers text-to-image folder with random weights; shared, so do not change it."""
    from tests.tiny_pipeline import save_tiny_pipeline  # only here: it imports torch

    return save_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session, with a database that has the queue's schema."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql-15)")
    from dream_cad.queue import JobQueue

    with PostgresServer(binaries) as server:
        JobQueue(server.create_database(TEMPLATE)).close()
        yield server
