"""Mixed precision: a base in half precision under fp32 weights that are trained."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pytorch_lightning.plugins.precision import MixedPrecision, Precision

if TYPE_CHECKING:
    from torch.optim import Optimizer


class HalfPrecision(MixedPrecision):
    """With torch's autocast; or without: every layer in the base's precision, and adapters' layers bring their own to it."""

    def __init__(self, precision: Any, device: str, *, autocast: bool) -> None:  # noqa: ANN401
        super().__init__(precision, device)
        self.autocast = autocast

    def forward_context(self) -> AbstractContextManager[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Around a training step."""
        return super().forward_context() if self.autocast else nullcontext()

    def clip_gradients(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Of fused optimizers, too. Lightning refuses them for what they do with scaled fp16, where ours is not fused."""
        Precision.clip_gradients(self, optimizer, *args, **kwargs)


def precision_plugin(precision: str, device: str, *, autocast: bool) -> Precision:
    """`32`, `bf16-mixed` or `16-mixed`, the last with loss scaling. autocast: of torch, in a step's forward pass."""
    return Precision() if precision == "32" else HalfPrecision(precision, device, autocast=autocast)
