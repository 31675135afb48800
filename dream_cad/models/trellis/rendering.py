"""Views of TRELLIS's representations: for baking, and as previews."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dream_cad.exceptions import InvalidConfigError
from dream_cad.mesh.render import FIRST_AZIMUTH_DEG
from dream_cad.mesh.views import View
from dream_cad.models.trellis.cameras import orbit_view
from dream_cad.models.trellis.field_render import render_field
from dream_cad.models.trellis.representations import Gaussians, RadianceField
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.drawing import draw
from dream_cad.splats.projection import MIP_FILTER

if TYPE_CHECKING:
    from dream_cad.nn.sparse.tensor import SparseTensor

Appearance = Gaussians | RadianceField
Floats = NDArray[np.float32]

_ELEVATION_DEG = 20.0
_PREVIEW_RADIUS = 2.4
_PREVIEW_BACKGROUND = np.array([246, 246, 248], np.float32) / 255
_MAX_PREVIEWS = 64
_VOXEL_FILL = 0.45


def world_cloud(splats: Gaussians) -> GaussianCloud:
    """Return the splats in the world (z up), as they are seen."""

    def array(values: torch.Tensor) -> Floats:
        return values.detach().float().cpu().numpy()

    return GaussianCloud(
        array(splats.positions),
        array(splats.opacities[:, 0]),
        array(splats.scales),
        array(splats.rotations),
        array(splats.colors),
    )


def device_of(appearance: Appearance | GaussianCloud) -> str:
    """Return the device of the tensors; a cloud's arrays are on the CPU."""
    if isinstance(appearance, GaussianCloud):
        return "cpu"
    if isinstance(appearance, Gaussians):
        return str(appearance.xyz.device)
    return str(appearance.trivec.device)


def picture_of(
    appearance: Appearance | GaussianCloud, view: View, size: int, device: str = "cpu"
) -> tuple[Floats, Floats]:
    """Render one view.

    Args:
        appearance: splats, their cloud in the world (saves converting them for each view), or a
            radiance field.
        view: the camera.
        size: S, pixels a side.
        device: where a cloud is drawn; a radiance field is where its tensors are.

    Returns:
        (S, S, 3) in [0, 1] on black, and alpha (S, S).
    """
    if isinstance(appearance, RadianceField):
        field = render_field(appearance, view, size=size)
        return field.image.transpose(1, 2, 0), field.alpha
    cloud = appearance if isinstance(appearance, GaussianCloud) else world_cloud(appearance)
    black = (0.0, 0.0, 0.0)
    seen = draw(cloud, view, size=size, background=black, screen_filter=MIP_FILTER, device=device)
    return seen.image.transpose(1, 2, 0), seen.alpha


def preview(
    appearance: Appearance | GaussianCloud, *, views: int = 4, size: int = 384
) -> NDArray[np.uint8]:
    """Render a turntable of splats or of a radiance field, as ``render_turntable`` does meshes.

    Args:
        appearance: see ``picture_of``.
        views: pictures side by side, 1..64, the first a three-quarter view of the front.
        size: height and width of each in pixels.

    Returns:
        (size, views * size, 3) uint8 on a light background.

    Raises:
        InvalidConfigError: a number is out of range.
    """
    if not 1 <= views <= _MAX_PREVIEWS:
        raise InvalidConfigError(f"views is {views}; expected 1..{_MAX_PREVIEWS}.")
    device = device_of(appearance)
    if isinstance(appearance, Gaussians):
        appearance = world_cloud(appearance)
    pictures = []
    for number in range(views):
        # glTF's front +z is the world's -y: half a turn from where yaw 0 looks
        azimuth = FIRST_AZIMUTH_DEG + 360.0 * number / views
        view = orbit_view(
            math.pi - math.radians(azimuth), math.radians(_ELEVATION_DEG), _PREVIEW_RADIUS
        )
        color, alpha = picture_of(appearance, view, size, device)
        pictures.append(color + (1 - alpha[..., None]) * _PREVIEW_BACKGROUND)
    sheet = np.rint(np.concatenate(pictures, axis=1).clip(0, 1) * 255)
    turntable: NDArray[np.uint8] = sheet.astype(np.uint8)
    return turntable


def preview_latent(
    latent: SparseTensor, resolution: int, *, views: int = 4, size: int = 384
) -> NDArray[np.uint8]:
    """Render a structured latent: a ball a voxel, coloured by its main three components.

    Args:
        latent: one object.
        resolution: voxels along an axis of its grid.
        views: as for ``preview``.
        size: as for ``preview``.
    """
    places = latent.voxels.coords[:, 1:].float().cpu().numpy()
    count = len(places)
    cloud = GaussianCloud(
        ((places + 0.5) / resolution - 0.5).astype(np.float32),
        np.full(count, 0.95, np.float32),
        np.full((count, 3), _VOXEL_FILL / resolution, np.float32),
        np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        main_components(latent.feats.float().cpu().numpy()),
    )
    return preview(cloud, views=views, size=size)


def main_components(feats: Floats) -> Floats:
    """Return (N, 3) in [0, 1]: features (N, C) along their three main axes, spread by rank."""
    centred = feats.astype(np.float64) - feats.mean(axis=0)
    axes = np.linalg.svd(centred.T @ centred)[0][:, :3]
    # an axis has no sign of its own: the largest entry is made positive, so that pictures repeat
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    values = centred @ (axes * np.sign(largest))
    ranks = values.argsort(axis=0).argsort(axis=0) / max(len(feats) - 1, 1)
    shown = np.full((len(feats), 3), 0.5, np.float32)
    shown[:, : ranks.shape[1]] = ranks
    return shown
