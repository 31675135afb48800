from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; sys.argv[0] = 'dream-cad'; from dream_cad.cli import main; main()"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dream-cad su", ["submit"]),
        ("dream-cad submit x --priority ", ["low", "normal", "high", "urgent"]),
        ("dream-cad generate --model tripo", ["triposr"]),
    ],
)
def test_shells_complete_commands_options_and_models(words: str, expected: list[str]) -> None:
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_DREAM_CAD_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected
