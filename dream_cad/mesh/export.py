"""Writing and reading mesh files: obj, ply, stl (through trimesh) and glb.

What each format carries:

=====  ===========================================================================
obj    normals, UV and PNG textures named by an MTL file (base colour, and by its PBR extension
       roughness, metallic and normal map), else colours per vertex
ply    binary, normals, colours per vertex (taken from the texture where there is one)
stl    binary, geometry only
glb    normals, tangents, colours per vertex (linear), UV, base colour and PBR maps, receipt
=====  ===========================================================================
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl
from trimesh.visual.color import ColorVisuals

from dream_cad.exceptions import FileFormatError, StorageError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.color import sample_texture
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.glb import glb_bytes
from dream_cad.mesh.loading import load_mesh
from dream_cad.mesh.normals import vertex_normals
from dream_cad.mesh.obj import HEADER, textured_obj

__all__ = ["FORMATS", "export_mesh", "load_mesh", "mesh_bytes", "resolve_format"]


def export_mesh(mesh: MeshData, path: Path, format: str | None = None) -> Path:
    """Write a mesh; readers see the whole new file or the old state, never a part.

    An obj with a texture brings ``<stem>.mtl`` and its pictures beside it, published first.

    Args:
        mesh: what to write, see ``check_mesh`` for the shapes.
        path: the file; missing folders are made. Without a suffix the format's is added.
        format: one of ``FORMATS``; taken from the path's suffix when None.

    Returns:
        The path of the file written.

    Raises:
        FileFormatError: the format is unknown; names the legal ones.
        ShapeError: the mesh is empty or inconsistent.
        StorageError: the file could not be written (disk full, no permission).
    """
    chosen = resolve_format(path, format)
    target = path if path.suffix else path.with_suffix(f".{chosen}")
    check_mesh(mesh)
    if chosen == "obj" and mesh.texture is not None:
        files = _textured_obj(mesh, mesh.texture, target)
    else:
        files = {target.name: _WRITERS[chosen](mesh)}
    for name, content in files.items():
        write_whole(target.parent / name, content)
    return target


def mesh_bytes(mesh: MeshData, format: str) -> bytes:
    """Return the file's content; an obj carries the texture's colours per vertex instead.

    Raises:
        FileFormatError: the format is unknown.
        ShapeError: the mesh is empty or inconsistent.
    """
    writer = _WRITERS[resolve_format(None, format)]
    check_mesh(mesh)
    return writer(mesh)


def resolve_format(path: Path | None, format: str | None) -> str:
    """Return the lower-case format named, or else the one of the path's suffix.

    Raises:
        FileFormatError: it is not one of ``FORMATS``.
    """
    name = format if format is not None else (path.suffix if path else "")
    chosen = name.lower().lstrip(".")
    if chosen not in FORMATS:
        shown = f"{name!r} is not" if name else f"{str(path)!r} has no suffix that names"
        raise FileFormatError(
            f"{shown} a mesh format; expected one of {', '.join(FORMATS)}.",
            hint="Give format= or a path that ends in one of them.",
            details={"allowed": list(FORMATS)},
        )
    return chosen


def _bare(mesh: MeshData) -> trimesh.Trimesh:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=normals, process=False)


def _with_vertex_colors(mesh: MeshData) -> trimesh.Trimesh:
    bare = _bare(mesh)
    colors = mesh.vertex_colors
    if mesh.texture is not None and mesh.uv_coords is not None:
        colors = sample_texture(mesh.texture, mesh.uv_coords)
    if colors is not None:
        bare.visual = ColorVisuals(bare, vertex_colors=colors)
    return bare


def _obj_bytes(mesh: MeshData) -> bytes:
    text = export_obj(_with_vertex_colors(mesh), include_normals=True, header=HEADER)
    return str(text).encode()


def _ply_bytes(mesh: MeshData) -> bytes:
    return bytes(export_ply(_with_vertex_colors(mesh), vertex_normal=True))


def _stl_bytes(mesh: MeshData) -> bytes:
    # Neither normals of vertices nor anything else of theirs is in this format.
    return bytes(export_stl(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)))


def _textured_obj(mesh: MeshData, texture: NDArray[np.uint8], target: Path) -> dict[str, bytes]:
    """Return file name -> content of pictures, mtl and obj, in the order to publish them."""
    # Readers split the names in mtllib and map_Kd at blanks.
    stem = re.sub(r"\s+", "_", target.stem)
    files = textured_obj(_bare(mesh), mesh, texture, stem)
    geometry = files.pop(f"{stem}.obj")
    return files | {target.name: geometry}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears only when it is whole, replacing one of that name.

    Raises:
        StorageError: it cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by the owner only
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(
            f"{path} ({len(content):,} bytes) could not be written: {error.strerror or error}.",
            hint="Free disk space or choose another folder, then try again.",
            details={"path": str(path), "bytes": len(content)},
        ) from error


_WRITERS: dict[str, Callable[[MeshData], bytes]] = {
    "obj": _obj_bytes,
    "ply": _ply_bytes,
    "stl": _stl_bytes,
    "glb": glb_bytes,
}
FORMATS: tuple[str, ...] = tuple(_WRITERS)
