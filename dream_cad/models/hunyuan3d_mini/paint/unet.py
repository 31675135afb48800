"""The two UNets of paint: one reads the reference, the other draws all views (spec section 8).

The layers are diffusers'; only the transformer blocks are ours. Attribute names equal the keys of
the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dream_cad.exceptions import CheckpointError
from dream_cad.models.hunyuan3d_mini.paint.block import (
    KeyValue,
    MultiviewBlock,
    ReferenceBlock,
    ViewContext,
)

LATENT_CHANNELS = 4
CAMERA_LABELS = 44
# Labels 0..4 of the table are for reference pictures, which have no camera.
_REFERENCE_LABELS = 5
_TEXT_TOKENS = 77


class PaintUNet(nn.Module):
    """Generator ``unet`` and reference reader ``unet_dual``.

    Args:
        config: of the base UNet, as in the published ``unet/config.json``.

    Raises:
        CheckpointError: the configuration asks for what this network cannot have.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        _check_config(config)
        labels = _REFERENCE_LABELS + CAMERA_LABELS
        # Noisy latents, normal maps and position maps, in this order.
        wide = {"in_channels": 3 * LATENT_CHANNELS, "num_class_embeds": labels}
        self.unet = _make_unet({**config, **wide}, MultiviewBlock)
        self.unet_dual = _make_unet(config, ReferenceBlock)
        width = self.unet.config.cross_attention_dim
        for name in ("learned_text_clip_gen", "learned_text_clip_ref"):
            text = nn.Parameter(torch.zeros(1, _TEXT_TOKENS, width))
            self.unet.register_parameter(name, text)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def text(self) -> Tensor:
        """(1, 77, C) embedding that stands for a prompt."""
        text: Tensor = self.unet.learned_text_clip_gen
        return text

    def read_reference(self, latents: Tensor) -> dict[str, Tensor]:
        """Collect the tokens that the blocks attend from in clean reference pictures.

        Args:
            latents: (b, R, 4, h, w) of R pictures of each object.

        Returns:
            (b, R * l, c) by block name, as down_0_0_0, mid_0_0 and so on.
        """
        rows, pictures = latents.shape[:2]
        written: dict[str, Tensor] = {}
        text = self.unet.learned_text_clip_ref.expand(rows * pictures, -1, -1)
        context = ViewContext(views=pictures, written=written)
        _call(self.unet_dual, latents.flatten(0, 1), 0, text, context)
        return written

    def remember(self, tokens: Mapping[str, Tensor]) -> dict[str, KeyValue]:
        """Project reference tokens by block name to the keys and values of ``ViewContext``."""
        return {
            block.name: block.attn_refview.remember(tokens[block.name])
            for block in self.unet.modules()
            if isinstance(block, MultiviewBlock)
        }

    def forward(
        self, latents: Tensor, timestep: Tensor | int, text: Tensor, labels: Tensor, **views: Any
    ) -> Tensor:
        """Predict v for all views.

        Args:
            latents: (b, n, 12, h, w): noisy, normal and position latents.
            timestep: of the noise.
            text: (b, 77, C).
            labels: (b, n) int64 camera labels from 0 to 43.
            **views: ``ref_scale``, ``memory`` and ``mva_scale`` of ``ViewContext``.

        Returns:
            (b * n, 4, h, w).
        """
        count = latents.shape[1]
        context = ViewContext(views=count, **views)
        return _call(
            self.unet,
            latents.flatten(0, 1),
            timestep,
            text.repeat_interleave(count, dim=0),
            context,
            class_labels=labels.flatten() + _REFERENCE_LABELS,
        )


def _call(
    unet: Any,
    latents: Tensor,
    timestep: Tensor | int,
    text: Tensor,
    context: ViewContext,
    **kw: Any,
) -> Tensor:
    kwargs = {"context": context}
    out: Tensor = unet(
        latents, timestep, text, cross_attention_kwargs=kwargs, return_dict=False, **kw
    )[0]
    return out


def _make_unet(config: Mapping[str, Any], block: type[ReferenceBlock]) -> Any:
    """Return diffusers' UNet with each transformer block replaced by ours."""
    unet_class: Any = UNet2DConditionModel  # diffusers has no types
    unet = unet_class.from_config(dict(config))
    for name, heads, transformer in _transformers(unet):
        width = transformer.proj_in.out_features
        transformer.transformer_blocks[0] = block(
            name, width, heads, unet.config.cross_attention_dim
        )
    return unet


def _transformers(unet: Any) -> Iterator[tuple[str, int, Any]]:
    """Each transformer with the name of its block and its number of heads."""
    for part, levels in (("down", unet.down_blocks), ("up", unet.up_blocks)):
        for i, level in enumerate(levels):
            for j, transformer in enumerate(getattr(level, "attentions", ())):
                yield f"{part}_{i}_{j}_0", transformer.config.num_attention_heads, transformer
    for transformer in unet.mid_block.attentions:
        yield "mid_0_0", transformer.config.num_attention_heads, transformer


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse what our blocks do not do; sizes are checked by the weights."""
    wanted = {
        "use_linear_projection": True,
        "upcast_attention": False,
        "dual_cross_attention": False,
        "only_cross_attention": False,
        "transformer_layers_per_block": 1,
        "in_channels": LATENT_CHANNELS,
    }
    for key, value in wanted.items():
        if config.get(key, value) != value or (
            key == "use_linear_projection" and key not in config
        ):
            raise CheckpointError(
                f"The paint UNet's config has {key} {config.get(key)!r}; {value!r} was expected.",
                hint="The file may belong to another model or a newer version of it.",
            )
