"""Convolutions over frames alone, (k, 1, 1), as 2-D ones over (frames, pixels): the same sums by a CPU's better kernels.

Not on a GPU: on an H200 the 2-D ones took 1.19 times as long (scripts/benchmarks/results/2026-11-28-h200.json).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from svdtrain.acceleration.frozen import FrozenConvolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.acceleration.patches import Patches


def conv3d_as_conv2d(denoiser: nn.Module, patches: Patches) -> str:
    """Wrap every 3-D convolution that looks at one pixel at a time; returns why there is none, or nothing."""
    for module in denoiser.modules():
        if type(module) is nn.Conv3d and _is_over_frames_alone(module):
            patches.forward(module, partial(_over_frames, module, module.forward))
    return "" if len(patches) else "no 3-D convolution over frames alone"


def _is_over_frames_alone(module: nn.Conv3d) -> bool:
    return (
        module.kernel_size[1:] == (1, 1)
        and module.stride[1:] == (1, 1)
        and module.padding_mode == "zeros"
        and tuple(module.padding)[1:] == (0, 0)
    )


def _over_frames(module: nn.Conv3d, usual: Callable[[Tensor], Tensor], input_BCTHW: Tensor) -> Tensor:
    if input_BCTHW.is_cuda:
        return usual(input_BCTHW)
    rows: Any = [
        (setting[0], second) for setting, second in ((module.stride, 1), (module.padding, 0), (module.dilation, 1))
    ]
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    convolve: Any = FrozenConvolution.apply if frozen else functional.conv2d
    flat_BCTN = convolve(input_BCTHW.flatten(-2), module.weight.squeeze(-1), module.bias, *rows, module.groups)
    return flat_BCTN.unflatten(-1, input_BCTHW.shape[-2:])
