from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.routing import Match
from typer.main import get_command

from deployments.args import AppArgs
from deployments.http.api import build_api
from deployments.http.services import Services
from dream_cad.cli import app
from dream_cad.models.registry import ModelRegistry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + [
    *sorted((ROOT / "docs").rglob("*.md"))
]
TABLE = re.compile(r"<!-- models: .*? -->\n(.*?)<!-- /models -->", re.DOTALL)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def command_lines() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    indented = re.findall(r"^    (make .*)$", README, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in (*lines, *indented)]


def model_table() -> str:
    """The table as the registry has it; paste it into the README when this test asks for it."""
    rows = [
        "| model | takes | GPU GB | licence of the weights | in this version |",
        "|---|---|---|---|---|",
    ]
    registry = ModelRegistry()
    for name in registry.list_models():
        row = registry.require_capabilities(name)
        inputs = [
            word
            for word, is_taken in (
                ("text", row.supports_text_to_3d),
                ("image", row.supports_image_to_3d),
                ("several views", row.supports_multi_view),
            )
            if is_taken
        ]
        memory = f"{row.min_vram_gb:g} / {row.recommended_vram_gb:g}"
        version = "yes" if registry.get_entry(name).is_implemented else "no"
        rows.append(f"| {name} | {', '.join(inputs)} | {memory} | {row.license_type} | {version} |")
    return "\n".join(rows) + "\n"


@pytest.mark.usefixtures("clean_registry")
def test_model_table_equals_the_registry() -> None:
    found = TABLE.search(README)
    assert found is not None
    assert found[1] == model_table()


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_command_of_the_readme_exists(words: list[str]) -> None:
    program, *rest = words
    if program == "dream-cad":
        group = get_command(app)
        command = group.commands[rest[0]]  # type: ignore[attr-defined]
        command.make_context(rest[0], rest[1:])  # raises on an argument that it does not have
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert rest[0] in targets
    elif program == "curl":
        check_request(rest)
    elif program == "ray":
        assert rest[:2] == ["job", "submit"]
        module, *options = rest[rest.index("-m") + 1 :]
        job = importlib.import_module(module)
        get_command(job.app).make_context(module, options)
    elif program == "printf":
        text, arrow, name = rest
        assert text.startswith("prompt,")  # the column that a batch needs
        assert arrow == ">"
        assert f"--input {name}" in README
    else:
        assert (program, rest[0]) == ("serve", "run")
        assert (ROOT / rest[1]).is_file()


def check_request(words: list[str]) -> None:
    """The HTTP API has the path and the method of a curl command."""
    (url,) = [word for word in words if word.startswith("localhost:8000/")]
    sends = {"--json", "--data-binary", "-F"} & set(words)
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if sends else "GET"
    scope = {
        "type": "http",
        "path": url.removeprefix("localhost:8000").partition("?")[0],
        "method": method,
    }
    api = build_api(cast("Services", SimpleNamespace(args=AppArgs())))
    assert Match.FULL in [route.matches(dict(scope))[0] for route in api.routes]


def test_readme_shows_the_commands_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "exec make test" in script
    assert ["make", "test"] in command_lines()
    assert ["make", "demo"] in command_lines()


def test_python_of_the_readme_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "chair.glb").read_bytes().startswith(b"glTF")
    assert (tmp_path / "chair.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.startswith("nano ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert missing == []


def test_every_import_contract_module_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.search(r"^layers = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert layers is not None
    modules = re.findall(r"[\w.]+", re.sub(r"#.*", "", layers[1]))
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
