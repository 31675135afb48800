"""The Khronos glTF validator, run through node (`make setup` installs it where npm is)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_NODE_FOLDER = Path(__file__).parents[3] / "build" / "node"
_PACKAGE = _NODE_FOLDER / "node_modules" / "gltf-validator"
_SCRIPT = """
const validator = require('gltf-validator');
const bytes = new Uint8Array(require('fs').readFileSync(0));
validator.validateBytes(bytes, {maxIssues: 100})
  .then(report => process.stdout.write(JSON.stringify(report)));
"""


def absent_reason() -> str | None:
    """Why the validator cannot run here, or None if it can."""
    if shutil.which("node") is None:
        return "node is not installed, and the glTF validator runs in it"
    if not _PACKAGE.is_dir():
        return f"{_PACKAGE} is absent; `make setup` installs it where npm and its registry are"
    return None


needs_validator = pytest.mark.skipif(absent_reason() is not None, reason=absent_reason() or "")


def validate(content: bytes) -> dict[str, Any]:
    """Return the validator's report on a GLB file."""
    done = subprocess.run(
        ["node", "-e", _SCRIPT],
        input=content,
        capture_output=True,
        check=True,
        timeout=120,
        env=os.environ | {"NODE_PATH": str(_PACKAGE.parent)},
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def problems(content: bytes) -> list[str]:
    """The validator's errors and warnings, one line each."""
    issues = validate(content)["issues"]
    assert not issues["truncated"]
    return [
        f"{message['code']} at {message.get('pointer', '?')}: {message['message']}"
        for message in issues["messages"]
        if message["severity"] <= 1
    ]
