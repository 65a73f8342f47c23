"""Graphics cards: their memory and peak rates by their makers' data sheets, and how much of those a training step reaches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import UsageError, nearest

if TYPE_CHECKING:
    from svdtrain.planning.costs import Costs, Operation

CONTEXT = 0.6 * 2**30
"""Bytes that a process takes of a GPU before its first tensor."""
MARGIN = 0.05
"""Of what is free: workspaces within kernels, the allocator's rounding and fragments. An estimate, not measured."""


@dataclass(frozen=True)
class Card:
    """Dense rates, without sparsity."""

    title: str
    mebibytes: int
    """Of memory, as nvidia-smi tells."""
    tflops: float
    """Of bf16 (fp16 where there is none) products, summed in fp32."""
    fp32: float
    """TFLOP/s."""
    bandwidth: float
    """GB/s."""
    bf16: bool = True

    @property
    def room(self) -> float:
        """Bytes that a step may use."""
        return (self.mebibytes * 2**20 - CONTEXT) * (1 - MARGIN)

    @property
    def precision(self) -> str:
        """What trainer.precision=auto is there."""
        return "bf16-mixed" if self.bf16 else "16-mixed"


CARDS = {
    "t4": Card("Tesla T4", 15360, 65.0, 8.1, 320, bf16=False),
    "v100": Card("Tesla V100", 32768, 125.0, 15.7, 900, bf16=False),
    "rtx3060": Card("GeForce RTX 3060", 12288, 25.5, 12.7, 360),
    "rtx3090": Card("GeForce RTX 3090", 24576, 71.0, 35.6, 936),
    "rtx4080": Card("GeForce RTX 4080", 16376, 97.5, 48.7, 717),
    "rtx4090": Card("GeForce RTX 4090", 24564, 165.2, 82.6, 1008),
    "rtx5090": Card("GeForce RTX 5090", 32607, 209.5, 104.8, 1792),
    "a10": Card("A10", 23028, 125.0, 31.2, 600),
    "a6000": Card("RTX A6000", 49140, 154.8, 38.7, 768),
    "rtx6000ada": Card("RTX 6000 Ada", 49140, 364.2, 91.1, 960),
    "l4": Card("L4", 23034, 121.0, 30.3, 300),
    "l40s": Card("L40S", 46068, 362.0, 91.6, 864),
    "a100_40gb": Card("A100, 40 GB", 40960, 312.0, 19.5, 1555),
    "a100": Card("A100, 80 GB", 81920, 312.0, 19.5, 2039),
    "h100": Card("H100, 80 GB", 81559, 989.4, 66.9, 3350),
    "h200": Card("H200", 143771, 989.4, 66.9, 4800),
    "b200": Card("B200", 183359, 2250.0, 75.0, 8000),
}
"""card=NAME -> card, small ones first."""
EFFICIENCY = {"matrix": 0.58, "convolution": 0.5, "attention": 0.4, "norm": 0.12, "pointwise": 0.41}
"""Of a card's peak rate (of its bandwidth, for norm and pointwise) that kernels of a kind reach in a step: fitted to an H200's
operators, scripts/benchmarks/results/operators-2026-11-28-h200.json, and taken for all cards."""
COPIES = 0.8
"""Of the bandwidth, where products, convolutions and attention are bound by it."""
HOST = 34e-6
"""Seconds that Python and torch take for an operation that is work, with the views around it: 14 frames of 256 x 256 are
bound by it on that machine (194 ms for 5,725 of them)."""
LINK = 27e9
"""Bytes a second to the CPU's memory and back, beside the work of the step: offload's, on that machine."""


def card_of(name: str) -> str:
    """The name in the table of a card that is written in any way: RTX 4090 is rtx4090, A100 80GB is a100.

    Raises UsageError for an unknown one.
    """
    known = {_plain(name): key for key, card in CARDS.items() for name in (key, card.title)}
    plain = _plain(name).removeprefix("nvidia")
    if plain not in known:
        raise UsageError(f"card={name}: not in the table; {nearest(plain, CARDS)}", f"card={'|'.join(CARDS)}")
    return known[plain]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def card_named(said: str) -> str | None:
    """Likewise of what a driver calls `NVIDIA A100-SXM4-40GB`; None for one that is not in the table."""
    for key, card in CARDS.items():
        name, _, size = card.title.partition(", ")
        if re.search(rf"\b{name}\b(?! (Ti|SUPER|D|Laptop))", said) and size.replace(" ", "") in said:
            return key
    return None


def seconds(costs: Costs, card: Card) -> float:
    """Of a step: the roofline of each operation by the efficiency of its kind; or of the host, where that is slower."""
    on_device = sum(count * _of_one(operation, card) for operation, count in costs.operations.items())
    return max(on_device, costs.calls * HOST)


def _of_one(operation: Operation, card: Card) -> float:
    efficiency, bandwidth = EFFICIENCY[operation.kind], card.bandwidth * 1e9
    if operation.kind in ("norm", "pointwise"):
        return operation.moved / (bandwidth * efficiency)
    rate = (card.fp32 if operation.fp32 and operation.kind == "convolution" else card.tflops) * 1e12
    return max(operation.flops / (rate * efficiency), operation.moved / (bandwidth * COPIES))
