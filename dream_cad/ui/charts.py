"""Small bar charts as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

_WIDTH, _HEIGHT, _MARGIN = 760, 150, 26


def bars_svg(values: Sequence[float], title: str, left: str, right: str) -> str:
    """Return a bar chart, oldest value first.

    Args:
        values: heights from 0.
        title: for people, and for screen readers with the largest and the last value.
        left: label below the oldest value.
        right: label below the newest value.
    """
    top = max([1.0, *values])
    step = (_WIDTH - _MARGIN) / max(len(values), 1)
    base = _HEIGHT - 20
    marks = "".join(
        f'<rect class="dc-mark" x="{_MARGIN + index * step + 1:.1f}" '
        f'width="{max(step - 2, 1):.1f}" '
        f'y="{base - value / top * (base - 12):.1f}" height="{value / top * (base - 12):.1f}" '
        f'rx="2"/>'
        for index, value in enumerate(values)
        if value > 0
    )
    spoken = f"{title}: at most {top:g}, now {values[-1] if values else 0:g}"
    return (
        f"<h3>{escape(title)}</h3>"
        f'<svg class="dc-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(spoken)}">{marks}'
        f'<line class="dc-axis" x1="{_MARGIN}" x2="{_WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="{_MARGIN - 4}" y="16" text-anchor="end">{top:g}</text>'
        f'<text x="{_MARGIN}" y="{_HEIGHT - 5}">{escape(left)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{escape(right)}</text></svg>'
    )


def per_minute(times: Sequence[datetime], now: datetime, minutes: int) -> list[int]:
    """Return how many of the times lie in each of the last minutes, oldest first."""
    counts = [0] * minutes
    for time in times:
        age = int((now - time).total_seconds() // 60)
        if 0 <= age < minutes:
            counts[minutes - 1 - age] += 1
    return counts
