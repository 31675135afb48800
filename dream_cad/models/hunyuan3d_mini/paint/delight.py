"""Take light and shadow out of a picture before it is painted onto a mesh (spec section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.hunyuan3d_mini.paint.samplers import (
    EulerAncestral,
    NoiseSource,
    SeededNoise,
    run_sampler,
)
from dream_cad.models.hunyuan3d_mini.paint.unet import LATENT_CHANNELS
from dream_cad.models.hunyuan3d_mini.paint.vae import LatentCodec, reference_tensor, to_uint8
from dream_cad.models.hunyuan3d_mini.paint.weights import (
    encode_empty_prompt,
    find_delight_folder,
    load_codec,
    load_delight_unet,
    read_scheduler,
)

SIZE = 512
_MOST_STEPS = 1000
_MATCHED = 0.95
_EROSION = np.ones((3, 3), dtype=np.uint8)

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


class Delight:
    """The delight network with what is done around it.

    Args:
        unet: diffusers' UNet with 8 input channels, in evaluation mode.
        codec: the autoencoder, on the same device.
        text: (1, 77, C) embedding of the empty prompt.
        scheduler: published scheduler_config.json.

    Raises:
        CheckpointError: the schedule is of a network that predicts something else than v.
    """

    def __init__(
        self, unet: Any, codec: LatentCodec, text: Tensor, scheduler: Mapping[str, Any]
    ) -> None:
        self.unet, self.codec, self._text = unet, codec, text
        self._scheduler = dict(scheduler)
        EulerAncestral(self._scheduler, 1)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a checkout of ``tencent/Hunyuan3D-2`` or its delight folder.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit the networks.
        """
        found, place = find_delight_folder(folder), torch.device(device)
        scheduler = read_scheduler(found)
        text = encode_empty_prompt(found, device=place, dtype=dtype)
        codec = load_codec(found, device=place, dtype=dtype)
        unet = load_delight_unet(found, device=place, dtype=dtype)
        return cls(unet, codec, text, scheduler)

    def __call__(
        self,
        image: Image.Image,
        *,
        seed: int = 42,
        num_inference_steps: int = 50,
        progress: ProgressCallback = ignore_progress,
    ) -> Image.Image:
        """Return the picture evenly lit, 512 x 512 RGB on white.

        Args:
            image: RGB, or RGBA with the object opaque; other modes are converted.
            seed: of the noise, which is drawn on the CPU.
            num_inference_steps: 1 to 1000.
            progress: called after each step; what it raises ends the run.

        Raises:
            InvalidConfigError: the number of steps is out of range.
            GenerationError: latents or pictures became NaN or infinite; names the step.
        """
        if not 1 <= num_inference_steps <= _MOST_STEPS:
            raise InvalidConfigError(
                f"num_inference_steps is {num_inference_steps}; 1 to {_MOST_STEPS} were expected."
            )
        # Drawn in the networks' precision, as published runs do: another gives other numbers.
        dtype = next(self.unet.parameters()).dtype
        noise = SeededNoise(seed, self._text.device, drawn_as=dtype)

        def relight(picture: Picture) -> Picture:
            return to_uint8(self.relight(picture, noise, num_inference_steps, progress))

        return delight_with(relight, image)

    @torch.no_grad()
    def relight(
        self,
        picture: Picture,
        noise: NoiseSource,
        steps: int,
        progress: ProgressCallback = ignore_progress,
    ) -> Tensor:
        """Run the network alone, see ``__call__``; ``noise`` is drawn for the start and each step.

        Returns:
            (H, W, 3) float32 in [0, 1] for a picture (H, W, 3).
        """
        given = self.codec.mean(reference_tensor(picture[None]))
        dtype = given.dtype

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            joined = torch.cat([latents.to(dtype), given], dim=1)
            v: Tensor = self.unet(joined, timestep, self._text, return_dict=False)[0]
            return v

        shape = (1, LATENT_CHANNELS, *given.shape[2:])
        sampler = EulerAncestral(self._scheduler, steps)
        latents = run_sampler(sampler, predict, noise, shape, progress, stage="delight")
        return self.codec.decode(latents)[0]


def delight_with(network: Callable[[Picture], Picture], image: Image.Image) -> Image.Image:
    """Do everything around the network: resize, cut out, match the colours, put on white.

    Args:
        network: maps (512, 512, 3) to the same shape.
        image: of any size; other modes than RGB and RGBA are converted.

    Returns:
        512 x 512 RGB.
    """
    picture, alpha = prepare(image)
    relit = network(picture)
    matched = match_colours(relit / 255.0, picture / 255.0, alpha)
    on_white = matched * alpha[..., None] + (1 - alpha[..., None])
    return Image.fromarray((255 * on_white).astype(np.uint8))


def prepare(image: Image.Image) -> tuple[Picture, Floats]:
    """Resize, and cut the object out on white.

    Returns:
        (512, 512, 3) picture, and (512, 512) alpha in [0, 1], eroded by a pixel; 1 where the
        image has none.
    """
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.asarray(image.resize((SIZE, SIZE)))
    if pixels.shape[-1] == 3:
        return pixels, np.ones(pixels.shape[:2])
    eroded: Picture = cv2.erode(pixels[..., 3], _EROSION).astype(np.uint8)
    picture: Picture = np.where(eroded[..., None] == 0, np.uint8(255), pixels[..., :3])
    return picture, eroded / np.float64(255)


def match_colours(source: Floats, target: Floats, alpha: Floats) -> Floats:
    """Give the source the mean and spread of the target's colours, where that brings them closer.

    Args:
        source: (H, W, 3) in [0, 1], from the network.
        target: (H, W, 3) in [0, 1], what it was given.
        alpha: (H, W) in [0, 1]; colours are measured where it is above one half.

    Returns:
        (H, W, 3) in [0, 1]; the source where it is closer to the target as it is, or where fewer
        than two pixels can be measured.
    """
    inside = alpha > 0.5
    if np.count_nonzero(inside) < 2:
        return source
    mean, wanted_mean = (pixels[inside].mean(axis=0) for pixels in (source, target))
    spread, wanted_spread = (pixels[inside].std(axis=0, ddof=1) for pixels in (source, target))
    if not spread.all():
        return source
    moved = (source - _MATCHED * mean) * (wanted_spread / spread) + _MATCHED * wanted_mean
    matched: Floats = moved.clip(0, 1)
    is_worse = ((source - target) ** 2).mean() < ((matched - target) ** 2).mean()
    return source if is_worse else matched
