"""The package of a profile: every file that its destination wants, and a manifest."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.export import mesh_bytes
from dream_cad.mesh.render import render_turntable
from dream_cad.profiles.draco import compress
from dream_cad.profiles.glb_parts import joined, named
from dream_cad.profiles.hulls import convex_hulls
from dream_cad.profiles.levels import Level, make_levels, texture_size
from dream_cad.profiles.printing import make_solid, write_3mf, write_stl
from dream_cad.profiles.profile import MAX_SIZE, Profile, find_profile, name_words

MANIFEST_FILE = "manifest.json"
_PREVIEW_SIZE = 256
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every entry, so that the same mesh gives the same bytes."""


@dataclass(frozen=True)
class Package:
    """What a profile makes of a mesh.

    Attributes:
        files: name -> content, the manifest last.
        manifest: what ``manifest.json`` says: profile, unit, axes, size, and each file's role.
    """

    files: dict[str, bytes]
    manifest: dict[str, Any]

    def zip_bytes(self) -> bytes:
        """Return all files as one zip; the same mesh gives the same bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()


@dataclass
class _Draft:
    """A package in the making."""

    profile: Profile
    words: list[str]
    files: dict[str, bytes]
    entries: list[dict[str, Any]]
    facts: dict[str, Any]

    def add(self, name: str, content: bytes, role: str, **facts: Any) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self.files[name] = content
        self.entries.append(
            {"name": name, "role": role, "bytes": len(content), "sha256": digest, **facts}
        )

    @property
    def pascal(self) -> str:
        return "".join(word.capitalize() for word in self.words)

    @property
    def kebab(self) -> str:
        return "-".join(self.words)


def build_package(
    mesh: MeshData,
    profile: str,
    *,
    title: str = "",
    size: float | None = None,
    receipt: Mapping[str, Any] | None = None,
) -> Package:
    """Return the files of a profile for a mesh.

    The mesh is scaled to ``size``, stands on the origin (pivot in the middle of its base) and is
    turned to the profile's axes.

    Args:
        mesh: in the exported frame (+Y up, front +Z), any size.
        profile: one of ``PROFILES``.
        title: names files, meshes and materials; a prompt will do.
        size: longest side in the profile's unit (metres; millimetres for printing); its default if
            None.
        receipt: how the mesh was made; goes into the manifest.

    Raises:
        InvalidConfigError: no such profile, or the size is out of range.
        GenerationError: the mesh gives no hull, or no closed body.
        ShapeError: the mesh is empty or inconsistent.
    """
    wanted = find_profile(profile)
    length = wanted.size if size is None else size
    if not 0 < length <= MAX_SIZE:
        raise InvalidConfigError(
            f"The size is {length:g} {wanted.unit}; expected more than 0, at most {MAX_SIZE:g}."
        )
    check_mesh(mesh)
    placed = _placed(replace(mesh, extras={}), length, wanted)
    draft = _Draft(wanted, name_words(title), {}, [], {})
    _BUILDERS[wanted.kind](placed, draft)
    draft.add("preview.png", _preview(mesh), "preview")
    manifest = {
        "profile": wanted.name,
        "name": draft.pascal,
        "title": title,
        "unit": wanted.unit,
        "size": _rounded(np.ptp(placed.vertices, axis=0)),
        "up": wanted.up,
        "front": wanted.front,
        "handedness": "right",
        "pivot": "centre of the base",
        **draft.facts,
        "source": {"vertices": len(mesh.vertices), "faces": len(mesh.faces)},
        "files": draft.entries,
        "receipt": dict(receipt or {}),
    }
    draft.files[MANIFEST_FILE] = json.dumps(manifest, indent=1, default=str).encode()
    return Package(draft.files, manifest)


def _build_unity(mesh: MeshData, draft: _Draft) -> None:
    _add_levels(_levels(mesh, draft.profile), draft, lambda number: f"{draft.pascal}_LOD{number}")
    hulls = _hulls(mesh, draft.profile, f"{draft.pascal}_Collider")
    content = joined({name: mesh_bytes(hull, "glb") for name, hull in hulls.items()})
    draft.add(f"{draft.pascal}_Collider.glb", content, "collision", hulls=_hull_facts(hulls))


def _build_unreal(mesh: MeshData, draft: _Draft) -> None:
    """Put the hulls beside the finest level, under the names by which Unreal knows them."""
    stem = f"SM_{draft.pascal}"
    levels = _levels(mesh, draft.profile)
    hulls = _hulls(mesh, draft.profile, f"UCX_{stem}")
    finest = {stem: mesh_bytes(levels[0].mesh, "glb")}
    bodies = {name: mesh_bytes(hull, "glb") for name, hull in hulls.items()}
    facts = _level_facts(levels[0]) | {"hulls": _hull_facts(hulls)}
    draft.add(f"{stem}.glb", joined(finest | bodies), "level of detail and collision", **facts)
    _add_levels(levels[1:], draft, lambda number: f"{stem}_LOD{number}")


def _build_web(mesh: MeshData, draft: _Draft) -> None:
    levels = _levels(mesh, draft.profile)
    _add_levels(levels, draft, lambda number: draft.kebab + (f"-lod{number}" if number else ""))
    content = compress(draft.files[f"{draft.kebab}.glb"])
    facts = _level_facts(levels[0])
    draft.add(f"{draft.kebab}.draco.glb", content, "compressed copy", **facts)


def _build_print(mesh: MeshData, draft: _Draft) -> None:
    solid = make_solid(mesh, max_faces=draft.profile.faces[0])
    facts = {"faces": len(solid.mesh.faces), "vertices": len(solid.mesh.vertices)}
    draft.facts = {
        "watertight": True,
        "repair": solid.repair,
        "volume_cm3": round(solid.volume / 1000, 4),
    }
    draft.add(f"{draft.kebab}.stl", write_stl(solid.mesh), "body", **facts)
    draft.add(f"{draft.kebab}.3mf", write_3mf(solid.mesh, draft.kebab), "body", **facts)


_BUILDERS: dict[str, Callable[[MeshData, _Draft], None]] = {
    "unity": _build_unity,
    "unreal": _build_unreal,
    "web": _build_web,
    "print": _build_print,
}


def _levels(mesh: MeshData, profile: Profile) -> tuple[Level, ...]:
    return make_levels(mesh, profile.faces, profile.texture_sizes)


def _add_levels(levels: tuple[Level, ...], draft: _Draft, name_of: Callable[[int], str]) -> None:
    for level in levels:
        name = name_of(level.number)
        content = named(mesh_bytes(level.mesh, "glb"), name)
        draft.add(f"{name}.glb", content, "level of detail", **_level_facts(level))


def _level_facts(level: Level) -> dict[str, Any]:
    return {
        "level": level.number,
        "faces": len(level.mesh.faces),
        "vertices": len(level.mesh.vertices),
        "texture": texture_size(level.mesh),
    }


def _hulls(mesh: MeshData, profile: Profile, stem: str) -> dict[str, MeshData]:
    hulls = convex_hulls(mesh, count=profile.hulls, max_faces=profile.hull_faces)
    if len(hulls) == 1 and profile.kind == "unity":
        return {stem: hulls[0]}
    return {f"{stem}_{number:02d}": hull for number, hull in enumerate(hulls)}


def _hull_facts(hulls: Mapping[str, MeshData]) -> list[dict[str, Any]]:
    return [{"name": name, "faces": len(hull.faces)} for name, hull in hulls.items()]


def _placed(mesh: MeshData, length: float, profile: Profile) -> MeshData:
    """Scale to a length, stand on the origin, turn to the profile's axes."""
    points = mesh.vertices.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    side = float((high - low).max())
    base = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    points = (points - base) * (length / side if side > 0 else 1.0)
    if profile.up == "+Z":
        points = np.column_stack([points[:, 0], -points[:, 2], points[:, 1]])
    return replace(mesh, vertices=points.astype(np.float32))


def _rounded(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _preview(mesh: MeshData) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(render_turntable(mesh, size=_PREVIEW_SIZE)).save(buffer, "PNG")
    return buffer.getvalue()
