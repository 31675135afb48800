"""The GLB writer: trimesh's exporter plus what it leaves to us.

trimesh writes vertex colours as they come in 8 bits. glTF 2.0 wants COLOR_0 in linear light,
where 8 bits are too few in the shadows, so the colours go in as normalised 16-bit numbers.
Base colours are sRGB, the other maps linear: glTF says so by a map's place, hence their bytes go
in as they are. A normal map brings the tangents it was baked for, so that every viewer agrees.
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
from dream_cad.mesh.tangents import vertex_tangents

_UNSIGNED_SHORT, _FLOAT = 5123, 5126
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
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

    def add_attributes(buffers: Any, tree: dict[str, Any]) -> None:
        # A texture multiplies COLOR_0, so colours are written only where there is none.
        if mesh.vertex_colors is not None and mesh.texture is None:
            _append_colors(buffers, tree, mesh.vertex_colors)
        has_bumps = (mesh.materials or {}).get("normal_texture") is not None
        if mesh.uv_coords is not None and has_bumps:
            tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv_coords, normals)
            _append(buffers, tree, "TANGENT", tangents.astype("<f4"), _FLOAT)

    def describe(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = "dream_cad"
        _name_targets(tree)
        if extras:
            tree["asset"]["extras"] = extras

    content = export_glb(
        bare,
        include_normals=True,
        buffer_postprocessor=add_attributes,
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
    has_map = materials.get("metallic_roughness_texture") is not None
    value = materials.get(name, 1.0 if has_map else default)
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
    _append(buffers, tree, "COLOR_0", rgba, _UNSIGNED_SHORT)


def _append(
    buffers: Any, tree: dict[str, Any], name: str, values: NDArray[Any], component: int
) -> None:
    """Add an attribute (V, 4) to the only primitive."""
    buffers[name] = values.tobytes()
    tree["accessors"][name] = {
        "bufferView": len(buffers) - 1,
        "byteOffset": 0,
        "componentType": component,
        "normalized": component != _FLOAT,
        "type": "VEC4",
        "count": len(values),
    }
    primitive = tree["meshes"][0]["primitives"][0]
    primitive["attributes"][name] = len(tree["accessors"]) - 1


def _name_targets(tree: dict[str, Any]) -> None:
    """Say of each buffer view what it is for, which lets viewers upload it without a look."""
    views, accessors = tree["bufferViews"], tree["accessors"]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            views[accessors[primitive["indices"]]["bufferView"]]["target"] = _INDEX_BUFFER
            for accessor in primitive["attributes"].values():
                views[accessors[accessor]["bufferView"]]["target"] = _VERTEX_BUFFER


def _json_extras(extras: dict[str, Any]) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(json.dumps(extras, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(
            f"The mesh's receipt cannot be written as JSON: {error}.",
            hint="Keep only strings, finite numbers, booleans, lists and dicts in extras.",
        ) from error
