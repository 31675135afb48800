"""The performance report as a page: one plot for each model, device and metric."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

from dream_cad.benchmark.pages import number, page

_WIDTH, _HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 12, 12, 26


def performance_page(report: dict[str, Any]) -> str:
    """Return the report of PerformanceTracker.generate_report as self-contained HTML."""
    alarms = "".join(
        f"<li>{escape(a['model'])} on {escape(a['device'])}, {escape(a['metric'])}: "
        f"{escape(a['what'])}</li>"
        for a in report["alarms"]
    )
    state = f'<ul class="alarm">{alarms}</ul>' if alarms else '<p class="steady">No alarms.</p>'
    sections = "".join(_section(trend) for trend in report["models"].values())
    body = (
        f"<h1>Performance over {report['days']} days</h1><p>{report['measurements']} measurements, "
        f"{escape(report['generated_at'])}</p>{state}{sections}"
    )
    return page("Performance", body)


def _section(trend: dict[str, Any]) -> str:
    parts = [f"<h2>{escape(trend['model'])}</h2>"]
    for device, metrics in trend["devices"].items():
        parts.append(f"<p>{escape(device)}</p>")
        parts += [_figure(name, series) for name, series in metrics.items()]
    return "".join(parts)


def _figure(name: str, series: dict[str, Any]) -> str:
    control = series["control"]
    mark = ' class="alarm"' if control and control["is_alarm"] else ""
    caption = (
        f"{escape(name)}: last {number(series['last'])}, median {number(series['median'])}, "
        f"n {series['n']}"
    )
    return f"<figure><figcaption{mark}>{caption}</figcaption>{plot(series)}</figure>"


def plot(series: dict[str, Any]) -> str:
    """Return an SVG of the points, the control limits and the change point of one series."""
    times = [datetime.fromisoformat(p["time"]).timestamp() for p in series["points"]]
    values = [float(p["value"]) for p in series["points"]]
    control = series["control"]
    shown = values + ([control["low"], control["high"]] if control else [])
    low, high = float(min(shown)), float(max(shown))
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    span = max(times[-1] - times[0], 1.0)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(time: float) -> float:
        return _LEFT + wide * ((time - times[0]) / span if len(times) > 1 else 0.5)

    def y(value: float) -> float:
        return _TOP + tall * (high - value) / (high - low)

    parts = [_axes(y, low + margin, high - margin, series["points"])]
    if control:
        top, bottom = y(control["high"]), y(control["low"])
        parts.append(
            f'<rect x="{_LEFT}" y="{top:.1f}" width="{wide}" height="{bottom - top:.1f}" '
            f'fill="#e8f3ec"/>{_line(y(control["center"]), "#18794e")}'
        )
    change = series["change_point"]
    if change:
        at = x(times[change["index"]])
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_TOP + tall}" stroke="#b3261e" '
            'stroke-dasharray="4 3"/>'
        )
    places = [(x(time), y(value)) for time, value in zip(times, values, strict=True)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#3b5bdb" stroke-width="1.5"/>')
    parts += [
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="#3b5bdb"><title>{number(value)} '
        f"{escape(point['time'][:16])}</title></circle>"
        for (px, py), value, point in zip(places, values, series["points"], strict=True)
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'font-size="11" font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
    )


def _axes(y: Any, low: float, high: float, points: list[dict[str, Any]]) -> str:
    labels = "".join(
        f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#5d6675">'
        f"{number(float(value))}</text>"
        for value in dict.fromkeys((low, high))
    )
    first, last = (escape(points[k]["time"][:10]) for k in (0, -1))
    bottom = _HEIGHT - 8
    return (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="none" stroke="#dde1e8"/>{labels}'
        f'<text x="{_LEFT}" y="{bottom}" fill="#5d6675">{first}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{bottom}" text-anchor="end" fill="#5d6675">{last}</text>'
    )


def _line(at: float, color: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{color}"/>'
    )
