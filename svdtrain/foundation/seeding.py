"""Random draws from keys: the same (seed, clip position, purpose) gives the same numbers on every machine and rank."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def key_to_seed(*key: str | int) -> int:
    """A 63-bit seed that is a pure function of the key's parts."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*key: str | int) -> torch.Generator:
    """A fresh CPU generator for one key. Draws are made on the CPU, so they do not depend on the device."""
    return torch.Generator().manual_seed(key_to_seed(*key))


@dataclass(frozen=True)
class Draws:
    """The randomness of one batch: each clip draws by its own key, so a draw depends on neither rank, batch nor worker.

    `keys_B` names each clip's place in the run (its global position, or a clip key and a repeat in validation);
    `strata_B`, when given, is each clip's (slot, number of slots) within the optimizer step's global batch.
    """

    seed: int
    keys_B: tuple[str | int, ...]
    strata_B: tuple[tuple[int, int], ...] | None = None
    device: torch.device | str = "cpu"

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """fp32 [B, *shape], i.i.d. standard normal."""
        rows = [torch.randn(shape, generator=generator(self.seed, purpose, key)) for key in self.keys_B]
        return torch.stack(rows).to(self.device)

    def uniform(self, purpose: str) -> Tensor:
        """fp64 [B] in (0, 1)."""
        rows = [
            torch.rand((), dtype=torch.float64, generator=generator(self.seed, purpose, key)) for key in self.keys_B
        ]
        return torch.stack(rows).clamp(1e-9, 1 - 1e-9).to(self.device)

    def stratified(self, purpose: str) -> Tensor:
        """fp64 [B] in (0, 1): u = (slot + U) / slots, so the global batch covers the unit interval evenly."""
        uniform_B = self.uniform(purpose)
        if self.strata_B is None:
            return uniform_B
        slot_B, slots_B = torch.tensor(self.strata_B, dtype=torch.float64, device=self.device).unbind(1)
        return (slot_B + uniform_B) / slots_B
