"""The GLB writer: one mesh, one material, straight from the arrays.

Vertex colours are written in linear light as glTF 2.0 wants COLOR_0, as normalised 16-bit numbers
since 8 bits are too few in the shadows. Base colours are sRGB, the other maps linear: glTF says so
by a map's place, hence their bytes go in as they are. A normal map brings the tangents it was
baked for, so that every viewer agrees. Every accessor has a buffer view of its own that says what
it is for, which lets viewers upload it without a look.
"""

from __future__ import annotations

import json
import struct
from io import BytesIO
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import FileFormatError, InvalidConfigError
from dream_cad.mesh.color import srgb_to_linear
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import vertex_normals
from dream_cad.mesh.tangents import vertex_tangents

_UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5123, 5125, 5126
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_TRIANGLES = 4
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_JSON_CHUNK, _BIN_CHUNK = b"JSON", b"BIN\0"
# Without a material glTF means polished metal; generated albedo looks right as matt plastic.
DEFAULT_METALLIC, DEFAULT_ROUGHNESS = 0.0, 0.9
_NAME = "geometry_0"
_WHITE = 65_535
_LINEAR = np.rint(srgb_to_linear(np.arange(256) / 255.0) * _WHITE).astype("<u2")
"""Of each 8-bit sRGB value its linear light in 16 bits."""


def glb_bytes(mesh: MeshData) -> bytes:
    """Return a binary glTF 2.0 file with normals, appearance and the receipt in asset.extras.

    Raises:
        InvalidConfigError: a material's factor is not within 0 to 1, or the receipt is no JSON.
    """
    asset: dict[str, Any] = {"version": "2.0", "generator": "dream_cad"}
    if mesh.extras:
        asset["extras"] = mesh.extras
    parts = _Parts()
    indices = parts.add(mesh.faces.astype("<u4").reshape(-1, 1), _UNSIGNED_INT, _INDEX_BUFFER)
    primitive = {
        "attributes": _add_attributes(parts, mesh),
        "indices": indices,
        "mode": _TRIANGLES,
        "material": 0,
    }
    material = _add_material(parts, mesh)
    tree: dict[str, Any] = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "asset": asset,
        "nodes": [{"name": _NAME, "mesh": 0}],
        "meshes": [{"name": _NAME, "primitives": [primitive]}],
        "materials": [material],
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": parts.length}],
    }
    if parts.images:
        tree["images"] = parts.images
        tree["textures"] = [{"source": number} for number in range(len(parts.images))]
    return _pack(tree, parts.chunks, parts.length)


def read_glb_tree(content: bytes) -> dict[str, Any]:
    """Return the JSON part of a GLB file.

    Raises:
        FileFormatError: the bytes are not a GLB file, or it is cut short.
    """
    if len(content) >= 20 and content[:4] == b"glTF" and content[16:20] == _JSON_CHUNK:
        (length,) = struct.unpack_from("<I", content, 12)
        if len(content) >= 20 + length:
            return cast(dict[str, Any], json.loads(content[20 : 20 + length]))
    raise FileFormatError("The file is not a GLB, or it is cut short.")


class _Parts:
    """The binary chunk as it grows, and the entries that point into it."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.length = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []

    def add(
        self,
        values: NDArray[Any],
        component: int,
        target: int = _VERTEX_BUFFER,
        *,
        has_limits: bool = False,
    ) -> int:
        """Append an array (N, C) of little-endian numbers; returns its accessor."""
        accessor: dict[str, Any] = {
            "bufferView": self._append(values.tobytes(), target),
            "componentType": component,
            "type": _TYPES[values.shape[1]],
            "count": len(values),
        }
        if component == _UNSIGNED_SHORT:
            accessor["normalized"] = True
        if has_limits:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_image(self, pixels: NDArray[np.uint8]) -> int:
        """Append a picture (H, W, 3) as PNG; returns its texture."""
        content = BytesIO()
        Image.fromarray(pixels).save(content, format="png")
        view = self._append(content.getvalue(), None)
        self.images.append({"bufferView": view, "mimeType": "image/png"})
        return len(self.images) - 1

    def _append(self, content: bytes, target: int | None) -> int:
        view = {"buffer": 0, "byteOffset": self.length, "byteLength": len(content)}
        self.views.append(view if target is None else view | {"target": target})
        padding = b"\0" * (-len(content) % 4)
        self.chunks += [content, padding]
        self.length += len(content) + len(padding)
        return len(self.views) - 1


def _add_attributes(parts: _Parts, mesh: MeshData) -> dict[str, int]:
    """Append what each vertex has; returns attribute name -> accessor."""
    normals = vertex_normals(mesh.vertices, mesh.faces)
    found = {
        "POSITION": parts.add(mesh.vertices.astype("<f4"), _FLOAT, has_limits=True),
        "NORMAL": parts.add(normals.astype("<f4"), _FLOAT),
    }
    if mesh.uv_coords is not None:
        upright = mesh.uv_coords.copy()
        upright[:, 1] = 1 - upright[:, 1]  # glTF counts v from the top
        found["TEXCOORD_0"] = parts.add(upright.astype("<f4"), _FLOAT)
        if (mesh.materials or {}).get("normal_texture") is not None:
            tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv_coords, normals)
            found["TANGENT"] = parts.add(tangents.astype("<f4"), _FLOAT)
    # A texture multiplies COLOR_0, so colours are written only where there is none.
    if mesh.vertex_colors is not None and mesh.texture is None:
        rgba = np.full((len(mesh.vertices), 4), _WHITE, dtype="<u2")
        rgba[:, :3] = _LINEAR[mesh.vertex_colors]
        found["COLOR_0"] = parts.add(rgba, _UNSIGNED_SHORT)
    return found


def _add_material(parts: _Parts, mesh: MeshData) -> dict[str, Any]:
    """Append the maps; returns the material that points at them."""
    given = mesh.materials or {}
    surface: dict[str, Any] = {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": _factor(given, "metallic", DEFAULT_METALLIC),
        "roughnessFactor": _factor(given, "roughness", DEFAULT_ROUGHNESS),
    }
    material = {"name": "material", "pbrMetallicRoughness": surface, "doubleSided": False}
    for place, name, pixels in (
        (surface, "baseColorTexture", mesh.texture),
        (material, "normalTexture", given.get("normal_texture")),
        (surface, "metallicRoughnessTexture", given.get("metallic_roughness_texture")),
    ):
        if pixels is not None:
            place[name] = {"index": parts.add_image(pixels)}
    return material


def _factor(materials: dict[str, Any], name: str, default: float) -> float:
    # With a map the factor multiplies it: 1 leaves the map as it is.
    has_map = materials.get("metallic_roughness_texture") is not None
    value = materials.get(name, 1.0 if has_map else default)
    if not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise InvalidConfigError(
            f"Material {name} is {value!r}; expected a number from 0 to 1.",
            details={"material": name},
        )
    return float(value)


def _pack(tree: dict[str, Any], chunks: list[bytes], length: int) -> bytes:
    try:
        text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(
            f"The mesh's receipt cannot be written as JSON: {error}.",
            hint="Keep only strings, finite numbers, booleans, lists and dicts in extras.",
        ) from error
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + length
    head = struct.pack("<4sIII4s", b"glTF", 2, total, len(text), _JSON_CHUNK)
    return b"".join([head, text, struct.pack("<I4s", length, _BIN_CHUNK), *chunks])
