"""The networks under the names of the published file; sections refer to the specification."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dream_cad.models.stable_fast_3d.backbone import Backbone
from dream_cad.models.stable_fast_3d.camera import CameraEmbedder, camera_vector
from dream_cad.models.stable_fast_3d.config import StableFast3DConfig
from dream_cad.models.stable_fast_3d.decoder import MaterialMLP, PostProcessor
from dream_cad.models.stable_fast_3d.estimators import GlobalEstimator, ImageEstimator
from dream_cad.models.stable_fast_3d.image_tokenizer import ImageTokenizer
from dream_cad.nn.triplane import planes_to_tokens, sample_triplane, tokens_to_planes


class TriplaneTokenizer(nn.Module):
    """The learned start tokens of the triplane (section 5)."""

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


class StableFast3DNetwork(nn.Module):
    """Picture to planes to field, and picture to material.

    The decoder stays float32: ``exp`` of the density overflows float16.

    Args:
        config: sizes.
        with_text: build CLIP's text tower too, which files hold and nothing reads.
    """

    bbox: Tensor

    def __init__(self, config: StableFast3DConfig, *, with_text: bool = False) -> None:
        super().__init__()
        self.config = config
        channels = config.backbone.raw_triplane_channels
        corner = [config.radius] * 3
        self.register_buffer("bbox", torch.tensor([[-value for value in corner], corner]))
        self.image_tokenizer = ImageTokenizer(config.dinov2, config.camera_channels)
        self.tokenizer = TriplaneTokenizer(config.plane_size, channels)
        self.camera_embedder = CameraEmbedder(config.camera_channels)
        self.backbone = Backbone(config.backbone)
        self.post_processor = PostProcessor(config.post_processor)
        self.decoder = MaterialMLP(config.decoder)
        self.image_estimator = ImageEstimator(config.estimators, with_text=with_text)
        self.global_estimator = (
            GlobalEstimator(config.estimators, channels) if config.estimators.amplitudes else None
        )

    def direct_codes(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, S, S) in [0, 1] on grey to token planes (B, 3, C, p, p)."""
        config = self.config
        camera = camera_vector(
            config.default_fovy_deg, config.default_distance, config.cond_image_size
        )
        condition = self.camera_embedder(camera.to(images.device)).expand(len(images), -1)
        tokens = self.image_tokenizer(images, condition)
        hidden = self.backbone(self.tokenizer(len(images)), tokens)
        planes: Tensor = self.tokenizer.detokenize(hidden)
        return planes

    def scene_codes(self, direct_codes: Tensor) -> Tensor:
        """Upsample token planes to the planes of the field, (B, 3, Co, H, W) float32."""
        planes: Tensor = self.post_processor(direct_codes)
        return planes.float()

    def features(self, planes: Tensor, points: Tensor) -> Tensor:
        """Sample planes (B, 3, Co, H, W) at points (B, P, 3) of the model frame (section 8)."""
        scaled = points / self.config.radius
        return sample_triplane(planes, scaled, align_corners=True)
