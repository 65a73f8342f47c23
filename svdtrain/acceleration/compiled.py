"""Repeated blocks by torch.compile, each for the shapes it meets; eager again, with one line, where that fails.

A network's blocks are compiled, not the network: what lies between them stays plain, and a block that stands in the network
twenty times is compiled once (its kernels come from inductor's cache).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as functorch_config

from svdtrain.acceleration.compiling import keep_on_disk, say_failed
from svdtrain.acceleration.patches import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

log = logging.getLogger(__name__)

MODES = {"compile": "default", "graphs": "reduce-overhead"}
"""torch.compile's names. graphs: as compile, with each block's kernels launched as one CUDA graph."""
MOST_KINDS = 256
"""Of inputs, shapes and settings that one block's code may be compiled for, over all its places in the network."""


class Compiled(Patches):
    """Blocks under torch.compile; close() makes them eager."""

    def __init__(self, denoiser: nn.Module, class_names: Sequence[str], mode: str) -> None:
        super().__init__()
        self.mode, self.failed = mode, ""
        for module in denoiser.modules():
            if type(module).__name__ in class_names:
                self.forward(module, _Block(self, module.forward))

    def fall_back(self, error: Exception) -> None:
        """From now on all blocks run as they were."""
        self.failed = say_failed(f"speed.mode={self.mode}", error)


class _Block:
    """A block's forward pass: compiled at its first call for a shape."""

    def __init__(self, all_blocks: Compiled, usual: Callable[..., Any]) -> None:
        self.all_blocks, self.usual = all_blocks, usual
        self.compiled = torch.compile(usual, dynamic=False, mode=MODES[all_blocks.mode])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """As the block itself."""
        if self.all_blocks.failed:
            return self.usual(*args, **kwargs)
        try:
            with functorch_config.patch(force_non_lazy_backward_lowering=True):  # that it can fail here, and not later
                return self.compiled(*args, **kwargs)
        except TorchDynamoException as error:
            self.all_blocks.fall_back(error)
            return self.usual(*args, **kwargs)


def compile_blocks(denoiser: nn.Module, class_names: Sequence[str], mode: str) -> Compiled:
    """Compile the blocks of these classes, after adapters and levers are in place and before `recompute`.

    mode: compile, or graphs, which is compile where there is no GPU. A shape that is new is compiled anew. A network without
    content, whose step is only foretold, stays as it is.
    """
    assert mode in MODES, mode
    if any(parameter.is_meta for parameter in denoiser.parameters()):
        return Compiled(denoiser, (), mode)
    if mode == "graphs" and not torch.cuda.is_available():
        log.warning("speed.mode=graphs needs a GPU; taking speed.mode=compile")
        mode = "compile"
    keep_on_disk()
    blocks = Compiled(denoiser, class_names, mode)
    _allow_many_kinds(blocks)
    if mode == "graphs":
        hook = denoiser.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())
        blocks.undo(hook.remove)
    return blocks


def _allow_many_kinds(patches: Patches) -> None:
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        before = getattr(dynamo_config, name)
        setattr(dynamo_config, name, max(before, MOST_KINDS))
        patches.undo(lambda name=name, before=before: setattr(dynamo_config, name, before))
