"""A replica killed in the middle of a long optimisation: the job goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import app_args, serving, until
from tests.cluster.tiny_sds_model import OPTIONS
from tests.tiny_mvdream import PROMPT, write_checkpoint

STEPS = 60


@pytest.mark.long
def test_a_killed_replica_loses_only_the_steps_since_the_checkpoint(tmp_path: Path) -> None:
    weights, log = write_checkpoint(tmp_path / "weights"), tmp_path / "log"
    options = {"folder": str(weights), "log": str(log), "steps": STEPS}
    args = app_args(
        tmp_path,
        models=[{"name": "tiny-sds", "options": options}],
        modules=["tests.cluster.tiny_sds_model"],
    )
    with serving(tmp_path, args) as server:
        job_id = server.submit(PROMPT, **OPTIONS)
        shown = until(lambda: server.get(job_id)["links"]["preview"], "a preview")
        assert server.client.get(shown).content.startswith(b"\x89PNG")
        server.kill_replica("model-tiny-sds")
        job = server.ended(job_id)
        assert (job["status"], job["attempts"]) == ("completed", 2), job["error"]
        begun = [int(line) for line in log.read_text().splitlines()]
        assert begun[0] == 0
        assert begun[-1] >= 4
        assert server.client.get(job["links"]["preview"]).content.startswith(b"\x89PNG")
        names = {file["name"] for file in server.client.get(job["links"]["files"]).json()["files"]}
        assert "views.png" in names
