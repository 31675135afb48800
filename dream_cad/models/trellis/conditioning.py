"""Pictures and texts to what the flows are guided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dream_cad.exceptions import InvalidConfigError
from dream_cad.images.matting import matte
from dream_cad.models.trellis.network import (
    Flows,
    ImageBranch,
    Residence,
    TextBranch,
    TrellisNetworks,
)
from dream_cad.models.trellis.options import TrellisOptions
from dream_cad.models.trellis.preprocess import image_tensor, prepare_image, shrink
from dream_cad.models.trellis.sampling import Condition
from dream_cad.models.trellis.source import Pictures, Prompt

MAX_PICTURES = 16


@dataclass(frozen=True)
class Guide:
    """A condition, the flows that were trained for it, and what receipts say of it."""

    condition: Condition
    flows: Flows
    facts: dict[str, Any]


def encode(
    networks: TrellisNetworks, source: Pictures | Prompt, options: TrellisOptions, home: Residence
) -> Guide:
    """Encode what a generation is guided by.

    Raises:
        InvalidConfigError: no such branch is loaded, a picture shows no object, there are too
            many, or a text is too long.
    """
    if isinstance(source, Prompt):
        return _encode_text(networks.text, source.text, options, home)
    return _encode_pictures(networks.image, source.images, options, home)


@torch.no_grad()
def _encode_text(
    branch: TextBranch | None, text: str, options: TrellisOptions, home: Residence
) -> Guide:
    if branch is None:
        raise InvalidConfigError(
            "The loaded checkpoint is conditioned on pictures; it reads no text.",
            hint="Name a text variant's folder as text_checkpoint.",
        )
    negative = options.negative_prompt or ""
    branch.tokenizer.check_fits(text, "prompt")
    branch.tokenizer.check_fits(negative, "negative prompt")
    ids = branch.tokenizer([text, negative])
    with home.use(branch.encoder):
        rows: Tensor = branch.encoder(home.bring(ids))
    return Guide(Condition(rows[:1], rows[1:]), branch.flows, {"conditioning": "text"})


@torch.no_grad()
def _encode_pictures(
    branch: ImageBranch | None,
    images: tuple[Image.Image, ...],
    options: TrellisOptions,
    home: Residence,
) -> Guide:
    if branch is None:
        raise InvalidConfigError(
            "The loaded checkpoint is a text variant; it takes no pictures.",
            hint="Load TRELLIS-image-large for pictures.",
        )
    if not 1 <= len(images) <= MAX_PICTURES:
        raise InvalidConfigError(
            f"There are {len(images)} pictures; 1 to {MAX_PICTURES} were expected."
        )
    side = branch.encoder.config.img_size
    prepared, matting = zip(*(_prepare(image, options, side) for image in images), strict=True)
    with home.use(branch.encoder):
        tokens = torch.cat([branch.encoder(home.bring(picture)) for picture in prepared])
    mode = options.multi_image if len(images) > 1 else None
    facts: dict[str, Any] = {"conditioning": "image", "matting": list(matting)}
    # Attention to equal rows is attention to one of them: a single zero row stands for the
    # published negative of as many as a picture has (spec, section 17).
    return Guide(
        Condition(tokens, torch.zeros_like(tokens[:1, :1]), mode),
        branch.flows,
        facts | ({"multi_image": mode} if mode else {}),
    )


def _prepare(
    image: Image.Image, options: TrellisOptions, side: int
) -> tuple[Tensor, dict[str, str | None] | None]:
    """The picture (1, 3, side, side) for the encoder, and how it was cut out."""
    if not options.remove_background:
        return image_tensor(image, side), None
    is_opaque = image.mode != "RGBA" or int(np.asarray(image)[..., 3].min()) == 255
    matted = matte(shrink(image) if is_opaque else image, options.matting)
    picture = prepare_image(matted.image, side)
    return image_tensor(picture, side), {"method": matted.method, "model": matted.model}
