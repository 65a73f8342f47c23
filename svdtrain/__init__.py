"""svdtrain: fine-tune video diffusion models with LoRA, on your own machine. This is the whole public Python API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_adapter", "set_strength", "unload_adapter"]

if TYPE_CHECKING:
    from svdtrain.adapters.pipelines import load_adapter, set_strength, unload_adapter

if os.environ.get("SVDTRAIN_AIRGAPPED"):  # set by a process that has privacy=airgapped, for those it starts
    from svdtrain.foundation import airgap

    airgap.close_network()


def __getattr__(name: str) -> Any:  # noqa: ANN401  (torch is imported only when an adapter is used)
    if name in __all__:
        from svdtrain.adapters import pipelines

        return getattr(pipelines, name)
    raise AttributeError(f"module 'svdtrain' has no attribute '{name}'")
