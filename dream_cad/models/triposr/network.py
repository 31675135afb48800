"""The networks of TripoSR; attribute names equal the keys of the published checkpoint.

Sections refer to the specification of the model that the reference cases come with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from dream_cad.models.triposr.config import TripoSRConfig
from dream_cad.nn.attention import TransformerBlock
from dream_cad.nn.triplane import planes_to_tokens, sample_triplane, tokens_to_planes
from dream_cad.nn.vit import ViT, ViTConfig

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class ImageTokenizer(nn.Module):
    """ImageNet normalisation and the ViT (section 3)."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.model = ViT(config)
        self.reset_constants()

    def reset_constants(self, device: torch.device | None = None) -> None:
        """Set the normalisation constants, which no checkpoint holds.

        Needed after construction on the meta device, where buffers have no values.
        """
        for name, values in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD)):
            constant = torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) in [0, 1] to tokens (B, T, C), CLS first."""
        normalised = (images - self.image_mean) / self.image_std
        out: Tensor = self.model(normalised.to(self.model.layernorm.weight.dtype))
        return out


class TriplaneTokenizer(nn.Module):
    """The learned start tokens of the triplane (section 4)."""

    def __init__(self, plane_size: int, num_channels: int) -> None:
        super().__init__()
        self.plane_size = plane_size
        shape = (3, num_channels, plane_size, plane_size)
        self.embeddings = nn.Parameter(torch.randn(shape) * num_channels**-0.5)

    def forward(self, batch_size: int) -> Tensor:
        """Return the tokens (batch_size, C, 3 * p * p)."""
        return planes_to_tokens(self.embeddings[None]).expand(batch_size, -1, -1)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """Reshape tokens (B, C, 3 * p * p) to planes (B, 3, C, p, p)."""
        return tokens_to_planes(tokens, self.plane_size)


class Transformer1D(nn.Module):
    """Triplane tokens attend to each other and to the image tokens (section 5)."""

    def __init__(
        self,
        in_channels: int,
        num_attention_heads: int,
        attention_head_dim: int,
        num_layers: int,
        cross_attention_dim: int,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        inner = num_attention_heads * attention_head_dim
        self.norm = nn.GroupNorm(norm_num_groups, in_channels, eps=1e-6)
        self.proj_in = nn.Linear(in_channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(inner, num_attention_heads, attention_head_dim, cross_attention_dim)
            for _ in range(num_layers)
        )
        self.proj_out = nn.Linear(inner, in_channels)

    @property
    def _first_block(self) -> TransformerBlock:
        return cast(TransformerBlock, self.transformer_blocks[0])

    def prefix(self, tokens: Tensor) -> Tensor:
        """Run what comes before the first cross-attention: it does not depend on the image.

        Args:
            tokens: (B, C, N) triplane tokens.

        Returns:
            (B, N, heads * dim_head), the hidden state after the first self-attention.
        """
        hidden = self.proj_in(self.norm(tokens).transpose(1, 2))
        return self._first_block.attend_self(hidden)

    def forward(self, tokens: Tensor, context: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Map tokens (B, C, N) with context (B, M, X) to (B, C, N).

        Args:
            tokens: (B, C, N) triplane tokens; added to the output un-normalised.
            context: (B, M, X) image tokens.
            prefix: result of ``prefix(tokens)``, (1 or B, N, inner), when already known.
        """
        hidden = self.prefix(tokens) if prefix is None else prefix.expand(len(tokens), -1, -1)
        hidden = self._first_block.attend_context(hidden, context)
        for block in self.transformer_blocks[1:]:
            hidden = block(hidden, context)
        out: Tensor = self.proj_out(hidden).transpose(1, 2) + tokens
        return out


