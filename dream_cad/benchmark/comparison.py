"""One page for a whole pass: prompts down, models across, meshes that can be turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from dream_cad.benchmark.pages import mesh_data, number, page, picture_url
from dream_cad.benchmark.records import CaseRecord, summarize_records
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.render import FIRST_AZIMUTH_DEG, render_view

THUMBNAIL = 230
_SHOWN = {
    "generation_time_seconds": "seconds",
    "quality/overall_mesh_quality": "quality",
    "quality/game_ready_score": "game",
    "quality/face_count": "faces",
    "truth/volume_iou": "IoU",
    "truth/f_score_0.02": "F 0.02",
    "truth/chamfer": "Chamfer",
    "clip_similarity": "CLIP",
}
LoadMesh = Callable[[CaseRecord], MeshData | None]


def comparison_page(title: str, records: Sequence[CaseRecord], load: LoadMesh) -> str:
    """Return the self-contained page.

    Args:
        title: of the page.
        records: of any models and cases; a case that a model has not done stays empty.
        load: gives the mesh of a record, None where there is none.
    """
    models = sorted({record.model for record in records})
    cases = {record.case.key: record.case for record in records}
    done = {(record.model, record.case.key): record for record in records}
    head = "".join(f"<th>{escape(model)}</th>" for model in models)
    rows = []
    for key, case in cases.items():
        cells = "".join(_cell(done.get((model, key)), load) for model in models)
        tags = escape(", ".join((case.group, *case.tags)))
        rows.append(
            f'<tr><th scope="row">{escape(case.prompt)}<br><span class="tag">{tags}, seed '
            f"{case.seed}</span></th>{cells}</tr>"
        )
    body = (
        f"<h1>{escape(title)}</h1><p>Click a mesh to turn it.</p><h2>Models</h2>"
        f'{_summaries(records)}<h2>Meshes</h2><div class="scroll"><table class="grid">'
        f"<tr><th>prompt</th>{head}</tr>{''.join(rows)}</table></div>"
    )
    return page(title, body, with_viewer=True)


def _summaries(records: Sequence[CaseRecord]) -> str:
    summaries = summarize_records(records)
    names = list(dict.fromkeys(name for found in summaries.values() for name in found))
    head = "".join(f"<th>{escape(model)}</th>" for model in summaries)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{number(s.get(name))}</td>' for s in summaries.values())
        + "</tr>"
        for name in names
    )
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _cell(record: CaseRecord | None, load: LoadMesh) -> str:
    if record is None:
        return "<td>–</td>"
    mesh = load(record)
    facts = ", ".join(
        f"{label} {number(record.metrics[name])}"
        for name, label in _SHOWN.items()
        if name in record.metrics
    )
    error = f'<p class="failed">{escape(record.error)}</p>' if record.error else ""
    if mesh is None:
        return f"<td>{error or '–'}</td>"
    picture = render_view(mesh, size=THUMBNAIL, azimuth_deg=FIRST_AZIMUTH_DEG, elevation_deg=20.0)
    name = f"mesh-{record.key}"
    return (
        f'<td><div class="stage" data-mesh="{escape(name)}"><img alt="{escape(record.case.prompt)}"'
        f' src="{picture_url(picture)}"></div>{mesh_data(mesh, name)}'
        f'<span class="tag">{facts}</span>{error}</td>'
    )
