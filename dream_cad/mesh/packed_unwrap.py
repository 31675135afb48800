"""UV atlases for game assets: few flat charts, packed tightly at one texel density."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dream_cad.mesh.charts import cut_into_charts
from dream_cad.mesh.checks import check_mesh
from dream_cad.mesh.data import MeshData
from dream_cad.mesh.packing import pack_charts
from dream_cad.mesh.unwrap import UvAtlas, check_texture_size


def packed_unwrap(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int32],
    *,
    texture_size: int,
    padding: int,
) -> UvAtlas:
    """Unwrap a mesh into projected charts that fill most of the square.

    Several times faster than xatlas on large meshes, and no chart overlaps. Vertices are shared
    inside charts, so that fewer are exported than by ``box_project_unwrap``.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int32, counter-clockwise outside.
        texture_size: side of the texture in texels, 16..8192.
        padding: texels between charts, 0..texture_size / 8.

    Raises:
        InvalidConfigError: a size is out of range.
        ShapeError: the mesh is empty or inconsistent.
        GenerationError: more charts than the texture has room for.
    """
    check_texture_size(texture_size, padding)
    check_mesh(MeshData(vertices, faces))
    charts = cut_into_charts(vertices, faces)
    placed = pack_charts(charts, texture_size=texture_size, padding=padding)
    # One vertex for each pair of vertex and chart.
    key = (charts.label[:, None] * len(vertices) + faces).ravel()
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return UvAtlas(
        vmapping=faces.ravel()[first].astype(np.int64),
        faces=inverse.reshape(faces.shape).astype(np.int32),
        uvs=np.clip(placed.reshape(-1, 2)[first], 0, 1).astype(np.float32),
    )
