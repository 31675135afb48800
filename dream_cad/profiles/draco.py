"""The compressed copy for web pages: geometry by Draco, opaque base colours as JPEG.

``KHR_draco_mesh_compression`` replaces each primitive's buffer views by one blob; three.js,
Babylon.js, <model-viewer> and Blender read it. Positions keep 14 bits, texture coordinates 12,
normals 10: below a texel, and below what shading shows. Tangents are left as they are.
"""

from __future__ import annotations

import io
from typing import Any

import DracoPy
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import FileFormatError
from dream_cad.profiles.glb_parts import GlbParts, read_glb, write_glb

EXTENSION = "KHR_draco_mesh_compression"
_POSITION_BITS, _UV_BITS, _NORMAL_BITS = 14, 12, 10
_LEVEL = 7
_JPEG_QUALITY = 90
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_DRACO_KINDS = {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 3}
"""Draco's own numbers for the kinds of attributes."""


def compress(content: bytes) -> bytes:
    """Return a GLB with the same meshes, compressed.

    Args:
        content: a GLB as ``mesh_bytes`` writes it: indexed triangles, one buffer.

    Raises:
        FileFormatError: the bytes are no GLB, or hold attributes of another kind.
    """
    parts = read_glb(content)
    tree = parts.tree
    packer = _Packer()
    is_free: set[int] = set()
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            is_free |= _compress_primitive(parts, primitive, packer)
    for number, accessor in enumerate(tree["accessors"]):
        if number not in is_free and "bufferView" in accessor:
            accessor["bufferView"] = packer.add(parts.view(accessor["bufferView"]))
    base_colors = _base_color_images(tree)
    for number, image in enumerate(tree.get("images", ())):
        picture = parts.view(image["bufferView"])
        if number in base_colors:
            picture, image["mimeType"] = _smaller(picture, image["mimeType"])
        image["bufferView"] = packer.add(picture)
    tree["bufferViews"] = packer.views
    for use in ("extensionsUsed", "extensionsRequired"):
        tree[use] = sorted({*tree.get(use, ()), EXTENSION})
    return write_glb(GlbParts(tree, bytes(packer.data)))


class _Packer:
    """Collects what goes into the new buffer."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []

    def add(self, content: bytes) -> int:
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view)
        self.data += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1


def _compress_primitive(parts: GlbParts, primitive: dict[str, Any], packer: _Packer) -> set[int]:
    """Encode a primitive; returns the accessors whose data went into the blob."""
    tree, attributes = parts.tree, primitive["attributes"]
    arrays = {name: _read(parts, number) for name, number in attributes.items()}
    if unknown := arrays.keys() - _DRACO_KINDS - {"TANGENT", "COLOR_0"}:
        raise FileFormatError(f"Attributes {sorted(unknown)} cannot be compressed.")
    faces = _read(parts, primitive["indices"]).reshape(-1, 3)
    generic = {name: arrays[name] for name in ("TANGENT", "COLOR_0") if name in arrays}
    blob = DracoPy.encode(
        arrays["POSITION"],
        faces.astype(np.uint32),
        quantization_bits=_POSITION_BITS,
        compression_level=_LEVEL,
        tex_coord=_double(arrays.get("TEXCOORD_0")),
        normals=_double(arrays.get("NORMAL")),
        tex_coord_quantization_bits=_UV_BITS,
        normal_quantization_bits=_NORMAL_BITS,
        generic_attributes={_GENERIC_IDS[name]: array for name, array in generic.items()} or None,
    )
    decoded = DracoPy.decode(blob)
    numbers = {one["attribute_type"]: one["unique_id"] for one in decoded.attributes}
    ids = {name: numbers[kind] for name, kind in _DRACO_KINDS.items() if name in arrays}
    ids |= {name: _GENERIC_IDS[name] for name in generic}
    primitive["extensions"] = {
        EXTENSION: {"bufferView": packer.add(blob), "attributes": ids},
    }
    for name, number in attributes.items():
        _describe(tree["accessors"][number], len(decoded.points))
        if name == "POSITION":
            tree["accessors"][number] |= {
                "min": decoded.points.min(axis=0).astype(float).tolist(),
                "max": decoded.points.max(axis=0).astype(float).tolist(),
            }
    indices = tree["accessors"][primitive["indices"]]
    _describe(indices, decoded.faces.size)
    indices |= {"min": [int(decoded.faces.min())], "max": [int(decoded.faces.max())]}
    return {*attributes.values(), primitive["indices"]}


_GENERIC_IDS = {"TANGENT": 40, "COLOR_0": 41}
"""Our numbers for attributes that Draco has no kind for; above those that it deals out itself."""


def _describe(accessor: dict[str, Any], count: int) -> None:
    accessor["count"] = count
    accessor.pop("bufferView", None)
    accessor.pop("byteOffset", None)


def _double(values: NDArray[Any] | None) -> NDArray[np.float64] | None:
    return None if values is None else values.astype(np.float64)


def _read(parts: GlbParts, number: int) -> NDArray[Any]:
    accessor = parts.tree["accessors"][number]
    dtype, width = _TYPES[accessor["componentType"]], _COMPONENTS[accessor["type"]]
    start = accessor.get("byteOffset", 0)
    content = parts.view(accessor["bufferView"])
    values = np.frombuffer(content, dtype, accessor["count"] * width, start)
    return np.array(values.reshape(-1, width) if width > 1 else values)


def _base_color_images(tree: dict[str, Any]) -> set[int]:
    """Images that are nothing but base colours; JPEG's faults show in normals and masks."""
    colors: set[int] = set()
    others: set[int] = set()
    for material in tree.get("materials", ()):
        pbr = material.get("pbrMetallicRoughness", {})
        for owner in (material, pbr):
            for name, value in owner.items():
                if name.endswith("Texture"):
                    source = tree["textures"][value["index"]]["source"]
                    (colors if name == "baseColorTexture" else others).add(source)
    return colors - others


def _smaller(picture: bytes, mime: str) -> tuple[bytes, str]:
    """Return an opaque picture as JPEG if that is smaller."""
    with Image.open(io.BytesIO(picture)) as opened:
        if opened.mode != "RGB":
            return picture, mime
        buffer = io.BytesIO()
        opened.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    jpeg = buffer.getvalue()
    return (jpeg, "image/jpeg") if len(jpeg) < len(picture) else (picture, mime)
