"""Where the operations of frozen.py stand in diffusers' networks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from torch import Tensor, nn
from torch.nn import functional

from svdtrain.acceleration.frozen import EAGER, GatedProduct, Pointwise, convolve, normed_silu

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.acceleration.patches import Patches


def eagerly(_: Tensor) -> Pointwise:
    """Who computes the pointwise passes over this tensor: fused_pointwise puts another choice in its place."""
    return EAGER


def frozen_operations(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap frozen convolutions, residual blocks and GEGLUs; returns why there are none, or nothing."""
    for module in denoiser.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and _is_plain(module):
            patches.forward(module, partial(convolve, module))
        elif isinstance(module, GEGLU):
            patches.forward(module, partial(gated, module))
        elif isinstance(module, TemporalResnetBlock) and _is_usual(module):
            patches.forward(module, partial(temporal_block, module))
        elif isinstance(module, ResnetBlock2D) and _is_usual(module) and _is_default(module):
            patches.forward(module, partial(spatial_block, module))
    return "" if len(patches) else "nothing in it is frozen"


def is_frozen(module: nn.Module) -> bool:
    """Whether nothing of it is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def _is_plain(module: nn.Conv2d | nn.Conv3d) -> bool:
    """Frozen, torch's own, padded with zeros."""
    own = type(module) in (nn.Conv2d, nn.Conv3d)
    return own and is_frozen(module) and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _is_usual(block: ResnetBlock2D | TemporalResnetBlock) -> bool:
    """Frozen norms with weights, SiLU, no dropout."""
    norms = (block.norm1, block.norm2)
    return (
        isinstance(block.nonlinearity, nn.SiLU)
        and all(norm.affine and is_frozen(norm) for norm in norms)
        and block.dropout.p == 0
    )


def _is_default(block: ResnetBlock2D) -> bool:
    return (
        block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1.0
    )


def gated(module: GEGLU, hidden_states: Tensor, choose: Callable[[Tensor], Pointwise] = eagerly) -> Tensor:
    """The value times GELU of the gate."""
    both = module.proj(hidden_states)
    return GatedProduct.apply(both, choose(both))  # type: ignore[return-value]


def spatial_block(
    block: ResnetBlock2D, input_tensor: Tensor, temb: Tensor | None, choose: Callable[[Tensor], Pointwise] = eagerly
) -> Tensor:
    """Norm, SiLU, convolution, twice; the time's embedding between them. [N, C, H, W], [N, D]."""
    input_NCHW = input_tensor
    hidden_NCHW = block.conv1(normed_silu(block.norm1, input_NCHW, choose(input_NCHW)))
    if block.time_emb_proj is not None and temb is not None:
        hidden_NCHW = hidden_NCHW + block.time_emb_proj(functional.silu(temb))[:, :, None, None]
    hidden_NCHW = block.conv2(normed_silu(block.norm2, hidden_NCHW, choose(hidden_NCHW)))
    return (input_NCHW if block.conv_shortcut is None else block.conv_shortcut(input_NCHW)) + hidden_NCHW


def temporal_block(
    block: TemporalResnetBlock, input_tensor: Tensor, temb: Tensor, choose: Callable[[Tensor], Pointwise] = eagerly
) -> Tensor:
    """The same over frames. [B, C, T, H, W], [B, T, D]."""
    input_BCTHW = input_tensor
    hidden_BCTHW = block.conv1(normed_silu(block.norm1, input_BCTHW, choose(input_BCTHW)))
    if block.time_emb_proj is not None:
        temb_BCT = block.time_emb_proj(functional.silu(temb)).transpose(1, 2)
        hidden_BCTHW = hidden_BCTHW + temb_BCT[..., None, None]
    hidden_BCTHW = block.conv2(normed_silu(block.norm2, hidden_BCTHW, choose(hidden_BCTHW)))
    return (input_BCTHW if block.conv_shortcut is None else block.conv_shortcut(input_BCTHW)) + hidden_BCTHW


CHOOSING = (gated, spatial_block, temporal_block)
"""Forward passes that ask who computes them."""
