"""Cross-attention over one token without its attention: a softmax over one key is 1, whatever the query.

Stable Video Diffusion's context is one token, the image's embedding. What is left of attn2 is out(value(context)), one row
a clip or frame; queries, keys, their norm and the attention itself are not computed, and nothing of them is kept. Exact in
real arithmetic. A longer context, a mask, or an attention of another make goes the usual way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn

from svdtrain.acceleration.self_attention import rescaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from svdtrain.acceleration.patches import Patches


def one_token_attention(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every cross-attention that can do without; returns why there is none, or nothing."""
    for block in denoiser.modules():
        attention, norm = getattr(block, "attn2", None), getattr(block, "norm2", None)
        if _is_plain(block) and isinstance(attention, Attention) and isinstance(norm, nn.LayerNorm):
            patches.forward(norm, _later)
            patches.forward(attention, partial(_attend, attention, attention.forward, norm))
    return "" if len(patches) else "no cross-attention of a known kind"


def _is_plain(block: nn.Module) -> bool:
    """Whether its norm2 feeds its attn2 and nothing else."""
    if isinstance(block, TemporalBasicTransformerBlock):
        return True
    return isinstance(block, BasicTransformerBlock) and block.norm_type == "layer_norm" and block.pos_embed is None


def _later(hidden_NLD: Tensor) -> Tensor:
    """The norm before a cross-attention: computed there, where a query is wanted at all."""
    return hidden_NLD


def _attend(
    attention: Attention,
    usual: Callable[..., Tensor],
    norm: nn.LayerNorm,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **others: Any,  # noqa: ANN401
) -> Tensor:
    hidden_NLD, context_N1D = hidden_states, encoder_hidden_states
    if context_N1D is None or attention_mask is not None or others or not _one_token(attention, context_N1D):
        normed_NLD = nn.functional.layer_norm(hidden_NLD, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return usual(normed_NLD, encoder_hidden_states=context_N1D, attention_mask=attention_mask, **others)
    if context_N1D.stride(0) == 0:  # one row, shown at every place of the picture
        context_N1D = context_N1D[:1]
    project, drop = cast("nn.ModuleList", attention.to_out)
    answer_N1D = drop(project(cast("nn.Linear", attention.to_v)(context_N1D)))
    return rescaled(attention, answer_N1D).expand(hidden_NLD.shape[0], hidden_NLD.shape[1], -1)


def _one_token(attention: Attention, context_NLD: Tensor) -> bool:
    """Whether out(value(context)) is all that this attention would give."""
    return (
        context_NLD.shape[1] == 1
        and type(attention.processor) in (AttnProcessor, AttnProcessor2_0)
        and not attention.norm_cross
        and not attention.residual_connection
        and attention.group_norm is None
        and attention.spatial_norm is None
    )
