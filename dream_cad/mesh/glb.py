"""The GLB writer: trimesh's exporter plus what it leaves to us.

trimesh writes vertex colours as they come in 8 bits. glTF 2.0 wants COLOR_0 in linear light,
where 8 bits are too few in the shadows, so the colours go in as normalised 16-bit numbers.
"""

from __future__ import annotations

import json
import struct
from typing import Any, cast

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.exchange.gltf import export_glb
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from dream_cad.exceptions import FileFormatError, InvalidConfigError
from dream_cad.mesh.color import srgb_to_linear
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.normals import vertex_normals

_UNSIGNED_SHORT = 5123
_JSON_CHUNK = b"JSON"
# Without a material glTF means polished metal; generated albedo looks right as matt plastic.
DEFAULT_METALLIC, DEFAULT_ROUGHNESS = 0.0, 0.9


def glb_bytes(mesh: MeshData) -> bytes:
    """Return a binary glTF 2.0 file with normals, appearance and the receipt in asset.extras."""
    visual = TextureVisuals(uv=mesh.uv_coords, material=_material(mesh))
    normals = vertex_normals(mesh.vertices, mesh.faces)
    bare = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=normals, visual=visual, process=False
    )
    extras = _json_extras(mesh.extras)

    def add_colors(buffers: Any, tree: dict[str, Any]) -> None:
        # A texture multiplies COLOR_0, so colours are written only where there is none.
        if mesh.vertex_colors is not None and mesh.texture is None:
            _append_colors(buffers, tree, mesh.vertex_colors)

    def describe(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = "dream_cad"
        if extras:
            tree["asset"]["extras"] = extras

    content = export_glb(
        bare,
        include_normals=True,
        buffer_postprocessor=add_colors,
        tree_postprocessor=describe,
    )
    return bytes(content)


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


def _material(mesh: MeshData) -> PBRMaterial:
    given = mesh.materials or {}
    return PBRMaterial(
        name="material",
        baseColorFactor=[1.0, 1.0, 1.0, 1.0],
        baseColorTexture=_image(mesh.texture),
        metallicFactor=_factor(given, "metallic", DEFAULT_METALLIC),
        roughnessFactor=_factor(given, "roughness", DEFAULT_ROUGHNESS),
        normalTexture=_image(given.get("normal_texture")),
        metallicRoughnessTexture=_image(given.get("metallic_roughness_texture")),
        doubleSided=False,
    )


def _factor(materials: dict[str, Any], name: str, default: float) -> float:
    # With a map the factor multiplies it: 1 leaves the map as it is.
    value = materials.get(name, 1.0 if "metallic_roughness_texture" in materials else default)
    if not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise InvalidConfigError(
            f"Material {name} is {value!r}; expected a number from 0 to 1.",
            details={"material": name},
        )
    return float(value)


def _image(pixels: NDArray[np.uint8] | None) -> Image.Image | None:
    return None if pixels is None else Image.fromarray(pixels)


def _append_colors(buffers: Any, tree: dict[str, Any], colors: NDArray[np.uint8]) -> None:
    rgba = np.full((len(colors), 4), 65_535, dtype="<u2")
    rgba[:, :3] = np.rint(srgb_to_linear(colors / 255.0) * 65_535)
    buffers["COLOR_0"] = rgba.tobytes()
    tree["accessors"]["COLOR_0"] = {
        "bufferView": len(buffers) - 1,
        "byteOffset": 0,
        "componentType": _UNSIGNED_SHORT,
        "normalized": True,
        "type": "VEC4",
        "count": len(rgba),
    }
    primitive = tree["meshes"][0]["primitives"][0]
    primitive["attributes"]["COLOR_0"] = len(tree["accessors"]) - 1


def _json_extras(extras: dict[str, Any]) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(json.dumps(extras, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(
            f"The mesh's receipt cannot be written as JSON: {error}.",
            hint="Keep only strings, finite numbers, booleans, lists and dicts in extras.",
        ) from error
