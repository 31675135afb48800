"""Textured OBJ files: geometry, an MTL file and the pictures it names.

MTL knows the base colour of old. Roughness, metallic and normal maps follow the extension that
Blender, Assimp and others read (``Pr``, ``Pm``, ``map_Pr``, ``map_Pm``, ``norm``); readers that
do not know it skip those lines.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.visual.material import SimpleMaterial
from trimesh.visual.texture import TextureVisuals

from dream_cad.mesh.data import MeshData

HEADER = "dream_cad"
_ROUGHNESS_CHANNEL, _METALLIC_CHANNEL = 1, 2  # glTF 2.0's metallic-roughness map


def textured_obj(
    bare: trimesh.Trimesh, mesh: MeshData, texture: NDArray[np.uint8], stem: str
) -> dict[str, bytes]:
    """Return suffix of the file name -> content, in the order to publish them; the obj last.

    Args:
        bare: the geometry with normals.
        mesh: UV and materials of the same vertices.
        texture: (H, W, 3) uint8, the base colour.
        stem: what the files are called; without blanks, because readers split names there.
    """
    white = [255, 255, 255, 255]
    material = SimpleMaterial(
        image=Image.fromarray(texture), diffuse=white, ambient=white, specular=[0, 0, 0, 255]
    )
    material.name = stem
    bare.visual = TextureVisuals(uv=mesh.uv_coords, material=material)
    text, files = export_obj(
        bare,
        include_normals=True,
        return_texture=True,
        write_texture=False,
        mtl_name=f"{stem}.mtl",
        header=HEADER,
    )
    lines, maps = _material_lines(mesh.materials or {}, stem)
    mtl = files.pop(f"{stem}.mtl").rstrip() + "".join(f"\n{line}" for line in lines).encode()
    pictures = {name: bytes(content) for name, content in files.items()} | maps
    return pictures | {f"{stem}.mtl": mtl + b"\n", f"{stem}.obj": str(text).encode()}


def _material_lines(materials: dict[str, Any], stem: str) -> tuple[list[str], dict[str, bytes]]:
    """Return the MTL lines beside the base colour, and the pictures they name."""
    factors = {"Pr": materials.get("roughness"), "Pm": materials.get("metallic")}
    lines = [f"{key} {float(value):.8f}" for key, value in factors.items() if value is not None]
    pictures = {}
    packed = materials.get("metallic_roughness_texture")
    if packed is not None:
        pictures["map_Pr", "roughness"] = packed[..., _ROUGHNESS_CHANNEL]
        pictures["map_Pm", "metallic"] = packed[..., _METALLIC_CHANNEL]
    if materials.get("normal_texture") is not None:
        pictures["norm", "normal"] = materials["normal_texture"]
    lines += [f"{key} {stem}_{suffix}.png" for key, suffix in pictures]
    maps = {f"{stem}_{suffix}.png": _png(image) for (_, suffix), image in pictures.items()}
    return lines, maps


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()
