"""Every curl of docs/http.md, run in order against the running application."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.cluster.conftest import Server
from tests.cluster.test_jobs import png

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
LOCAL = "http://127.0.0.1:8000"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_STRICT = """
set -euo pipefail
curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }
"""


def _adapt(script: str, hold: str) -> str:
    """Name the model that is served here; let the job that is cancelled wait for it."""
    assert "||" not in script
    lamp = '{"prompt": "a lamp", "priority": "low"}'
    assert script.count(lamp) == 1
    held = {"prompt": "a lamp", "priority": "low", "options": {"hold": hold}}
    return script.replace(lamp, json.dumps(held)).replace('"triposr"', '"echo"')


def test_every_curl_of_the_page_works(server: Server, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    script = _adapt("\n".join(blocks), str(server.hold()))
    assert script.count("curl ") > 25
    base = str(server.client.base_url).rstrip("/")
    (tmp_path / "chair.png").write_bytes(png())
    (tmp_path / "prompts.csv").write_text("prompt,priority\na red cube,high\na blue cube,\n")
    done = subprocess.run(
        ["bash", "-x", "-c", _STRICT + script.replace(LOCAL, base)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-3000:])
    assert (tmp_path / "chair.glb").read_bytes()[:4] == b"glTF"
    assert (tmp_path / "batch.zip").read_bytes()[:2] == b"PK"
    assert (tmp_path / "p1.glb").read_bytes()[:4] == b"glTF"
