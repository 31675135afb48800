"""Reading mesh files back into ``MeshData``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dream_cad.exceptions import DreamCadError, FileFormatError, ShapeError, StorageError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.color import linear_to_srgb
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.glb import read_glb_tree

_READABLE = ("obj", "ply", "stl", "glb")


def load_mesh(path: Path) -> MeshData:
    """Read an obj, ply, stl or glb file.

    Scenes are flattened with their transforms applied. The corners of an stl, which has no
    shared vertices, are merged where they are equal. Other files keep their vertex order.

    Raises:
        StorageError: the file cannot be read.
        FileFormatError: unknown suffix, or the content is not a mesh of that format.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in _READABLE:
        raise FileFormatError(
            f"{path.name!r} cannot be read; expected one of {', '.join(_READABLE)}.",
            details={"allowed": list(_READABLE)},
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    extras = read_glb_tree(content).get("asset", {}).get("extras", {}) if kind == "glb" else {}
    mesh = _from_trimesh(_parse(path, kind), extras, is_linear=kind == "glb")
    try:
        check_mesh(mesh)
    except ShapeError as error:
        raise FileFormatError(f"{path.name!r} holds no usable mesh: {error.message}") from error
    return mesh


def _parse(path: Path, kind: str) -> trimesh.Trimesh:
    try:
        loaded = trimesh.load_scene(path, process=False, maintain_order=True)
        geometries = list(loaded.geometry.values())
        is_single = len(geometries) == 1 and len(loaded.graph.nodes_geometry) == 1
        mesh = loaded.to_geometry() if not is_single else _placed(loaded)
    except DreamCadError:
        raise
    except Exception as error:  # trimesh raises whatever its parsers meet
        raise FileFormatError(f"{path.name!r} is not a readable {kind} file: {error}.") from error
    if not isinstance(mesh, trimesh.Trimesh):
        raise FileFormatError(f"{path.name!r} holds no triangle mesh.")
    if kind == "stl":
        mesh.merge_vertices(digits_vertex=8)
    return mesh


def _placed(scene: trimesh.Scene) -> Any:
    (node,) = scene.graph.nodes_geometry
    transform, name = scene.graph[node]
    geometry = scene.geometry[name]
    if not np.allclose(transform, np.eye(4)):
        geometry.apply_transform(transform)
    return geometry


def _from_trimesh(mesh: trimesh.Trimesh, extras: dict[str, Any], *, is_linear: bool) -> MeshData:
    material = getattr(mesh.visual, "material", None)
    texture = _pixels(getattr(material, "baseColorTexture", getattr(material, "image", None)))
    uv = getattr(mesh.visual, "uv", None)
    return MeshData(
        vertices=np.asarray(mesh.vertices, dtype=np.float32),
        faces=np.asarray(mesh.faces, dtype=np.int32),
        vertex_colors=_vertex_colors(mesh, is_linear=is_linear),
        uv_coords=None if uv is None else np.asarray(uv, dtype=np.float32),
        texture=texture,
        materials=_materials(material) if is_linear else None,
        extras=json.loads(json.dumps(extras)),
    )


def _pixels(image: Any) -> NDArray[np.uint8] | None:
    return None if image is None else np.asarray(image.convert("RGB"), dtype=np.uint8)


def _vertex_colors(mesh: trimesh.Trimesh, *, is_linear: bool) -> NDArray[np.uint8] | None:
    visual: Any = mesh.visual
    attributes = getattr(visual, "vertex_attributes", {})
    if "color" in attributes:
        stored = np.asarray(attributes["color"])[:, :3]
    elif visual.kind == "vertex":
        stored = np.asarray(visual.vertex_colors)[:, :3]
    else:
        return None
    scale = float(np.iinfo(stored.dtype).max) if stored.dtype.kind == "u" else 1.0
    unit = stored / scale
    return np.rint((linear_to_srgb(unit) if is_linear else unit) * 255).astype(np.uint8)


def _materials(material: Any) -> dict[str, Any] | None:
    if material is None:
        return None
    found: dict[str, Any] = {
        "metallic": material.metallicFactor,
        "roughness": material.roughnessFactor,
        "normal_texture": _pixels(material.normalTexture),
        "metallic_roughness_texture": _pixels(material.metallicRoughnessTexture),
    }
    return {name: value for name, value in found.items() if value is not None} or None
