from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dream_cad.nn.attention import (
    Attention,
    FeedForward,
    TransformerBlock,
    merge_heads,
    plain_attention,
    split_heads,
)


def test_heads_are_contiguous_channels() -> None:
    x = torch.arange(2 * 3 * 8).float().view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    assert torch.equal(heads[1, 2, 0], x[1, 0, 4:6])
    assert torch.equal(merge_heads(heads), x)


def test_plain_attention_equals_fused() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 8)
    fused = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(plain_attention(q, k, v), fused, atol=1e-5, rtol=1e-5)


def test_plain_attention_over_one_key_returns_its_value() -> None:
    q, k, v = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 1, 4), torch.randn(1, 2, 1, 4)
    torch.testing.assert_close(plain_attention(q, k, v), v.expand(1, 2, 5, 4))


def test_attention_keys_and_biases() -> None:
    attention = Attention(8, 2, 4, context_dim=6)
    shapes = {key: tuple(value.shape) for key, value in attention.state_dict().items()}
    assert shapes == {
        "to_q.weight": (8, 8),
        "to_k.weight": (8, 6),
        "to_v.weight": (8, 6),
        "to_out.0.weight": (8, 8),
        "to_out.0.bias": (8,),
    }


def test_cross_attention_ignores_order_of_context() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2, 4, context_dim=6)
    x, context = torch.randn(1, 3, 8), torch.randn(1, 5, 6)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(attention(x, context), attention(x, context[:, order]))


def test_feed_forward_gates_with_second_half() -> None:
    ff = FeedForward(4, mult=2)
    x = torch.randn(1, 3, 4)
    projected = ff.net[0].proj(x)
    by_hand = ff.net[2](projected[..., :8] * F.gelu(projected[..., 8:]))
    torch.testing.assert_close(ff(x), by_hand)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_block_keeps_shape_and_dtype(dtype: torch.dtype) -> None:
    block = TransformerBlock(16, 2, 8, 12).to(dtype)
    out = block(torch.randn(2, 5, 16, dtype=dtype), torch.randn(2, 4, 12, dtype=dtype))
    assert out.shape == (2, 5, 16)
    assert out.dtype == dtype


def test_block_is_its_two_parts() -> None:
    block = TransformerBlock(16, 2, 8, 12)
    x, context = torch.randn(1, 5, 16), torch.randn(1, 4, 12)
    parts = block.attend_context(block.attend_self(x), context)
    assert torch.equal(block(x, context), parts)


def test_kernel_can_be_exchanged() -> None:
    attention = Attention(8, 2, 4)
    x = torch.randn(2, 5, 8)
    fused = attention(x)
    attention.kernel = plain_attention
    torch.testing.assert_close(attention(x), fused, atol=1e-5, rtol=1e-5)
