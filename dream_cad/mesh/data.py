"""The mesh record that the functions of this package pass around."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MeshData:
    """A triangle mesh with optional appearance, in the exported frame (glTF: +Y up, front +Z).

    Attributes:
        vertices: (V, 3) float32, unit bounding cube centred at the origin once exported.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        vertex_colors: (V, 3) uint8 sRGB, or None.
        uv_coords: (V, 2) float32 in [0, 1], v up, or None.
        texture: (H, W, 3) uint8 sRGB base colour, row 0 is the top (v = 1), or None.
        materials: maps and factors beside the base colour; ``metallic`` and ``roughness`` are
            linear floats in [0, 1]; ``normal_texture`` (tangent space, green along growing v) and
            ``metallic_roughness_texture`` (green roughness, blue metallic) are (H, W, 3) uint8
            linear, row 0 at the top like ``texture``.
        extras: JSON-compatible receipt written into the GLB's ``asset.extras``.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    vertex_colors: NDArray[np.uint8] | None = None
    uv_coords: NDArray[np.float32] | None = None
    texture: NDArray[np.uint8] | None = None
    materials: dict[str, Any] | None = None
    extras: dict[str, Any] = field(default_factory=dict)
