"""Each way to spend less on the same step, by name: put in place together, taken off together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from svdtrain.acceleration.attention import attention_in_parts
from svdtrain.acceleration.blends import blends
from svdtrain.acceleration.frozen_modules import frozen_operations
from svdtrain.acceleration.fused_lora import fused_lora
from svdtrain.acceleration.fused_pointwise import fused_pointwise
from svdtrain.acceleration.one_token import one_token_attention
from svdtrain.acceleration.patches import Patches
from svdtrain.acceleration.self_attention import self_attention
from svdtrain.acceleration.temporal_convolution import conv3d_as_conv2d

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Lever = Callable[["nn.Module", Patches], str]
"""Wraps what it can; returns why that is nothing."""

LEVERS: Mapping[str, Lever] = {
    "frozen_operations": frozen_operations,
    "blends": blends,
    "fused_pointwise": fused_pointwise,
    "conv3d_as_conv2d": conv3d_as_conv2d,
    "fused_lora": fused_lora,
    "self_attention": self_attention,
    "attention_in_parts": attention_in_parts,
    "one_token_attention": one_token_attention,
}
"""In the order in which they go on."""


@dataclass(frozen=True)
class Accelerated:
    """What was put on a network."""

    patches: Mapping[str, Patches]
    """By lever."""
    left_out: Mapping[str, str]
    """Lever -> why it found nothing to do."""

    def close(self) -> None:
        """The network as it was."""
        for patches in reversed(self.patches.values()):  # type: ignore[call-overload]
            patches.close()


def accelerate(denoiser: nn.Module, levers: Iterable[str]) -> Accelerated:
    """Put these levers on, after adapters are in place; state dicts, names and classes stay."""
    wanted, patches, left_out = set(levers), dict[str, Patches](), dict[str, str]()
    assert wanted <= set(LEVERS), wanted - set(LEVERS)
    for name, lever in LEVERS.items():
        if name in wanted:
            patches[name] = Patches()
            if why := lever(denoiser, patches[name]):
                left_out[name] = why
    return Accelerated(patches, left_out)
