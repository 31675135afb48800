"""Views to LGM's input: cut out, centred, on white, normalised, with their rays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.models.mvdream.cameras import orbit, plucker_rays
from dream_cad.models.mvdream.config import LGMConfig

# MVDream's view 1 shows the front, LGM's view 0 does.
VIEW_ORDER = (1, 2, 3, 0)
BORDER_RATIO = 0.2
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def recenter(
    image: NDArray[Any], mask: NDArray[Any], border_ratio: float = BORDER_RATIO
) -> NDArray[Any]:
    """Crop to the mask's box and paste it, scaled, at the centre of a transparent square.

    As published the box leaves out the mask's last row and column, and pictures are enlarged with
    OpenCV's INTER_AREA too.

    Args:
        image: (H, W, 4) float in [0, 1] or uint8.
        mask: (H, W), nonzero where the object is.
        border_ratio: margin over the square's side.

    Returns:
        (S, S, 4) of the same dtype, S = max(H, W); uint8 is truncated.

    Raises:
        InvalidConfigError: the mask holds no object of at least two by two pixels.
    """
    is_bytes = image.dtype == np.uint8
    picture = image.astype(np.float32) / 255 if is_bytes else image
    rows, columns = np.nonzero(mask)
    if len(rows) == 0 or rows.max() == rows.min() or columns.max() == columns.min():
        raise InvalidConfigError(
            "No object stands out from the background of a view.",
            hint="Look at the views, and try another seed or prompt.",
        )
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    height, width = int(bottom - top), int(right - left)
    size = max(image.shape[:2])
    scale = int(size * (1 - border_ratio)) / max(height, width)
    new_height, new_width = max(int(height * scale), 1), max(int(width * scale), 1)
    y, x = (size - new_height) // 2, (size - new_width) // 2
    result = np.zeros((size, size, image.shape[2]), np.float32)
    result[y : y + new_height, x : x + new_width] = cv2.resize(
        picture[top:bottom, left:right], (new_width, new_height), interpolation=cv2.INTER_AREA
    )
    return (result * 255).astype(np.uint8) if is_bytes else result


def on_white(rgba: NDArray[Any]) -> NDArray[Any]:
    """Composite (H, W, 4) float in [0, 1] on white: (H, W, 3)."""
    alpha = rgba[..., 3:4]
    return np.asarray(rgba[..., :3] * alpha + (1 - alpha))


def default_rays(config: LGMConfig, elevation_deg: float = 0.0) -> Tensor:
    """Return the rays (4, 6, S, S) of the input views.

    Args:
        config: size, field of view and distance.
        elevation_deg: of the cameras in MVDream's sense, positive from above. (LGM's own code
            counts the other way; both agree at 0.)
    """
    cameras = orbit(4, elevation_deg, radius=config.cam_radius)
    return torch.stack([plucker_rays(c, config.input_size, config.fovy) for c in cameras])


def lgm_input(views: Tensor, config: LGMConfig, elevation_deg: float = 0.0) -> Tensor:
    """Put MVDream's views into LGM's order, normalise them and append rays.

    Args:
        views: (4, H, W, 3) in [0, 1] on white, azimuths 0, 90, 180, 270 of MVDream.
        config: sizes.
        elevation_deg: of the views' cameras.

    Returns:
        (1, 4, 9, S, S) float32.

    Raises:
        ShapeError: there are not four views.
    """
    if views.ndim != 4 or len(views) != 4 or views.shape[-1] != 3:
        raise ShapeError(f"Views have shape {tuple(views.shape)}; (4, H, W, 3) was expected.")
    size = config.input_size
    images = views[list(VIEW_ORDER)].permute(0, 3, 1, 2).float()
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(v, device=views.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    rays = default_rays(config, elevation_deg).to(views.device)
    return torch.cat([(images - mean) / std, rays], dim=1)[None]
