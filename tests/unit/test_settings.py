from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from dream_cad.exceptions import InvalidConfigError
from dream_cad.settings import Settings, get_settings, reload_settings
from tests.conftest import SetSettings

ROOT = Path(__file__).parents[2]

ACCEPTED = [
    ("default_model", "trellis", "trellis"),
    ("precision", "fp16", "fp16"),
    ("precision", "bf16", "bf16"),
    ("checkpoint", "nano", "nano"),
    ("checkpoint", "published", "published"),
    ("model_path", "/data/models", Path("/data/models")),
    ("cache_dir", "~/somewhere", Path.home() / "somewhere"),
    ("output_dir", "/data/out", Path("/data/out")),
    ("gpu_id", "3", 3),
    ("max_workers", "4", 4),
    ("batch_size", "8", 8),
    ("log_level", "debug", "DEBUG"),
    ("log_level", "ERROR", "ERROR"),
    ("profile", "true", True),
    ("profile", "0", False),
    ("database_url", "postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
    ("text_to_image", "/data/sd", "/data/sd"),
    ("prompt_template", "photo of {prompt}", "photo of {prompt}"),
    ("matting_model", "authors/matting", "authors/matting"),
    ("max_prompt_chars", "77", 77),
    ("max_image_bytes", "1000", 1000),
    ("max_image_pixels", "1000", 1000),
    ("server", "https://meshes.example.com", "https://meshes.example.com"),
    ("api_key", "dc_1_x", SecretStr("dc_1_x")),
    ("patience_s", "0", 0.0),
]

REFUSED = [
    ("precision", "fp8"),
    ("checkpoint", "best"),
    ("gpu_id", "-1"),
    ("gpu_id", "cuda"),
    ("max_workers", "0"),
    ("max_workers", "1000"),
    ("batch_size", "0"),
    ("batch_size", "nan"),
    ("log_level", "LOUD"),
    ("profile", "perhaps"),
    ("max_prompt_chars", "0"),
    ("max_image_bytes", "0"),
    ("max_image_pixels", "-5"),
    ("patience_s", "-1"),
    ("patience_s", "inf"),
]


@pytest.mark.parametrize(("name", "text", "value"), ACCEPTED)
def test_accepted_values(set_settings: SetSettings, name: str, text: str, value: object) -> None:
    assert getattr(set_settings(**{name: text}), name) == value


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_refused_values_name_the_variable(set_settings: SetSettings, name: str, text: str) -> None:
    variable = f"DREAM_CAD_{name.upper()}"
    with pytest.raises(InvalidConfigError, match=variable) as caught:
        set_settings(**{name: text})
    assert caught.value.details == {"variable": variable}


def test_every_variable_is_covered_here() -> None:
    assert {name for name, _, _ in ACCEPTED} == set(Settings.model_fields)


def test_every_variable_is_described_and_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
    documented = re.findall(
        r"^\| `DREAM_CAD_(\w+)`", (ROOT / "docs/configuration.md").read_text("utf-8"), re.MULTILINE
    )
    assert documented == [name.upper() for name in Settings.model_fields]


def test_every_variable_is_read_by_the_product() -> None:
    source = "\n".join(
        path.read_text("utf-8")
        for folder in ("dream_cad", "deployments")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "settings.py"
    )
    unread = [
        name
        for name in Settings.model_fields
        if not re.search(rf"settings(\(\))?\.{name}\b", source)
    ]
    assert unread == []


def test_defaults_work_on_a_machine_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DREAM_CAD_OUTPUT_DIR")
    monkeypatch.delenv("DREAM_CAD_CACHE_DIR")
    settings = reload_settings()
    assert settings.default_model == "triposr"
    assert settings.checkpoint == "auto"
    assert settings.output_dir == Path("outputs")
    assert settings.cache_dir == Path.home() / ".cache" / "dream_cad"


def test_settings_are_read_once_until_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_settings()
    monkeypatch.setenv("DREAM_CAD_GPU_ID", "5")
    assert get_settings() is first
    assert reload_settings().gpu_id == 5


def test_unknown_variables_are_left_alone(set_settings: SetSettings) -> None:
    assert set_settings(no_such_thing=1).gpu_id == 0


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        get_settings().gpu_id = 1  # type: ignore[misc]


def test_max_workers_is_how_many_meshes_a_server_finishes_at_once(
    set_settings: SetSettings,
) -> None:
    from deployments.args import FinisherArgs

    assert FinisherArgs().concurrency == 2
    set_settings(max_workers=5)
    assert FinisherArgs().concurrency == 5
    assert FinisherArgs(concurrency=3).concurrency == 3


def test_database_url_is_where_the_queue_keeps_its_jobs(
    set_settings: SetSettings, tmp_path: Path
) -> None:
    from dream_cad.queue.database import default_database_url

    set_settings(output_dir=tmp_path)
    assert default_database_url() == f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    set_settings(database_url="sqlite:////elsewhere/jobs.sqlite3")
    assert default_database_url() == "sqlite:////elsewhere/jobs.sqlite3"
