from __future__ import annotations

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as build

from deployments import app
from deployments.args import AppArgs


def test_serve_run_turns_the_yaml_into_typed_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReachedError(Exception):
        pass

    def stop(modules: list[str]) -> None:
        raise ReachedError(modules)

    monkeypatch.setattr(app, "import_modules", stop)
    with pytest.raises(ReachedError, match="some_module"):
        build(app.build_app, {"models": [{"name": "triposr"}], "modules": ["some_module"]})
    with pytest.raises(Exception, match="no_such_argument"):
        build(app.build_app, {"no_such_argument": 1})
    assert app.build_app.__annotations__["args"] is AppArgs
