"""The transformer block that looks within a view, at the reference, and across all views.

Source: the paint spec, section 8.2. Rows are ordered (b n): b guidance rows of n views each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dream_cad.exceptions import ShapeError
from dream_cad.nn.attention import Attention, TransformerBlock, merge_heads, split_heads

KeyValue = tuple[Tensor, Tensor]
"""Keys and values (B, heads, M, D) of an attention's source."""


class ReferenceAttention(Attention):
    """Attention whose keys and values are computed once and looked up at every step."""

    def remember(self, source: Tensor) -> KeyValue:
        """Project a source (B, M, dim) to keys and values."""
        return (
            split_heads(self.to_k(source), self.heads),
            split_heads(self.to_v(source), self.heads),
        )

    def recall(self, x: Tensor, memory: KeyValue) -> Tensor:
        """Attend from ``x`` (B, N, dim) to a remembered source; returns (B, N, dim)."""
        seen = self.kernel(split_heads(self.to_q(x), self.heads), *memory)
        out: Tensor = self.to_out[0](merge_heads(seen))
        return out


@dataclass(frozen=True)
class ViewContext:
    """What the blocks of one call share.

    Attributes:
        views: n, the views of a guidance row.
        ref_scale: weight of the reference for each guidance row; rows of weight 0 skip it. Empty:
            no row looks at a reference.
        memory: keys and values of the reference by block name, for the rows with another weight
            than 0, in their order.
        mva_scale: weight of the attention across views.
        written: where given, blocks put their normalised tokens (b, n * l, c) here by name.
    """

    views: int = 1
    ref_scale: tuple[float, ...] = ()
    memory: Mapping[str, KeyValue] = field(default_factory=dict)
    mva_scale: float = 1.0
    written: dict[str, Tensor] | None = None

    @property
    def readers(self) -> list[int]:
        """Numbers of the guidance rows that look at the reference."""
        return [row for row, scale in enumerate(self.ref_scale) if scale != 0.0]


class ReferenceBlock(nn.Module):
    """The plain block under ``transformer.``, which can write down what it attends from.

    Args:
        name: under which its tokens are written and read.
        dim: channels of the tokens.
        heads: of every attention.
        context_dim: channels of the text.
    """

    def __init__(self, name: str, dim: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.name = name
        self.transformer = TransformerBlock(dim, heads, dim // heads, context_dim)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        cross_attention_kwargs: Mapping[str, ViewContext],
        **_: object,
    ) -> Tensor:
        """Map tokens (b*n, l, c) to the same shape; called by diffusers' Transformer2DModel.

        Args:
            hidden_states: the tokens.
            encoder_hidden_states: text (b*n, L, C).
            cross_attention_kwargs: ``{"context": ViewContext}``, passed through by diffusers.
            **_: what diffusers gives its own blocks and this one has no use for.
        """
        context = cross_attention_kwargs["context"]
        block = self.transformer
        normed = block.norm1(hidden_states)
        if context.written is not None:
            context.written[self.name] = join_views(normed, context.views)
        attended = hidden_states + block.attn1(normed) + self.look_around(normed, context)
        out: Tensor = block.attend_context(attended, encoder_hidden_states)
        return out

    def look_around(self, normed: Tensor, context: ViewContext) -> Tensor | float:
        """What other views add to tokens (b*n, l, c); nothing here."""
        return 0.0


class MultiviewBlock(ReferenceBlock):
    """The generator's block: attention to the reference and across views besides the plain one.

    Args:
        name: under which its tokens are written and read.
        dim: channels of the tokens.
        heads: of every attention.
        context_dim: channels of the text.
    """

    def __init__(self, name: str, dim: int, heads: int, context_dim: int) -> None:
        super().__init__(name, dim, heads, context_dim)
        self.attn_multiview = Attention(dim, heads, dim // heads)
        self.attn_refview = ReferenceAttention(dim, heads, dim // heads)

    def look_around(self, normed: Tensor, context: ViewContext) -> Tensor | float:
        """What the reference and the other views add to tokens (b*n, l, c)."""
        added: Tensor | float = 0.0
        if context.readers:
            added = self._look_at_reference(normed, context)
        if context.views > 1:
            across = self.attn_multiview(join_views(normed, context.views))
            added = added + context.mva_scale * across.reshape(normed.shape)
        return added

    def _look_at_reference(self, normed: Tensor, context: ViewContext) -> Tensor:
        joined = join_views(normed, context.views)
        if len(joined) != len(context.ref_scale):
            raise ShapeError(
                f"There are {len(joined)} guidance rows and {len(context.ref_scale)} ref_scales."
            )
        # Plain numbers and indices: tensors of them would make a GPU wait at every block.
        rows = torch.stack([joined[row] for row in context.readers])
        seen = self.attn_refview.recall(rows, context.memory[self.name])
        added = torch.zeros_like(joined)
        for row, part in zip(context.readers, seen, strict=True):
            added[row] = part * context.ref_scale[row]
        return added.reshape(normed.shape)


def join_views(tokens: Tensor, views: int) -> Tensor:
    """Join the tokens (b*n, l, c) of a row's n views to (b, n * l, c).

    Raises:
        ShapeError: the rows are no multiple of the views.
    """
    rows, length, channels = tokens.shape
    if rows % views:
        raise ShapeError(f"{rows} rows cannot be split into rows of {views} views.")
    return tokens.reshape(rows // views, views * length, channels)
