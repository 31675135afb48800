"""``dream-cad package``: a mesh file as an engine, a web page or a printer wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dream_cad.cli.console import show_json
from dream_cad.client.files import whole_file
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.loading import load_mesh
from dream_cad.profiles import PROFILES, Package, build_package


def _complete_profile(incomplete: str) -> list[str]:
    """Return what a shell offers for the beginning of a profile's name."""
    return [name for name in PROFILES if name.startswith(incomplete)]


ProfileOption = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(PROFILES)}.", autocompletion=_complete_profile),
]
SizeOption = Annotated[
    float | None,
    typer.Option(help="Longest side: metres, millimetres for print-fdm; else the profile's."),
]


def package(
    mesh: Annotated[Path, typer.Argument(help="A glb, obj, ply or stl file.")],
    profile: Annotated[
        str, typer.Option(help=f"{', '.join(PROFILES)}.", autocompletion=_complete_profile)
    ] = "web",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Zip to write; else NAME-PROFILE.zip beside the mesh."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Names files and meshes; else the file's.")
    ] = None,
    size: SizeOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Make the levels of detail, collision hulls, compressed copies or bodies of a profile."""
    target = output or mesh.with_name(f"{mesh.stem}-{profile}.zip")
    made = write_package(load_mesh(mesh), profile, target, title=name or mesh.stem, size=size)
    if json_output:
        show_json({"path": str(target), **made.manifest})
    else:
        typer.echo(target)


def write_package(
    mesh: MeshData, profile: str, target: Path, *, title: str, size: float | None
) -> Package:
    """Write a profile's zip; it appears only when it is whole.

    Raises:
        InvalidConfigError: no such profile, or the size is out of range.
        GenerationError: the mesh gives no hull, or no closed body.
        StorageError: it cannot be written.
    """
    made = build_package(mesh, profile, title=title, size=size, receipt=mesh.extras)
    content = made.zip_bytes()
    with whole_file(target) as file:
        file.write(content)
    return made
