from __future__ import annotations

import torch

from dream_cad.nn.vit import ViT, ViTConfig

CONFIG = ViTConfig(24, 2, 3, 48, image_size=16, patch_size=8)


def test_cls_comes_first_and_image_size_may_differ() -> None:
    vit = ViT(CONFIG).eval()
    assert vit(torch.randn(2, 3, 16, 16)).shape == (2, 5, 24)
    assert vit(torch.randn(1, 3, 32, 24)).shape == (1, 13, 24)


def test_tokens_are_normalised() -> None:
    tokens = ViT(CONFIG)(torch.randn(1, 3, 16, 16))
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(1, 5), atol=1e-5, rtol=0)


def test_pooler_exists_and_is_not_read() -> None:
    vit = ViT(CONFIG).eval()
    images = torch.randn(1, 3, 16, 16)
    before = vit(images)
    torch.nn.init.constant_(vit.pooler.dense.weight, 9.0)
    assert torch.equal(vit(images), before)


def test_positions_tell_equal_patches_apart() -> None:
    tokens = ViT(CONFIG)(torch.ones(1, 3, 16, 16))
    assert not torch.allclose(tokens[0, 1], tokens[0, 2])
