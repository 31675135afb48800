"""Draw all views of an object from a reference and the maps of its mesh (spec section 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError, ShapeError
from dream_cad.models.base import ProgressCallback, ignore_progress
from dream_cad.models.hunyuan3d_mini.paint.samplers import (
    EulerAncestral,
    LatentConsistency,
    NoiseSource,
    Sampler,
    SeededNoise,
    run_sampler,
)
from dream_cad.models.hunyuan3d_mini.paint.unet import CAMERA_LABELS, LATENT_CHANNELS, PaintUNet
from dream_cad.models.hunyuan3d_mini.paint.vae import (
    LatentCodec,
    create_vae,
    map_tensor,
    reference_tensor,
    to_uint8,
)
from dream_cad.models.hunyuan3d_mini.paint.weights import (
    PaintVariant,
    find_paint_folder,
    load_codec,
    load_paint_unet,
    read_scheduler,
)
from dream_cad.models.profile import part_of

GUIDANCE_SCALE = 2.0
DEFAULT_STEPS: dict[PaintVariant, int] = {"standard": 30, "turbo": 10}
MOST_STEPS: dict[PaintVariant, int] = {"standard": 1000, "turbo": 30}
MOST_REFERENCES = 5


class PaintDiffusion:
    """The multi-view diffusion of one variant.

    Args:
        unet: both UNets, in evaluation mode.
        codec: the autoencoder, on the same device.
        scheduler: published scheduler_config.json.
        variant: ``"standard"`` (Euler ancestral, guidance) or ``"turbo"`` (LCM, no guidance).

    Raises:
        CheckpointError: the schedule is of a network that predicts something else than v.
    """

    def __init__(
        self,
        unet: PaintUNet,
        codec: LatentCodec,
        scheduler: Mapping[str, Any],
        variant: PaintVariant,
    ) -> None:
        self.unet, self.codec, self.variant = unet, codec, variant
        self._scheduler = dict(scheduler)
        self._sampler(1)
        levels = len(unet.unet.config.block_out_channels)
        self._multiple = codec.downsampling * 2 ** (levels - 1)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        variant: PaintVariant = "turbo",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a checkout of ``tencent/Hunyuan3D-2`` or one of its paint folders.

        Raises:
            InvalidConfigError: there is no such variant.
            CheckpointError: a file is missing or damaged, or does not fit the networks.
        """
        found, place = find_paint_folder(folder, variant), torch.device(device)
        scheduler = read_scheduler(found)
        codec = load_codec(found, device=place, dtype=dtype)
        unet = load_paint_unet(found, variant, device=place, dtype=dtype)
        return cls(unet, codec, scheduler, variant)

    @classmethod
    def from_config(
        cls,
        unet: Mapping[str, Any],
        vae: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        *,
        variant: PaintVariant = "turbo",
    ) -> Self:
        """Build untrained networks on a CPU, from torch's global random numbers."""
        network, codec = PaintUNet(unet), LatentCodec(create_vae(vae))
        torch.nn.init.normal_(network.unet.learned_text_clip_gen)
        torch.nn.init.normal_(network.unet.learned_text_clip_ref)
        for module in (network, codec.vae):
            module.eval().requires_grad_(False)
        return cls(network, codec, scheduler, variant)

    @torch.no_grad()
    def views(
        self,
        reference: Sequence[NDArray[np.uint8]],
        normals: NDArray[np.uint8],
        positions: NDArray[np.uint8],
        camera_labels: Sequence[int],
        *,
        seed: int = 0,
        num_inference_steps: int | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> NDArray[np.uint8]:
        """Draw the object from every camera.

        Args:
            reference: 1 to 5 pictures (H, W, 3), or (H, W, 4) to be put on grey; 512 x 512 is what
                the networks were trained on.
            normals: (n, S, S, 3) normal maps on white.
            positions: (n, S, S, 3) position maps on white.
            camera_labels: n labels from 0 to 43.
            seed: decides all noise; the same on every device.
            num_inference_steps: 30 unless given, 10 for turbo, which knows at most 30.
            progress: called after each step; what it raises ends the run.

        Returns:
            (n, S, S, 3) RGB.

        Raises:
            ShapeError: pictures or maps are of other shapes, or their sides no multiple of 64.
            InvalidConfigError: a label or the number of steps is out of range.
            GenerationError: latents or pictures became NaN or infinite; names the step.
        """
        self._check(reference, normals, positions, camera_labels)
        noise = SeededNoise(seed, self.unet.device)
        latents = self.denoise(
            reference, normals, positions, camera_labels, noise, num_inference_steps, progress
        )
        progress(0.95, "decode")
        return to_uint8(self.codec.decode(latents))

    @torch.no_grad()
    def denoise(
        self,
        reference: Sequence[NDArray[np.uint8]],
        normals: NDArray[np.uint8],
        positions: NDArray[np.uint8],
        camera_labels: Sequence[int],
        noise: NoiseSource,
        num_inference_steps: int | None = None,
        progress: ProgressCallback = ignore_progress,
    ) -> Tensor:
        """Latents (n, 4, h, w) float32 of the views; arguments and errors as of ``views``.

        ``noise`` is drawn for the reference, the normals, the positions, the start and the steps,
        in this order.
        """
        steps = DEFAULT_STEPS[self.variant] if num_inference_steps is None else num_inference_steps
        sampler = self._sampler(steps)
        progress(0.0, "encode")
        known = self.codec.sample(reference_tensor(np.stack(reference)), noise)
        maps = [self.codec.sample(map_tensor(part), noise) for part in (normals, positions)]
        predictor = _Predictor(self.unet, known, maps, camera_labels, self.variant == "standard")
        shape = (len(normals), LATENT_CHANNELS, *maps[0].shape[2:])
        part = part_of(progress, 0.05, 0.95)
        return run_sampler(sampler, predictor, noise, shape, part, stage="paint")

    def _sampler(self, steps: int) -> Sampler:
        most = MOST_STEPS[self.variant]
        if not 1 <= steps <= most:
            raise InvalidConfigError(
                f"num_inference_steps is {steps}; 1 to {most} were expected for {self.variant}.",
                details={"option": "num_inference_steps", "most": most},
            )
        if self.variant == "turbo":
            return LatentConsistency(self._scheduler, steps)
        return EulerAncestral(self._scheduler, steps, "trailing")

    def _check(
        self,
        reference: Sequence[NDArray[np.uint8]],
        normals: NDArray[np.uint8],
        positions: NDArray[np.uint8],
        labels: Sequence[int],
    ) -> None:
        if not 1 <= len(reference) <= MOST_REFERENCES:
            raise InvalidConfigError(
                f"There are {len(reference)} reference pictures; 1 to {MOST_REFERENCES} were "
                "expected."
            )
        if len({picture.shape for picture in reference}) > 1:
            raise ShapeError("The reference pictures are of different sizes; resize them to 512.")
        self._check_pictures("The reference", np.stack(reference))
        self._check_pictures("normals", normals)
        self._check_pictures("positions", positions)
        if normals.shape != positions.shape or len(labels) != len(normals):
            raise ShapeError(
                f"normals {normals.shape}, positions {positions.shape} and {len(labels)} camera "
                "labels are not of the same views."
            )
        if not all(0 <= label < CAMERA_LABELS for label in labels):
            raise InvalidConfigError(
                f"camera_labels are {list(labels)}; 0 to {CAMERA_LABELS - 1} were expected."
            )

    def _check_pictures(self, what: str, pictures: NDArray[np.uint8]) -> None:
        is_picture = pictures.ndim == 4 and pictures.shape[-1] in (3, 4) and len(pictures) > 0
        if pictures.dtype != np.uint8 or not is_picture:
            raise ShapeError(
                f"{what} is {pictures.dtype} of shape {pictures.shape}; uint8 pictures "
                "(n, H, W, 3) were expected."
            )
        if 0 in pictures.shape or any(side % self._multiple for side in pictures.shape[1:3]):
            raise ShapeError(
                f"{what} is {pictures.shape[2]} x {pictures.shape[1]} pixels; multiples of "
                f"{self._multiple} were expected."
            )


class _Predictor:
    """The generator with everything that does not change from step to step computed once.

    With guidance there is a row without text and without reference besides the one with both;
    reference pictures are only read for the latter.
    """

    def __init__(
        self,
        unet: PaintUNet,
        reference: Tensor,
        maps: Sequence[Tensor],
        labels: Sequence[int],
        is_guided: bool,
    ) -> None:
        self._unet, self._is_guided = unet, is_guided
        tokens = unet.read_reference(reference[None].to(unet.dtype))
        rows = 2 if is_guided else 1
        self._maps = torch.cat([part.to(unet.dtype) for part in maps], dim=1)
        self._labels = torch.tensor(labels, device=unet.device).expand(rows, -1)
        self._text = torch.cat([torch.zeros_like(unet.text), unet.text][-rows:])
        self._views = {
            "memory": unet.remember(tokens),
            "ref_scale": (0.0, 1.0)[-rows:],
        }

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return v (n, 4, h, w) float32 for scaled latents of that shape."""
        row = torch.cat([latents.to(self._maps), self._maps], dim=1)
        rows = row.expand(len(self._labels), *row.shape)
        v: Tensor = self._unet(rows, timestep, self._text, self._labels, **self._views).float()
        return _guide(v) if self._is_guided else v


def _guide(v: Tensor) -> Tensor:
    """Move v (2 n, 4, h, w) of both rows away from that without reference: (n, 4, h, w)."""
    without, with_reference = v.chunk(2)
    return without + GUIDANCE_SCALE * (with_reference - without)
