"""The three networks under the names of the published file: model, vae, conditioner."""

from __future__ import annotations

import torch
from torch import nn

from dream_cad.models.hunyuan3d_mini.conditioner import Conditioner
from dream_cad.models.hunyuan3d_mini.config import Hunyuan3DConfig
from dream_cad.models.hunyuan3d_mini.dit import Hunyuan3DDiT
from dream_cad.models.hunyuan3d_mini.shape_vae import ShapeVAE


class Hunyuan3DNetwork(nn.Module):
    """Transformer, ShapeVAE and image encoder of one variant."""

    def __init__(self, config: Hunyuan3DConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Hunyuan3DDiT(config.dit)
        self.vae = ShapeVAE(config.vae)
        self.conditioner = Conditioner(config.conditioner)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.latent_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.model.latent_in.weight.dtype
