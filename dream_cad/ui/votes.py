"""Blind votes between two meshes: A/B data, one JSON line each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dream_cad.client import Job
from dream_cad.exceptions import StorageError

Choice = Literal["a", "b", "tie"]
VOTES_FILE = "ab_votes.jsonl"


@dataclass(frozen=True)
class Side:
    """One of two meshes: its job, and what made it."""

    job: str
    model: str
    prompt: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Vote:
    """Which of two meshes somebody found better, without knowing what made them.

    Attributes:
        at: time, ISO 8601, UTC.
        a: what was shown on the left.
        b: what was shown on the right.
        choice: the better one.
    """

    at: str
    a: Side
    b: Side
    choice: Choice


def side_of(job: Job) -> Side:
    """Return what a vote remembers of a job."""
    return Side(job.id, job.model, job.prompt, job.options)


def append_vote(path: Path, vote: Vote) -> None:
    """Add a vote to a file.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(vote)) + "\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error


def read_votes(path: Path) -> list[Vote]:
    """Return all votes of a file; none if there is no file.

    Raises:
        StorageError: it cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [_vote(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} cannot be read as votes: {error}") from error


def _vote(entry: dict[str, Any]) -> Vote:
    return Vote(entry["at"], Side(**entry["a"]), Side(**entry["b"]), entry["choice"])


def tally(votes: Sequence[Vote]) -> list[tuple[str, int, int, int]]:
    """Return (model, won, lost, tied) of votes between different models, most wins first."""
    counts: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        if vote.a.model == vote.b.model:
            continue
        results = {"a": ("won", "lost"), "b": ("lost", "won"), "tie": ("tied", "tied")}
        for side, result in zip((vote.a, vote.b), results[vote.choice], strict=True):
            counts[side.model, result] += 1
    models = {model for model, _ in counts}
    rows = [(m, counts[m, "won"], counts[m, "lost"], counts[m, "tied"]) for m in models]
    return sorted(rows, key=lambda row: (-row[1], row[2], row[0]))
