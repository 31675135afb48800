"""GLB files taken apart and put together: names, several meshes in one file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_cad.exceptions import FileFormatError
from dream_cad.mesh.glb import read_glb_tree

_MAGIC, _VERSION = 0x46546C67, 2
_JSON, _BIN = 0x4E4F534A, 0x004E4942

_REFERENCES = {
    "accessors": ("bufferView",),
    "images": ("bufferView",),
    "textures": ("source", "sampler"),
    "nodes": ("mesh",),
}
"""Which numbers of a section's entries point into another section."""
_POINTS_INTO = {
    "bufferView": "bufferViews",
    "source": "images",
    "sampler": "samplers",
    "mesh": "meshes",
}
_SECTIONS = (
    "bufferViews", "accessors", "images", "samplers", "textures", "materials", "meshes", "nodes",
)  # fmt: skip


@dataclass
class GlbParts:
    """The two chunks of a GLB file: the scene's description, and the bytes it points into."""

    tree: dict[str, Any]
    data: bytes

    def view(self, index: int) -> bytes:
        """Return the bytes of a buffer view."""
        view = self.tree["bufferViews"][index]
        start = view.get("byteOffset", 0)
        return self.data[start : start + view["byteLength"]]


def read_glb(content: bytes) -> GlbParts:
    """Take a GLB file apart.

    Raises:
        FileFormatError: it is none, or cut short.
    """
    tree = read_glb_tree(content)
    (length,) = struct.unpack_from("<I", content, 12)
    start = 20 + length
    if len(content) < start + 8:
        return GlbParts(tree, b"")
    size, kind = struct.unpack_from("<II", content, start)
    if kind != _BIN or len(content) < start + 8 + size:
        raise FileFormatError("The GLB's binary part is cut short.")
    return GlbParts(tree, content[start + 8 : start + 8 + size])


def write_glb(parts: GlbParts) -> bytes:
    """Put a GLB file together."""
    data = _padded(parts.data, b"\0")
    tree = {**parts.tree, "buffers": [{"byteLength": len(data)}]}
    text = _padded(json.dumps(tree, separators=(",", ":")).encode(), b" ")
    total = 12 + 8 + len(text) + 8 + len(data)
    return b"".join(
        [
            struct.pack("<III", _MAGIC, _VERSION, total),
            struct.pack("<II", len(text), _JSON),
            text,
            struct.pack("<II", len(data), _BIN),
            data,
        ]
    )


def named(content: bytes, name: str) -> bytes:
    """Name the only mesh of a GLB file, its node and its material; importers show these names."""
    parts = read_glb(content)
    _name(parts.tree, name)
    return write_glb(parts)


def joined(contents: Mapping[str, bytes]) -> bytes:
    """Return one GLB with the meshes of several, each under its own name, side by side.

    Args:
        contents: name -> GLB with one mesh; the first one's receipt is kept.
    """
    whole: dict[str, Any] = {section: [] for section in _SECTIONS}
    roots: list[int] = []
    data = b""
    asset: dict[str, Any] | None = None
    for name, content in contents.items():
        parts = read_glb(content)
        _name(parts.tree, name)
        asset = asset or parts.tree["asset"]
        roots += _append(whole, parts.tree, len(data))
        data += _padded(parts.data, b"\0")
    tree = {section: entries for section, entries in whole.items() if entries}
    tree |= {"asset": asset, "scene": 0, "scenes": [{"nodes": roots}]}
    return write_glb(GlbParts(tree, data))


def _append(whole: dict[str, Any], tree: dict[str, Any], data_start: int) -> list[int]:
    """Append a file's sections, moved by what is there; returns the numbers of its root nodes."""
    start = {section: len(whole[section]) for section in _SECTIONS}
    for view in tree.get("bufferViews", ()):
        view["byteOffset"] = view.get("byteOffset", 0) + data_start
    _move_entries(tree, start)
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            _move_primitive(primitive, start)
    for material in tree.get("materials", ()):
        _move_textures(material, start["textures"])
    for section in _SECTIONS:
        whole[section] += tree.get(section, [])
    return [root + start["nodes"] for root in tree["scenes"][tree.get("scene", 0)]["nodes"]]


def _move_entries(tree: dict[str, Any], start: dict[str, int]) -> None:
    for section, names in _REFERENCES.items():
        for entry in tree.get(section, ()):
            for name in names:
                if name in entry:
                    entry[name] += start[_POINTS_INTO[name]]
    for node in tree["nodes"]:
        if "children" in node:
            node["children"] = [child + start["nodes"] for child in node["children"]]


def _move_primitive(primitive: dict[str, Any], start: dict[str, int]) -> None:
    attributes = primitive["attributes"]
    for name in attributes:
        attributes[name] += start["accessors"]
    for name, section in (("indices", "accessors"), ("material", "materials")):
        if name in primitive:
            primitive[name] += start[section]


def _move_textures(material: dict[str, Any], start: int) -> None:
    for key, value in material.items():
        if key.endswith("Texture"):
            value["index"] += start
        elif key == "pbrMetallicRoughness":
            _move_textures(value, start)


def _name(tree: dict[str, Any], name: str) -> None:
    for mesh in tree["meshes"]:
        mesh["name"] = name
    for node in tree["nodes"]:
        if "mesh" in node:
            node["name"] = name
    for number, material in enumerate(tree.get("materials", ())):
        material["name"] = f"M_{name}" if number == 0 else f"M_{name}_{number}"


def _padded(content: bytes, filler: bytes) -> bytes:
    return content + filler * (-len(content) % 4)
