"""A finished job on the page: the viewer's stage, its facts, and the downloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from dream_cad.client import Job

_FORMATS = {
    "glb": "for the web and game engines",
    "obj": "for nearly every program",
    "ply": "with vertex colours",
    "stl": "for 3D printing",
    "3mf": "for 3D printing, with colours",
    "usdz": "for Apple devices",
    "zip": "everything that the profile makes",
}

FILE = "file:"
"""Begins, among the formats of downloads, the name of another file of the result."""
_OWN_FILES = {"preview.png", "result.json", "package.zip"}


def empty_stage_html() -> str:
    """Return the place where the mesh will be."""
    return '<div class="dc-stage dc-empty"><p>The mesh appears here.</p></div>'


def stage_html(url: str, job: Job, receipt: Mapping[str, Any]) -> str:
    """Return the stage of a mesh; app.js puts the viewer on it.

    Args:
        url: of the GLB, relative to the page.
        job: the completed job.
        receipt: how it was made.
    """
    title = job.prompt or "from a picture"
    return (
        f'<figure class="dc-figure"><div class="dc-stage" data-glb="{escape(url)}" '
        f'data-title="{escape(title)}"></div><figcaption>{escape(caption(job, receipt))}'
        "</figcaption></figure>"
    )


def blind_stage_html(url: str, side: str) -> str:
    """Return the stage of a mesh without a word on what made it."""
    return (
        f'<figure class="dc-figure"><div class="dc-stage" data-glb="{escape(url)}" '
        f'data-title="the {escape(side)} mesh"></div></figure>'
    )


def caption(job: Job, receipt: Mapping[str, Any]) -> str:
    """Return what a mesh is, who made it and with which seed."""
    made: Mapping[str, Any] = receipt.get("metadata") or {}
    parts = [job.prompt or "from a picture", job.model]
    checkpoint = made.get("checkpoint")
    if kind := checkpoint.get("kind") if isinstance(checkpoint, Mapping) else checkpoint:
        parts.append(f"checkpoint {kind}")
    if (seed := made.get("seed")) is not None:
        parts.append(f"seed {seed}")
    return " · ".join(str(part) for part in parts if part)


def extra_files(names: Iterable[str]) -> list[str]:
    """Return, of a result's files, those that are no format of the mesh and not about it."""
    return [name for name in names if name not in _OWN_FILES and not name.startswith("mesh.")]


def downloads_html(formats: Sequence[str], files: Sequence[str] = ()) -> str:
    """Return a button for each format, and for each other file that the model made."""
    buttons = "".join(
        f'<button type="button" data-format="{escape(name)}" '
        f'title="{escape(_FORMATS.get(name, ""))}">{escape(name.upper())}</button>'
        for name in formats
    )
    buttons += "".join(
        f'<button type="button" data-format="{FILE}{escape(name)}">{escape(name)}</button>'
        for name in files
    )
    return f'<div class="dc-downloads" role="group" aria-label="Download">{buttons}</div>'


def download_html(url: str, name: str) -> str:
    """Return a link to a file; app.js follows it as soon as it is there."""
    return f'<a class="dc-file" data-follow href="{escape(url)}" download>{escape(name)}</a>'
