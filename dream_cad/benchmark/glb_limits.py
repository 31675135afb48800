"""Limits of GLB files, checked on their JSON before a parser allocates anything."""

from __future__ import annotations

import struct
from typing import Any

from dream_cad.exceptions import FileFormatError
from dream_cad.mesh.glb import read_glb_tree

_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_UNREADABLE = {"KHR_draco_mesh_compression", "EXT_meshopt_compression"}
_MAX_NODES = 10_000


def check_glb(content: bytes, *, max_faces: int, max_vertices: int) -> None:
    """Refuse a GLB that promises more than it holds, repeats parts without bound or points outside.

    Raises:
        FileFormatError: naming what is wrong.
    """
    tree = read_glb_tree(content)
    (declared,) = struct.unpack_from("<I", content, 8)
    if declared > len(content):
        raise FileFormatError(f"The GLB is cut short: {declared} bytes declared, {len(content)}.")
    missing = _UNREADABLE & set(tree.get("extensionsRequired", []))
    if missing:
        raise FileFormatError(f"The GLB needs {', '.join(sorted(missing))}, which is not read.")
    for item in (*tree.get("buffers", []), *tree.get("images", [])):
        if "uri" in item and not str(item["uri"]).startswith("data:"):
            raise FileFormatError("The GLB points at other files; expected one that holds all.")
    for accessor in tree.get("accessors", []):
        _check_accessor(accessor, tree, len(content))
    _check_instances(tree, max_faces, max_vertices)


def _check_accessor(accessor: dict[str, Any], tree: dict[str, Any], available: int) -> None:
    count = int(accessor.get("count", 0))
    width = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
    if "sparse" in accessor:
        raise FileFormatError("The GLB has sparse accessors, which are not read.")
    if count < 0 or count * width > available:
        raise FileFormatError(
            f"The GLB promises {count} elements of {width} bytes in {available} bytes."
        )


def _check_instances(tree: dict[str, Any], max_faces: int, max_vertices: int) -> None:
    """Follow the scene's nodes; a node that is met twice is a loop or a tree turned graph."""
    nodes, meshes = tree.get("nodes", []), tree.get("meshes", [])
    if len(nodes) > _MAX_NODES:
        raise FileFormatError(f"The GLB has {len(nodes)} nodes; at most {_MAX_NODES}.")
    children = [child for node in nodes for child in node.get("children", [])]
    if len(set(children)) != len(children):
        raise FileFormatError("The GLB's nodes are no tree: one has two parents.")
    sizes = [_mesh_size(mesh, tree["accessors"]) for mesh in meshes]
    used = [sizes[node["mesh"]] for node in nodes if "mesh" in node]
    vertices, faces = sum(size[0] for size in used), sum(size[1] for size in used)
    if vertices > max_vertices or faces > max_faces:
        raise FileFormatError(
            f"The GLB shows {vertices} vertices and {faces} faces; at most {max_vertices} and "
            f"{max_faces} are assessed.",
            hint="Simplify the mesh first.",
        )


def _mesh_size(mesh: dict[str, Any], accessors: list[dict[str, Any]]) -> tuple[int, int]:
    vertices, faces = 0, 0
    for primitive in mesh["primitives"]:
        positions = int(accessors[primitive["attributes"]["POSITION"]]["count"])
        vertices += positions
        corners = positions
        if "indices" in primitive:
            corners = int(accessors[primitive["indices"]]["count"])
        faces += corners // 3 if primitive.get("mode", 4) == 4 else max(corners - 2, 0)
    return vertices, faces
