"""Bodies for 3D printers: closed, in millimetres, with the frame of slicers; STL and 3MF."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from dream_cad.exceptions import GenerationError
from dream_cad.mesh.cleanup import remove_degenerate_faces, weld_vertices
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.simplify import simplify

Repair = Literal["none", "holes filled", "rebuilt from voxels"]
_VOXELS = 128
"""Along the longest side: 0.8 mm at 100 mm, two walls of a common printer's nozzle."""
_CLOSINGS = (2, 6, 16)
"""Half widths of the gaps that are bridged, in voxels; the first that leaves an inside is taken."""
_HAS_INSIDE = 1.1
"""Filling must add a tenth to a shell before it counts as one around something."""
_SMOOTHING = 0.7
_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" '
    'ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_VERTEX = '<vertex x="%.5f" y="%.5f" z="%.5f"/>'
_TRIANGLE = '<triangle v1="%d" v2="%d" v3="%d"/>'
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Solid:
    """A closed body.

    Attributes:
        mesh: geometry alone, welded; every edge has two faces, outwards counter-clockwise.
        repair: what it took.
        volume: in cubic units of the mesh.
    """

    mesh: MeshData
    repair: Repair
    volume: float


def make_solid(mesh: MeshData, *, max_faces: int) -> Solid:
    """Close a mesh: as it is, or with small holes filled, or rebuilt from voxels.

    Args:
        mesh: any mesh; colours and textures are left behind.
        max_faces: simplify to about so many; given up where that would open it.

    Raises:
        GenerationError: it encloses nothing, not even as voxels.
    """
    bare = remove_degenerate_faces(weld_vertices(MeshData(mesh.vertices, mesh.faces)))
    if len(bare.faces) == 0:
        raise GenerationError("The mesh has no extent and cannot be printed.")
    solid = _as_trimesh(bare)
    repair: Repair = "none"
    if not _is_closed(solid):
        trimesh.repair.fill_holes(solid)
        trimesh.repair.fix_normals(solid, multibody=True)
        repair = "holes filled"
    if not _is_closed(solid):
        solid, repair = _rebuilt(bare), "rebuilt from voxels"
    if solid.volume < 0:
        solid.invert()
    if not _is_closed(solid) or not solid.volume > 0:
        raise GenerationError(
            "The mesh encloses no volume and cannot be printed.", hint="Try another seed."
        )
    if len(solid.faces) > max_faces:
        fewer = _as_trimesh(simplify(_as_mesh(solid), max_faces))
        solid = fewer if _is_closed(fewer) else solid
    return Solid(_as_mesh(solid), repair, float(solid.volume))


def write_stl(mesh: MeshData) -> bytes:
    """Return a binary STL; it knows no unit, and slicers take millimetres."""
    return bytes(trimesh.exchange.stl.export_stl(_as_trimesh(mesh)))


def write_3mf(mesh: MeshData, title: str) -> bytes:
    """Return a 3MF file (core specification 1.3), which says that its unit is the millimetre.

    Args:
        mesh: a closed body in millimetres.
        title: of the model; letters, digits, hyphens.
    """
    # One formatting of everything: a body has some hundred thousand triangles.
    vertices = _VERTEX * len(mesh.vertices) % tuple(mesh.vertices.ravel().tolist())
    faces = _TRIANGLE * len(mesh.faces) % tuple(mesh.faces.ravel().tolist())
    model = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<model unit="millimeter" xml:lang="en-US" xmlns="{_CORE}">'
        f'<metadata name="Title">{title}</metadata>'
        '<metadata name="Application">dream_cad</metadata>'
        f'<resources><object id="1" type="model" name="{title}"><mesh>'
        f"<vertices>{vertices}</vertices><triangles>{faces}</triangles></mesh></object></resources>"
        '<build><item objectid="1"/></build></model>'
    )
    files = {
        "[Content_Types].xml": _TYPES,
        "_rels/.rels": _RELATIONS,
        "3D/3dmodel.model": model,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _rebuilt(mesh: MeshData) -> trimesh.Trimesh:
    """Return the outer surface of the mesh's voxels, inner spaces filled."""
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    pitch = extent / _VOXELS
    margin = max(_CLOSINGS) + 2
    low = mesh.vertices.min(axis=0).astype(np.float64) - margin * pitch
    shape = np.ceil(np.ptp(mesh.vertices, axis=0) / pitch).astype(int) + 2 * margin + 1
    surface = np.zeros(shape, dtype=bool)
    surface[tuple(_surface_cells(mesh, low, pitch).T)] = True
    filled = _filled(surface)
    density = ndimage.gaussian_filter(filled.astype(np.float32), _SMOOTHING)
    vertices, faces, _, _ = marching_cubes(density, 0.5)
    solid = trimesh.Trimesh(low + vertices * pitch, faces[:, ::-1], process=False)
    solid.merge_vertices()
    return solid


def _filled(surface: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the inside of a shell of voxels, bridging gaps no wider than it takes to find one."""
    distance = ndimage.distance_transform_edt(~surface)
    for radius in _CLOSINGS:
        near = distance <= radius
        grown = ndimage.binary_fill_holes(near)
        if grown.sum() > _HAS_INSIDE * near.sum():
            shrunk: NDArray[np.bool_] = ndimage.distance_transform_edt(grown) > radius
            return shrunk | surface
    # A sheet has no inside: it gets the thickness of two voxels.
    thick: NDArray[np.bool_] = distance <= 1
    return thick


def _surface_cells(mesh: MeshData, low: NDArray[np.float64], pitch: float) -> NDArray[np.intp]:
    """Return the cells (N, 3) that the surface passes, from points at most half a cell apart."""
    vertices, _ = trimesh.remesh.subdivide_to_size(
        mesh.vertices.astype(np.float64), mesh.faces, max_edge=pitch / 2, max_iter=16
    )
    return np.unique(np.rint((vertices - low) / pitch).astype(np.intp), axis=0)


def _is_closed(solid: trimesh.Trimesh) -> bool:
    return bool(len(solid.faces) and solid.is_watertight and solid.is_winding_consistent)


def _as_trimesh(mesh: MeshData) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def _as_mesh(solid: trimesh.Trimesh) -> MeshData:
    return MeshData(
        np.asarray(solid.vertices, dtype=np.float32), np.asarray(solid.faces, dtype=np.int32)
    )