class TriplaneUpsampler(nn.Module):
    """Transposed convolution, the same for the three planes (section 6).

    Args:
        in_channels: channels of the tokens.
        out_channels: channels of the scene code.
        scale_factor: kernel and stride, 2 in the published model.
    """

    def __init__(self, in_channels: int, out_channels: int, scale_factor: int = 2) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, scale_factor, scale_factor)

    def forward(self, planes: Tensor) -> Tensor:
        """Map planes (B, 3, C, p, p) to (B, 3, out_channels, s * p, s * p)."""
        batch = planes.shape[0]
        upsampled: Tensor = self.upsample(planes.flatten(0, 1))
        return upsampled.view(batch, 3, *upsampled.shape[1:])


class NeRFMLP(nn.Module):
    """Decoder of sampled features to raw density and raw colour (section 7).

    Args:
        in_channels: three times the channels of the scene code.
        n_neurons: width of the hidden layers.
        n_hidden_layers: number of hidden layers, at least 1.
    """

    def __init__(self, in_channels: int, n_neurons: int, n_hidden_layers: int) -> None:
        super().__init__()
        widths = [in_channels] + [n_neurons] * n_hidden_layers
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(n_neurons, 4))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., in_channels) to (..., 4): raw density, raw red, green, blue."""
        out: Tensor = self.layers(features)
        return out


class TripoSRNetwork(nn.Module):
    """Image to scene code to density and colour at points.

    The encoder may run in half precision; scene codes and decoder stay float32, because
    ``exp`` of the raw density overflows float16 and 41 k weights save no memory.
    """

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        self.config = config
        self.image_tokenizer = ImageTokenizer(config.vit)
        self.tokenizer = TriplaneTokenizer(config.plane_size, config.num_channels)
        self.backbone = Transformer1D(
            config.num_channels,
            config.num_attention_heads,
            config.attention_head_dim,
            config.num_layers,
            config.vit.hidden_size,
            config.norm_num_groups,
        )
        self.post_processor = TriplaneUpsampler(
            config.num_channels, config.out_channels, config.upsample_scale
        )
        self.decoder = NeRFMLP(
            3 * config.out_channels, config.decoder_neurons, config.decoder_hidden_layers
        )
        self._prefix: Tensor | None = None

    def encode_image(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) float in [0, 1] to tokens (B, T, C), CLS first."""
        out: Tensor = self.image_tokenizer(images)
        return out

    def decode_tokens(self, context: Tensor) -> Tensor:
        """Map image tokens (B, T, C) to scene codes (B, 3, Co, H, W) float32."""
        tokens = self.tokenizer(context.shape[0])
        hidden = self.backbone(tokens, context, self._prefix)
        planes: Tensor = self.post_processor(self.tokenizer.detokenize(hidden))
        return planes.float()

    def scene_codes(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) float in [0, 1] to scene codes (B, 3, Co, H, W) float32."""
        return self.decode_tokens(self.encode_image(images))

    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the field; differentiable.

        Args:
            planes: (B, 3, Co, H, W) scene codes.
            points: (B, P, 3) in the model frame, inside [-radius, radius].

        Returns:
            Raw density (B, P), before ``exp(raw + density_bias)``, and colour (B, P, 3) in
            [0, 1], in the dtype of ``planes``.
        """
        features = sample_triplane(planes, points / self.config.radius)
        raw: Tensor = self.decoder(features)
        return raw[..., 0], torch.sigmoid(raw[..., 1:])

    def forward(self, images: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and points (B, P, 3) to raw density (B, P), colour (B, P, 3)."""
        return self.query(self.scene_codes(images), points)

    @torch.no_grad()
    def precompute_prefix(self) -> None:
        """Keep the image-independent start of the backbone, for inference.

        Forgotten when the module goes to training mode, is moved or cast, or loads weights.
        """
        self._prefix = self.backbone.prefix(self.tokenizer(1))

    def train(self, mode: bool = True) -> Self:
        """Set training mode; forgets the precomputed prefix when weights may change."""
        if mode:
            self._prefix = None
        return super().train(mode)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights (see torch) and forget the precomputed prefix."""
        self._prefix = None
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._prefix = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
