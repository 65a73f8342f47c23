"""Several ranks: the one flat gradient is reduced once a step; nothing is wrapped, and no frozen weight is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer


class FlatReduction(DDPStrategy):
    """Lightning's ranks and devices, without its wrapper around the network."""

    strategy_name = "flat_reduction"

    def __init__(self) -> None:
        super().__init__()
        self.bytes_reduced = 0
        """Of gradients, handed to all-reduce so far; each rank sends 2 (n - 1) / n of them."""

    def configure_ddp(self) -> None:
        """Each rank has loaded the same base, and drawn the same adapter."""

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: Any | None = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Reduce after the step's last backward pass, and before gradients are unscaled, looked at and clipped."""

        def reduced() -> Any:  # noqa: ANN401
            result = closure()
            module: Any = self.lightning_module
            self.reduce_gradients(module.flat.gradients)
            return result

        return super().optimizer_step(optimizer, reduced, model, **kwargs)

    def reduce_gradients(self, gradients: Tensor) -> None:
        """Their mean over all ranks, on all of them, to the same bit."""
        distributed.all_reduce(gradients)
        gradients /= distributed.get_world_size()
        self.bytes_reduced += gradients.nbytes


def sent_per_step(gradient_bytes: int, ranks: int) -> int:
    """Bytes that each rank sends in a step, by the ring that NCCL and gloo reduce with."""
    return 2 * (ranks - 1) * gradient_bytes // ranks
