from __future__ import annotations

import pytest
import torch

from dream_cad.exceptions import ShapeError
from dream_cad.models.hunyuan3d_mini.paint.block import MultiviewBlock, ViewContext, join_views
from tests.tiny_hunyuan3d_paint import tiny_diffusion


@pytest.fixture
def block() -> MultiviewBlock:
    torch.manual_seed(0)
    return MultiviewBlock("b", 8, 2, 6).requires_grad_(False)


def call(block: MultiviewBlock, rows: int, context: ViewContext) -> torch.Tensor:
    torch.manual_seed(1)
    x, text = torch.randn(rows, 3, 8), torch.randn(rows, 5, 6)
    out: torch.Tensor = block(x, text, {"context": context})
    return out


def test_a_row_of_weight_zero_needs_no_reference(block: MultiviewBlock) -> None:
    tokens = torch.randn(2, 7, 8)
    both = {"b": block.attn_refview.remember(tokens)}
    second = {"b": block.attn_refview.remember(tokens[1:])}
    without = call(block, 4, ViewContext(views=2))
    skipped = call(block, 4, ViewContext(2, (0.0, 1.0), second))
    full = call(block, 4, ViewContext(2, (1.0, 1.0), both))
    torch.testing.assert_close(skipped[:2], without[:2])
    torch.testing.assert_close(skipped[2:], full[2:])
    assert not torch.allclose(full[:2], without[:2])


def test_views_of_another_row_are_not_seen(block: MultiviewBlock) -> None:
    x, text = torch.randn(4, 3, 8), torch.randn(4, 5, 6)
    context = {"context": ViewContext(views=2)}
    out = block(x, text, context)
    changed = x.clone()
    changed[3] += 1.0
    again = block(changed, text, context)
    torch.testing.assert_close(again[:2], out[:2])
    assert not torch.allclose(again[2], out[2])


def test_sizes_have_to_fit(block: MultiviewBlock) -> None:
    with pytest.raises(ShapeError, match="3 rows"):
        join_views(torch.zeros(3, 2, 8), 2)
    memory = {"b": block.attn_refview.remember(torch.randn(1, 7, 8))}
    with pytest.raises(ShapeError, match="2 guidance rows and 1 ref_scales"):
        call(block, 4, ViewContext(2, (1.0,), memory))


@torch.no_grad()
def test_several_references_are_joined() -> None:
    unet = tiny_diffusion().unet
    latents = torch.randn(1, 2, 4, 4, 4)
    both = unet.read_reference(latents)
    second = unet.read_reference(latents[:, 1:])
    assert both.keys() == {"down_0_0_0", "mid_0_0", "up_1_0_0", "up_1_1_0"}
    assert both["down_0_0_0"].shape == (1, 32, 16)
    torch.testing.assert_close(both["mid_0_0"][:, 4:], second["mid_0_0"])
