"""The run's place in the data: one integer, advanced by the loop that uses batches, not by the loader that runs ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import Callback

if TYPE_CHECKING:
    from svdtrain.data.datamodule import ClipDataModule


class StreamPosition(Callback):
    """Stands first among the callbacks, so that every save finds the count right."""

    def __init__(self, data: ClipDataModule) -> None:
        self.data = data

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """One more batch was used."""
        self.data.consumed_batches += 1
