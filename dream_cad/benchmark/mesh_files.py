"""Mesh files of any tool, read for measuring: nothing is refused for being a bad mesh.

Headers are checked against the file's size before a parser sees them, so that huge counts cost
nothing; trimesh parses what passes.
"""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.resolvers import FilePathResolver

from dream_cad.benchmark.glb_limits import check_glb
from dream_cad.exceptions import DreamCadError, FileFormatError, PayloadTooLargeError, StorageError
from dream_cad.mesh.data import MeshData

READABLE = ("obj", "ply", "stl", "glb", "off")
_ARCHIVES = ("3mf", "usdz", "zip")
MAX_FILE_BYTES = 512 * 2**20
MAX_FACES = 2_000_000
MAX_VERTICES = 3 * MAX_FACES
MAX_TEXTURE_PIXELS = 64_000_000
_OBJ_OTHER_LINES = 100_000
_OBJ_SMALLEST = {b"v ": len("v 0 0 0\n"), b"vt": len("vt 0\n"), b"vn": len("vn 0 0 0\n")}
_OBJ_SMALLEST_FACE = len("f 1 2 3\n")
_MAPS = {
    "baseColorTexture": "base colour",
    "image": "base colour",
    "normalTexture": "normal",
    "metallicRoughnessTexture": "metallic-roughness",
    "occlusionTexture": "occlusion",
    "emissiveTexture": "emissive",
}


@dataclass(frozen=True)
class RawMesh:
    """A mesh as a file holds it; indices and positions are not checked.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
        uv: (V, 2) float64 or None.
        texture: (H, W, 3) uint8 base colour of the largest part or None.
        vertex_colors: (V, 3) uint8 or None.
        maps: names of the texture maps and attributes present.
        draw_calls: parts (glTF primitives); an engine that merges nothing draws each by itself.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float64] | None = None
    texture: NDArray[np.uint8] | None = None
    vertex_colors: NDArray[np.uint8] | None = None
    maps: list[str] = field(default_factory=list)
    draw_calls: int = 1


def from_mesh_data(mesh: MeshData) -> RawMesh:
    """Return the raw record of a mesh in memory."""
    materials = mesh.materials or {}
    named = {"normal_texture": "normal", "metallic_roughness_texture": "metallic-roughness"}
    maps = [title for name, title in named.items() if materials.get(name) is not None]
    if mesh.texture is not None:
        maps.insert(0, "base colour")
    if mesh.vertex_colors is not None:
        maps.append("vertex colours")
    return RawMesh(
        vertices=np.asarray(mesh.vertices, dtype=np.float64),
        faces=np.asarray(mesh.faces, dtype=np.int64),
        uv=None if mesh.uv_coords is None else np.asarray(mesh.uv_coords, dtype=np.float64),
        texture=mesh.texture,
        vertex_colors=mesh.vertex_colors,
        maps=maps,
    )


def read_mesh_file(path: Path) -> RawMesh:
    """Read an obj, ply, stl, glb or off file.

    Raises:
        StorageError: the file is there but cannot be read.
        FileFormatError: unknown suffix, missing, empty, truncated, over a limit (512 MiB,
            2,000,000 faces, 64 megapixels of texture), or no triangle mesh.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in READABLE:
        raise FileFormatError(
            f"{path.name!r} cannot be assessed; expected one of {', '.join(READABLE)}.",
            hint="Archives are not unpacked; save it as glb." if kind in _ARCHIVES else None,
            details={"allowed": list(READABLE)},
        )
    content = _read(path)
    check_header(path.name, kind, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parsers warn of what the scores then report
            scene = _parse(path, kind, content)
            return _joined(path.name, scene)
    except (DreamCadError, MemoryError):
        raise
    except Exception as error:  # trimesh raises whatever its parsers meet
        raise FileFormatError(f"{path.name!r} is not a readable {kind} file: {error}.") from error


def check_header(name: str, kind: str, content: bytes) -> None:
    """Refuse files whose header promises more than they hold or than is allowed.

    Raises:
        FileFormatError: naming the count.
    """
    checks = {"ply": _ply_counts, "stl": _stl_counts, "off": _off_counts, "obj": _obj_counts}
    try:
        if kind == "glb":
            check_glb(content, max_faces=MAX_FACES, max_vertices=MAX_VERTICES)
            return
        vertices, faces, smallest = checks[kind](content)
    except (DreamCadError, MemoryError):
        raise
    except Exception as error:
        raise FileFormatError(f"{name!r} has no readable {kind} header: {error!r}.") from error
    if not 0 <= vertices <= MAX_VERTICES or not 0 <= faces <= MAX_FACES:
        raise FileFormatError(
            f"{name!r} states {vertices} vertices and {faces} faces; at most {MAX_VERTICES} and "
            f"{MAX_FACES} are assessed.",
            hint="Simplify the mesh first.",
        )
    if smallest > len(content):
        raise FileFormatError(
            f"{name!r} is cut short: its header promises {vertices} vertices and {faces} faces, "
            f"at least {smallest} bytes, but there are {len(content)}."
        )


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FileFormatError(f"There is no file {path}; expected a mesh file.")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise FileFormatError(f"{path.name!r} has {size} bytes; at most {MAX_FILE_BYTES}.")
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}.") from error
    if not content or content.isspace():
        raise FileFormatError(f"{path.name!r} is empty.")
    return content


def _ply_counts(content: bytes) -> tuple[int, int, int]:
    end = content.index(b"end_header", 0, 65_536)
    if not content.startswith(b"ply"):
        raise FileFormatError("The file does not begin with 'ply'.")
    counts = {"vertex": 0, "face": 0}
    for line in content[:end].decode("latin-1").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "element":
            counts[words[1]] = int(words[2])
    return counts["vertex"], counts["face"], end + 2 * sum(counts.values())


