from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.args import AppArgs

CONFIG = Path(__file__).parents[3] / "serve_config.yaml"


def test_the_shipped_config_is_valid_and_local() -> None:
    raw = yaml.safe_load(CONFIG.read_text())
    config = ServeDeploySchema.model_validate(raw)
    assert config.http_options.host == "127.0.0.1"
    assert raw["http_options"]["host"] == "127.0.0.1"
    (application,) = config.applications
    assert application.import_path == "deployments.app:build_app"
    args = AppArgs.model_validate(application.args)
    assert [model.name for model in args.models] == ["triposr"]
    assert raw["http_options"]["request_timeout_s"] > args.limits.max_wait_s


def test_defaults_serve_the_default_model() -> None:
    args = AppArgs()
    assert [model.name for model in args.models] == ["triposr"]
    assert args.limits.max_attempts == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []},
        {"models": [{"name": "triposr"}, {"name": "triposr"}]},
        {"models": [{"name": ""}]},
        {"models": [{"name": "triposr", "replicas": 2}]},
        {"models": [{"name": "triposr", "num_replicas": 0}]},
        {"model": []},
        {"limits": {"max_pending": 0}},
        {"limits": {"job_timeout_s": float("nan")}},
        {"queue": {"lease_s": 0}},
        {"gpu_memory_gb": -1},
    ],
)
def test_wrong_arguments_stop_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AppArgs.model_validate(wrong)
