"""Self-attention whose queries, keys and values are one operation of their one input, without a division by 1.

diffusers divides what attention gives by rescale_output_factor, which is 1 nearly everywhere: a pass over all of it, twice.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional

from svdtrain.acceleration.fused_lora import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from svdtrain.acceleration.patches import Patches


def self_attention(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every self-attention of the usual kind; returns why there is none, or nothing."""
    for module in denoiser.modules():
        if isinstance(module, Attention) and _is_plain(module):
            patches.forward(module, partial(_attend, module, module.forward))
    return "" if len(patches) else "no self-attention of a known kind"


def rescaled(attention: Attention, answer: Tensor) -> Tensor:
    """Divided by what the attention says, if that is not 1."""
    factor = attention.rescale_output_factor
    return answer if factor == 1 else answer / factor


def _is_plain(attention: Attention) -> bool:
    """Queries, keys, values, heads, output; nothing else."""
    others = (attention.spatial_norm, attention.group_norm, attention.norm_q, attention.norm_k)
    return (
        not attention.is_cross_attention
        and not attention.residual_connection
        and attention.to_k is not None
        and attention.to_v is not None
        and all(other is None for other in others)
    )


def _attend(
    attention: Attention,
    usual: Callable[..., Tensor],
    hidden_states: Tensor,
    *args: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Tensor:
    """[N, L, D]."""
    asked = any(value is not None for value in (*args, *kwargs.values()))
    processor = cast("object", attention.processor)
    if asked or hidden_states.ndim != 3 or type(processor) is not AttnProcessor2_0:
        return usual(hidden_states, *args, **kwargs)
    projections = [cast("nn.Module", layer) for layer in (attention.to_q, attention.to_k, attention.to_v)]
    query, key, value = (
        part_NLD.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for part_NLD in together(projections, hidden_states)
    )
    answer_NHLD = functional.scaled_dot_product_attention(query, key, value)
    project, drop = cast("nn.ModuleList", attention.to_out)
    return rescaled(attention, drop(project(answer_NHLD.transpose(1, 2).flatten(2))))
