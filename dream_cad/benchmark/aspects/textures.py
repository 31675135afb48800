"""Base colour texture and the maps beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from dream_cad.benchmark.scores import PERFECT, Score, geometric_mean
from dream_cad.benchmark.welded import Floats, WeldedMesh

GOOD_RESOLUTION = 1024
_SHARP = 0.02  # mean absolute Laplacian, in units of full scale, of a detailed photograph
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Textures:
    """What the surface is painted with.

    Attributes:
        resolution: smaller side of the base colour texture in texels, 0 without one.
        sharpness: mean absolute Laplacian of its luminance, 0..1 of full scale.
        maps: names of the maps and attributes present.
        baked_light: part (R²) of the luminance over the surface that a linear function of the
            normal explains: near 1 means that light or shadow is painted in; None without colours.
    """

    resolution: int = 0
    sharpness: float = 0.0
    maps: list[str] = field(default_factory=list)
    baked_light: float | None = None


def measure_textures(
    mesh: WeldedMesh,
    texture: NDArray[np.uint8] | None,
    maps: list[str],
    face_colors: NDArray[Any] | None,
) -> Textures:
    """Measure resolution, sharpness and painted light.

    Args:
        mesh: the welded mesh.
        texture: (H, W, 3) uint8 base colour, or None.
        maps: names of what is present.
        face_colors: (F, 3) 0..255 colour in the middle of each welded face, or None.
    """
    light = None if face_colors is None else _baked_light(mesh, np.asarray(face_colors, float))
    if texture is None:
        return Textures(maps=maps, baked_light=light)
    luminance = (texture.astype(np.float32) / 255) @ _LUMINANCE.astype(np.float32)
    sharpness = float(np.abs(laplace(luminance)).mean()) / 4
    return Textures(min(texture.shape[:2]), sharpness, maps, light)


def score_textures(textures: Textures) -> Score:
    """Score a texture: geometric mean of ``100 min(1, side / 1024)`` (weight 2) and ``50 + 50
    min(1, sharpness / 0.02)`` (weight 1); 0 without a texture.

    Painted light is a hint only: some styles paint it on purpose.
    """  # noqa: D205 - the formula belongs into the first sentence
    if textures.resolution == 0:
        present = ", ".join(textures.maps) or "nothing"
        return Score(0.0, f"No base colour texture (present: {present}).")
    parts = {
        "resolution": PERFECT * min(1.0, textures.resolution / GOOD_RESOLUTION),
        "sharpness": 50 + 50 * min(1.0, textures.sharpness / _SHARP),
    }
    hint = ""
    if textures.baked_light is not None and textures.baked_light > 0.5:
        hint = f" {textures.baked_light:.0%} of its brightness follows the normals: baked light?"
    reason = (
        f"{textures.resolution} texels a side, sharpness {textures.sharpness:.4f}; maps: "
        f"{', '.join(textures.maps)}.{hint}"
    )
    return Score(geometric_mean(parts, {"resolution": 2.0, "sharpness": 1.0}), reason)


def _baked_light(mesh: WeldedMesh, colors: Floats) -> float | None:
    """Return R² of luminance against the normal, weighted by area; None for one flat colour."""
    weight = mesh.doubled_area / max(float(mesh.doubled_area.sum()), 1e-300)
    luminance = colors @ _LUMINANCE / 255
    centred = luminance - (weight * luminance).sum()
    variance = float((weight * centred**2).sum())
    if variance < 1e-6:
        return None
    root = np.sqrt(weight)
    columns = np.column_stack([np.ones(len(weight)), mesh.normals]) * root[:, None]
    fitted = np.linalg.lstsq(columns, centred * root, rcond=None)[0]
    residual = float(((centred * root - columns @ fitted) ** 2).sum())
    return float(np.clip(1 - residual / variance, 0, 1))
