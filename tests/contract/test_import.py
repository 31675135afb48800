from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "diffusers", "ray", "trimesh", "cv2", "sqlalchemy", "pyarrow")


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import dream_cad",
        "from dream_cad import ModelFactory; ModelFactory.list_available_models()",
        "from dream_cad.models.registry import ModelRegistry; "
        "ModelRegistry().get_models_for_vram(8.0)",
        "from dream_cad.utils import validate_prompt; validate_prompt('a chair')",
        "from dream_cad.client import AsyncClient, Client; Client().close()",
        "import dream_cad.exceptions, dream_cad.settings, dream_cad.models.base",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert modules_after(code).isdisjoint(HEAVY)


def test_benchmarks_import_mlflow_and_networks_only_when_used() -> None:
    found = modules_after("import dream_cad.benchmark, dream_cad.benchmark.tracking")
    assert found.isdisjoint({"mlflow", "torch", "transformers", "ray"})


def test_version() -> None:
    import dream_cad

    assert dream_cad.__version__ == "1.0.0"


def test_unknown_attribute() -> None:
    import dream_cad

    with pytest.raises(AttributeError, match="no attribute 'ModelFactroy'"):
        dream_cad.ModelFactroy  # noqa: B018
