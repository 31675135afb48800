"""A texture baked from a radiance field of full size: seconds, memory, and whether it is right.

``python -m benchmarks.field_baking`` writes results/field_baking.json. The field is a shell of a
ball in TRELLIS's grid of 64³ with its rank and length, so some 21,000 voxels, painted by octant;
its walls are opaque, or let some light through, which costs more samples a ray. The baked colours
are compared with the octants' at the mesh's vertices, away from their borders; through translucent
walls the black background and the other side show, so they differ there.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import psutil
import torch
import trimesh
from numpy.typing import NDArray

from benchmarks.environment import describe_machine, write_result
from dream_cad.mesh.data import MeshData
from dream_cad.models.trellis.mesh_extraction import ExtractedMesh
from dream_cad.models.trellis.representations import RadianceField
from dream_cad.models.trellis.textured_mesh import to_textured_mesh

GRID, RANK, LENGTH, RADIUS = 64, 16, 8, 0.4
WALLS = {"opaque": 20.0, "translucent": 1.0}
_SH_0 = 0.28209479177387814  # the constant spherical harmonic
_BORDER = 0.04


def octants(points: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Colours (P, 3): each axis lights one channel on its positive side."""
    colors: NDArray[np.float32] = (0.5 + 0.4 * np.sign(points)).astype(np.float32)
    return colors


def shell(density: float) -> RadianceField:
    """A painted ball, a voxel or two thick."""
    axis = np.arange(GRID)
    coords = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = (coords + 0.5) / GRID - 0.5
    kept = np.abs(np.linalg.norm(centres, axis=1) - RADIUS) < 0.02
    count = int(kept.sum())
    # Colour is the logistic function of all ranks' sum (TRELLIS spec, section 11b).
    dc = torch.logit(torch.from_numpy(octants(centres[kept]))) / (RANK * _SH_0)
    return RadianceField(
        torch.ones(count, RANK, 3, LENGTH),
        torch.full((count, RANK), density),
        dc[:, None, None].expand(-1, RANK, -1, -1).contiguous(),
        torch.from_numpy((centres[kept] + 0.5).astype(np.float32)),
        torch.full((count, 1), 6, dtype=torch.uint8),
    )


def ball() -> ExtractedMesh:
    """The surface in the middle of the shell, 81,920 faces."""
    mesh = trimesh.creation.icosphere(6, RADIUS)
    vertices = np.asarray(mesh.vertices, np.float32)
    return ExtractedMesh(
        vertices, np.asarray(mesh.faces, np.int64), np.full((len(vertices), 6), 0.5)
    )


def color_error(mesh: MeshData) -> float:
    """Mean difference of the texture from the octants, of 1, at vertices off their borders."""
    assert mesh.texture is not None
    assert mesh.uv_coords is not None
    world = np.stack([mesh.vertices[:, 0], -mesh.vertices[:, 2], mesh.vertices[:, 1]], axis=1)
    clear = (np.abs(world) > _BORDER).all(axis=1)
    side = mesh.texture.shape[0]
    texel = np.clip((mesh.uv_coords[clear] * side).astype(int), 0, side - 1)
    seen = mesh.texture[side - 1 - texel[:, 1], texel[:, 0]] / 255
    return float(np.abs(seen - octants(world[clear])).mean())


def measure(density: float) -> dict[str, Any]:
    """Bake once."""
    field, mesh = shell(density), ball()
    begun, cpu = time.perf_counter(), time.process_time()
    made = to_textured_mesh(mesh, field, simplify=0.75, texture_size=1024)
    return {
        "voxels": len(field.position),
        "faces": len(made.faces),
        "wall_s": round(time.perf_counter() - begun, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "process_gib": round(psutil.Process().memory_info().rss / 2**30, 2),
        "color_error": round(color_error(made), 4),
    }


def main() -> None:
    """Measure, print and write."""
    result = {"machine": describe_machine(), **{name: measure(d) for name, d in WALLS.items()}}
    write_result("field_baking", result)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
