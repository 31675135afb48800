from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dream_cad.client import Batch, BatchItem, Job
from dream_cad.exceptions import StorageError
from dream_cad.ui.charts import bars_svg, per_minute
from dream_cad.ui.lists import items_html, jobs_html, title
from dream_cad.ui.votes import Choice, Side, Vote, append_vote, read_votes, tally

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def vote(a: str, b: str, choice: Choice) -> Vote:
    return Vote("2026-01-01", Side("1", a, "x", {"seed": 1}), Side("2", b, "x", {}), choice)


def test_votes_are_counted_by_model(tmp_path: Path) -> None:
    path = tmp_path / "new" / "votes.jsonl"
    assert read_votes(path) == []
    votes = [
        vote("triposr", "trellis", "b"),
        vote("trellis", "triposr", "a"),
        vote("triposr", "trellis", "tie"),
        vote("triposr", "triposr", "a"),  # the same model: says nothing about models
    ]
    for entry in votes:
        append_vote(path, entry)
    assert read_votes(path) == votes
    assert tally(votes) == [("trellis", 2, 0, 1), ("triposr", 0, 2, 1)]


def test_a_votes_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text('{"at": 1}\n')
    with pytest.raises(StorageError, match="cannot be read as votes"):
        read_votes(path)
    with pytest.raises(StorageError, match="cannot be written"):
        append_vote(path / "below", vote("a", "b", "a"))


def test_meshes_are_counted_by_the_minute() -> None:
    ages = [timedelta(seconds=s) for s in (0, 59, 60, 170, 500, -5)]
    assert per_minute([NOW - age for age in ages], NOW, 3) == [1, 1, 2]


def test_a_chart_is_scaled_to_its_largest_bar_and_spoken() -> None:
    svg = bars_svg([0, 2, 4], "Meshes <a minute>", "then", "now")
    assert svg.count("<rect") == 2
    assert "Meshes &lt;a minute&gt;: at most 4, now 4" in svg
    heights = [float(part.split('"')[0]) for part in svg.split(' height="')[1:]]
    assert heights[-1] == pytest.approx(2 * heights[-2])
    assert "<rect" not in bars_svg([], "none", "", "")


def test_tables_name_jobs_and_say_how_many_are_not_shown() -> None:
    assert title(Job(id="1", status="pending")) == "from a picture"
    assert len(title(Job(id="1", status="pending", prompt="x" * 99))) == 60
    job = Job(id="j1", status="failed", prompt="a chair", error={"detail": "too <round>"})
    html = items_html([BatchItem(index=0, job=job)], total=5)
    assert "failed: too &lt;round&gt;" in html
    assert "and 4 more" in html
    assert 'data-job="j1"' in jobs_html([job])
    assert Batch(id="b", status="completed").is_final
