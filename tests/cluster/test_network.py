"""The network between the router and the only worker is cut and healed, on two real Ray nodes."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.cluster.conftest import DEADLINE_S, Server, until
from tests.cluster.namespaces import two_nodes, why_not
from tests.cluster.test_nodes import FRESH, check_each_ended_once, nodes, serving_args, slots

pytestmark = pytest.mark.long


def test_a_cut_network_loses_and_doubles_nothing(tmp_path: Path) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"no network namespaces here: {reason}")
    with (
        two_nodes(tmp_path) as pair,
        nodes(tmp_path, serving_args(tmp_path, 1), address=pair.address) as app,
        httpx.Client(base_url=app.url, timeout=DEADLINE_S, limits=FRESH) as client,
    ):
        server = Server(client, tmp_path, None, app.process.pid)
        until(lambda: slots(server) == 1, "the worker serves")
        first = server.submit("before the cut")
        assert server.ended(first)["status"] == "completed"
        hold = server.hold()
        running = server.submit("at work during the cut", hold=str(hold))
        server.until(running, "running", stage="holding")
        behind = server.submit("behind it")
        pair.link.cut()
        # Ray gives the node up, and the router its job: it waits for another replica.
        server.until(running, "pending")
        hold.unlink()  # the lost replica ends its job, and can tell nobody
        pair.link.heal()
        pair.start_worker()
        jobs = [server.ended(job_id) for job_id in (running, behind)]
        assert [job["status"] for job in jobs] == ["completed", "completed"]
        assert [job["attempts"] for job in jobs] == [2, 1]
        check_each_ended_once(tmp_path, 3)
