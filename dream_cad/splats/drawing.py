"""Pictures of Gaussians by the fastest renderer at hand: gsplat on a GPU that has it, or ours."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dream_cad.mesh.views import View
from dream_cad.splats import tiles
from dream_cad.splats.cloud import GaussianCloud
from dream_cad.splats.projection import NEAR, PLAIN_FILTER, ScreenFilter
from dream_cad.splats.rasterise import SplatPicture

_GSPLAT_TILE = 16
_log = logging.getLogger(__name__)


def draw(
    cloud: GaussianCloud,
    view: View,
    *,
    size: int,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    screen_filter: ScreenFilter = PLAIN_FILTER,
    device: str | torch.device = "cpu",
) -> SplatPicture:
    """Draw a cloud; arguments and errors are those of ``tiles.draw``.

    gsplat (Apache-2.0, an optional package that compiles itself) draws on CUDA where it is
    installed and works; its tiles may lose what a Gaussian adds beyond three deviations, up to
    0.011 of alpha. Everywhere else ``tiles.draw`` does.
    """
    renderer = load_gsplat() if torch.device(device).type == "cuda" else None
    if renderer is None or screen_filter.tile not in (None, _GSPLAT_TILE):
        return tiles.draw(
            cloud,
            view,
            size=size,
            background=background,
            screen_filter=screen_filter,
            device=device,
        )
    return draw_with_gsplat(renderer, cloud, view, size, background, screen_filter, device)


@lru_cache
def load_gsplat() -> Any | None:
    """Return the package if it is installed and its kernels are there; looked up once."""
    if importlib.util.find_spec("gsplat") is None:
        return None
    try:
        kernels = importlib.import_module("gsplat.cuda._backend")._C
    except (ImportError, OSError, RuntimeError) as error:  # the package compiles on import
        kernels, reason = None, f"{type(error).__name__}: {error}"
    else:
        reason = "no CUDA toolkit was found"
    if kernels is None:
        _log.warning("gsplat is installed but has no kernels (%s); our renderer draws", reason)
        return None
    return importlib.import_module("gsplat")


def draw_with_gsplat(
    gsplat: Any,
    cloud: GaussianCloud,
    view: View,
    size: int,
    background: tuple[float, float, float],
    screen_filter: ScreenFilter,
    device: str | torch.device,
) -> SplatPicture:
    """Draw a cloud with gsplat; its pixels' centres lie at halves, ours at whole numbers.

    The opacity lowered by as much as the filter widens is its "antialiased" mode.
    """

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)

    focal = size / (2 * view.tangent)
    camera = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    drawn, alpha, facts = gsplat.rasterization(
        means=tensor(cloud.positions),
        quats=tensor(cloud.rotations),
        scales=tensor(cloud.scales),
        opacities=tensor(cloud.opacities),
        colors=tensor(cloud.colors),
        viewmats=tensor(view.world_to_camera)[None],
        Ks=tensor(camera)[None],
        width=size,
        height=size,
        near_plane=NEAR,
        eps2d=screen_filter.blur,
        packed=False,
        tile_size=_GSPLAT_TILE,
        render_mode="RGB+D",
        rasterize_mode="antialiased" if screen_filter.keeps_weight else "classic",
    )
    picture, opaque = drawn[0].cpu(), alpha[0, ..., 0].cpu()
    image = picture[..., :3] + (1 - opaque[..., None]) * torch.tensor(background)
    radii = facts["radii"][0].reshape(len(cloud), -1).amax(dim=1)
    return SplatPicture(
        image.clamp(0, 1).permute(2, 0, 1).contiguous().numpy(),
        opaque.contiguous().numpy(),
        picture[..., 3].contiguous().numpy(),
        radii.long().cpu().numpy(),
    )
