"""Self-contained HTML pages: everything inlined, because MLflow shows them in a sandboxed frame."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.simplify import simplify

Facts = Mapping[str, Any]
PAGE_FACES = 60_000
"""Untextured meshes are simplified to this for viewing: base64 of a million faces is 30 MB."""


def page(title: str, body: str, *, with_viewer: bool = False) -> str:
    """Return a whole HTML document with style and, if asked for, the viewer's script."""
    script = f"<script>{_asset('viewer.js')}</script>" if with_viewer else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_asset('page.css')}</style></head>"
        f"<body>{body}{script}</body></html>"
    )


def mesh_page(mesh: MeshData, turntable: NDArray[np.uint8], title: str, facts: Facts) -> str:
    """Return the page of one mesh: an orbitable view, the turntable, and a table of facts.

    Args:
        mesh: in the exported frame.
        turntable: (H, W, 3) uint8, shown below and where a browser has no WebGL.
        title: for example the prompt.
        facts: name -> value; floats are rounded to four digits.
    """
    body = (
        f"<h1>{escape(title)}</h1><p>Drag to turn, wheel to zoom, double click to reset.</p>"
        f'<div class="stage single" data-mesh="mesh-0" data-now></div>{mesh_data(mesh, "mesh-0")}'
        f'<h2>Turntable</h2><img class="sheet" alt="turntable" src="{picture_url(turntable)}">'
        f"<h2>Measured</h2>{table(facts)}"
    )
    return page(title, body, with_viewer=True)


def mesh_data(mesh: MeshData, identifier: str) -> str:
    """Return the inert script element that holds a mesh as base64 GLB."""
    if mesh.uv_coords is None and len(mesh.faces) > PAGE_FACES:
        mesh = simplify(mesh, PAGE_FACES)
    text = base64.b64encode(mesh_bytes(mesh, "glb")).decode("ascii")
    return f'<script type="model/gltf-binary" id="{escape(identifier)}">{text}</script>'


def picture_url(picture: NDArray[np.uint8]) -> str:
    """Return a (H, W, 3 or 4) uint8 picture as a data URL (PNG)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def table(facts: Facts) -> str:
    """Return a two-column table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{number(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def number(value: Any) -> str:
    """Return a value as escaped text, floats with four significant digits."""
    if value is None:
        return "–"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _asset(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")
