"""What a run may spend: memory, and the ways to spend less time on the same step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from svdtrain.config.fields import Strict


class MemoryConfig(Strict):
    """How much of the forward pass is kept, and how much is computed again."""

    rung: Literal["auto", "none", "feed_forward", "blocks", "nested", "offload"]
    """From fast to small; all give the same gradients. none: all is kept. feed_forward, blocks: these are computed again in the
    backward pass. nested: both. offload: besides, what blocks begin with waits in the CPU's memory. auto: the fastest that
    is predicted to fit."""
    budget: (
        Annotated[str, Field(pattern=r"^(0*[1-9]\d*(\.\d+)?|0+\.0*[1-9]\d*)\s?(GiB|GB|MiB|MB)$", examples=["24GiB"])]
        | None
    ) = None
    """For auto: what the step may use, such as 24GiB; null: what the device has."""
    shard_base: bool = False
    """Each GPU of a machine keeps a part of the frozen base's repeated blocks, and is sent the rest as they compute (FSDP2)."""


class SpeedConfig(Strict):
    """Ways to do the same step in less time and memory; each can be switched off by its name."""

    mode: Literal["eager", "compile", "graphs"]
    """compile: repeated blocks by torch.compile, which pays in long runs; graphs: CUDA graphs around them, for small clips."""
    one_token_attention: bool = True
    """Cross-attention over one token without its attention. Exact."""
    frozen_operations: bool = True
    """Frozen convolutions, norms and GEGLUs keep less for the backward pass. Equal to the bit."""
    blends: bool = True
    """Spatial and temporal features blended in one pass. Exact."""
    fused_pointwise: bool = False
    """On a GPU, norms, GEGLUs and blends of large tensors by kernels that torch.compile writes at the first step."""
    fused_lora: bool = True
    """A LoRA and its linear layer as one operation, in the base's precision with fp32 masters: no autocast. Exact."""
    self_attention: bool = True
    """Queries, keys and values of self-attention as one operation, whose input's gradient is one sum. Exact."""
    conv3d_as_conv2d: bool = True
    """On a CPU, convolutions over frames alone by 2-D kernels. Exact."""
    attention_in_parts: bool = True
    """Attention over more than 65,535 rows in parts; some kernels fail there. Exact."""
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    """The attention kernel that is tried first; auto: cuDNN's, then flash."""

    @property
    def levers(self) -> list[str]:
        """Names of those that are on."""
        return [name for name, value in self.model_dump().items() if value is True]