def _stl_counts(content: bytes) -> tuple[int, int, int]:
    if content[:5].lower() == b"solid" and b"facet" in content[:4096]:
        faces = content.count(b"endfacet")
        return 3 * faces, faces, len(content)
    (faces,) = struct.unpack_from("<I", content, 80)
    return 3 * faces, faces, 84 + 50 * faces


def _off_counts(content: bytes) -> tuple[int, int, int]:
    lines = [line.split(b"#")[0].split() for line in content[:65_536].splitlines()]
    words = [word for line in lines for word in line][:4]
    if words[0].upper() not in {b"OFF", b"COFF", b"NOFF", b"STOFF"}:
        raise FileFormatError("The file does not begin with 'OFF'.")
    vertices, faces = int(words[1]), int(words[2])
    return vertices, faces, 6 * vertices + 6 * faces


def _obj_counts(content: bytes) -> tuple[int, int, int]:
    faces = content.count(b"\nf ")
    if faces > MAX_FACES:  # at a glance; what follows looks at every line
        return 0, faces, 0
    counts, faces = Counter[bytes](), 0
    for line in _obj_lines(content):
        counts[line[:2]] += 1
        if line[:2] == b"f ":  # polygons become fans; long lines must not hide their triangles
            faces += max(line.count(b" ") - 2, 1)
    others = counts.total() - sum(counts[kind] for kind in (b"f ", *_OBJ_SMALLEST))
    if others > _OBJ_OTHER_LINES:
        raise FileFormatError(
            f"The file has {others} lines of materials, groups and the like; at most "
            f"{_OBJ_OTHER_LINES} are read."
        )
    smallest = sum(counts[kind] * size for kind, size in _OBJ_SMALLEST.items())
    smallest += counts[b"f "] * _OBJ_SMALLEST_FACE
    return max(counts[kind] for kind in _OBJ_SMALLEST), faces, smallest


def _obj_lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines that say something, single spaces between words; one at a time."""
    for line in BytesIO(content):
        kept = b" ".join(line.split())
        if kept and not kept.startswith(b"#"):
            yield kept


def _parse(path: Path, kind: str, content: bytes) -> trimesh.Scene:
    resolver = None
    if kind == "obj":
        # Materials of an obj lie beside it; nothing else is looked up.
        resolver = FilePathResolver(str(path))
        content = b"\n".join(_obj_lines(content))  # the parser takes many times the room of a line
    return trimesh.load_scene(
        BytesIO(content), file_type=kind, resolver=resolver, process=False, maintain_order=True
    )


def _joined(name: str, scene: trimesh.Scene) -> RawMesh:
    parts = []
    for node in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[node]
        mesh = scene.geometry[geometry]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            parts.append((mesh, np.asarray(transform)))
    if not parts:
        raise FileFormatError(f"{name!r} holds no triangles (points, lines or nothing).")
    total = sum(len(mesh.faces) for mesh, _ in parts)
    if total > MAX_FACES:
        raise FileFormatError(f"{name!r} has {total} triangles; at most {MAX_FACES} are assessed.")
    largest = max(parts, key=lambda part: len(part[0].faces))[0]
    positions = [np.asarray(m.vertices, float) @ t[:3, :3].T + t[:3, 3] for m, t in parts]
    starts = np.cumsum([0, *(len(p) for p in positions[:-1])])
    uvs = [getattr(mesh.visual, "uv", None) for mesh, _ in parts]
    has_uv = all(uv is not None and len(uv) == len(p) for uv, p in zip(uvs, positions, strict=True))
    material = getattr(largest.visual, "material", None)
    return RawMesh(
        vertices=np.concatenate(positions),
        faces=np.concatenate(
            [np.asarray(m.faces, np.int64) + s for (m, _), s in zip(parts, starts, strict=True)]
        ),
        uv=np.concatenate([np.asarray(uv, float)[:, :2] for uv in uvs]) if has_uv else None,
        texture=_texture(name, material),
        vertex_colors=_colors([mesh for mesh, _ in parts]),
        maps=_maps([mesh for mesh, _ in parts]),
        draw_calls=len(parts),
    )


def _texture(name: str, material: Any) -> NDArray[np.uint8] | None:
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        return None
    if image.width * image.height > MAX_TEXTURE_PIXELS:
        raise PayloadTooLargeError(
            f"{name!r} has a texture of {image.width} x {image.height}; at most "
            f"{MAX_TEXTURE_PIXELS} pixels."
        )
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _colors(meshes: list[trimesh.Trimesh]) -> NDArray[np.uint8] | None:
    found = []
    for mesh in meshes:
        visual: Any = mesh.visual
        stored = getattr(visual, "vertex_attributes", {}).get("color")
        if stored is None and visual.kind == "vertex":
            stored = visual.vertex_colors
        if stored is None:
            return None
        colors = np.asarray(stored)[:, :3].astype(np.float64)
        kind = np.asarray(stored).dtype
        colors *= 255.0 / np.iinfo(kind).max if kind.kind == "u" else 255.0
        found.append(np.clip(np.rint(colors), 0, 255).astype(np.uint8))
    return np.concatenate(found)


def _maps(meshes: list[trimesh.Trimesh]) -> list[str]:
    found: list[str] = []
    for mesh in meshes:
        material = getattr(mesh.visual, "material", None)
        names = [title for key, title in _MAPS.items() if getattr(material, key, None) is not None]
        found += [title for title in names if title not in found]
    return [*found, "vertex colours"] if _colors(meshes) is not None else found
