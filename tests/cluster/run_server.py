"""Run the application on a Ray of its own until standard input is closed; prints its URL."""

from __future__ import annotations

import json
import sys

from deployments.args import AppArgs
from deployments.local import serve_locally


def main() -> None:
    settings = json.loads(sys.argv[1])
    with serve_locally(AppArgs.model_validate(settings["args"]), settings["name"]) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
