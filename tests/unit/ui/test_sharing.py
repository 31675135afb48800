"""``launch(share=True)``: Gradio's relay is asked for an address, and only then.

In a process of its own: Gradio leaves sockets and an event loop behind when it closes.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

SCRIPT = """
import json, sys
import gradio, httpx
from dream_cad.ui import ModelSelectionUI

asked = []

def relay(local_host, local_port, *rest, **others):
    asked.append(local_port)
    if sys.argv[2] == "gone":
        raise RuntimeError("no relay")
    return "https://abc.gradio.live"

gradio.networking.setup_tunnel = relay
interface = ModelSelectionUI("http://127.0.0.1:9").create_interface()
_, local, public = interface.launch(
    share=sys.argv[1] == "share", server_name="127.0.0.1", prevent_thread_lock=True
)
status = httpx.get(local).status_code
interface.close()
print("FOUND", json.dumps({"asked": len(asked), "public": public, "status": status}))
"""


@pytest.mark.parametrize(
    ("share", "relay", "asked", "public"),
    [
        ("alone", "there", 0, None),
        ("share", "there", 1, "https://abc.gradio.live"),
        ("share", "gone", 1, None),  # it is served on this machine all the same
    ],
)
def test_a_public_address_only_on_request(
    share: str, relay: str, asked: int, public: str | None
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, share, relay]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(run.stdout.rpartition("FOUND")[2])
    assert found == {"asked": asked, "public": public, "status": 200}
    assert ("Could not create share link" in run.stdout) is (relay == "gone")
