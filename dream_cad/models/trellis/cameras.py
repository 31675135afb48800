"""Where TRELLIS looks from (spec, section 12): all around for baking, a wave for videos."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.views import View, look_at
from dream_cad.models.trellis.representations import radical_inverse

RADIUS, FOV_DEG = 2.0, 40.0
_MAX_VIEWS = 10_000
_VIDEO_TURN = 2 * 3.1415  # as published


def sphere_angles(count: int) -> NDArray[np.float64]:
    """Return yaw and pitch (count, 2) in radians of a Hammersley set on the sphere.

    Raises:
        InvalidConfigError: not 1..10,000 views.
    """
    if not 1 <= count <= _MAX_VIEWS:
        raise InvalidConfigError(f"{count} views were asked for; expected 1..{_MAX_VIEWS}.")
    u = np.arange(count) / count
    yaw = 2 * math.pi * np.array(radical_inverse(2, count))
    return np.stack([yaw, np.arccos(1 - 2 * u) - math.pi / 2], axis=1)


def video_angles(count: int) -> NDArray[np.float64]:
    """Return yaw and pitch (count, 2) of the published video: one turn, up and down once."""
    turn = np.linspace(0, _VIDEO_TURN, count)
    return np.stack([turn, 0.25 + 0.5 * np.sin(turn)], axis=1)


def orbit_view(yaw: float, pitch: float, radius: float = RADIUS, fov_deg: float = FOV_DEG) -> View:
    """Return the view from a place around the origin, z up.

    Args:
        yaw: radians; 0 looks from +y, a quarter turn from +x.
        pitch: radians above the horizon.
        radius: distance.
        fov_deg: angle of view.
    """
    # In single precision straight up and down are a hair off, which settles where right is.
    sin_yaw, cos_yaw = np.sin(np.float32(yaw)), np.cos(np.float32(yaw))
    sin_pitch, cos_pitch = np.sin(np.float32(pitch)), np.cos(np.float32(pitch))
    direction = np.array([sin_yaw * cos_pitch, cos_yaw * cos_pitch, sin_pitch], np.float32)
    return View(look_at(np.float32(radius) * direction), fov_deg)


def sphere_views(count: int) -> list[View]:
    """Return ``count`` views spread over the sphere; see ``sphere_angles``."""
    return [orbit_view(yaw, pitch) for yaw, pitch in sphere_angles(count).tolist()]
