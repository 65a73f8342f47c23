"""How far each half of an adapter has moved the weights: the Frobenius norm of its change, without building the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from svdtrain.adapters.inject import adapter_layers, layer_parts
from svdtrain.adapters.layer import A, B

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


def norms_of_halves(denoiser: nn.Module, halves: Mapping[str, str], name: str = "default") -> dict[str, float]:
    """Half -> root of its layers' sum of squares; the device is waited for once. A DoRA's is that of its LoRA part.

    halves: of each adapted module, by its name.
    """
    squares: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for module_name, layer in adapter_layers(denoiser, name):
            parts = {part: value.detach().float() for part, value in layer_parts(layer, name).items()}
            if half := halves.get(module_name):
                squares.setdefault(half, []).append(_square(parts) * layer.scaling[name] ** 2)
        sums = [torch.stack(found).sum() for found in squares.values()]
        values = torch.stack(sums).clamp(min=0).sqrt().tolist() if sums else []
    return dict(zip(squares, values, strict=True))


def _square(p: Mapping[str, Tensor]) -> Tensor:
    """The squared norm of a layer's change, its scale apart."""
    if A in p:  # |B A|^2 = <B^T B, A A^T>, of rank by rank
        up, down = p[B].flatten(1), p[A].flatten(1)
        return ((up.T @ up) * (down @ down.T)).sum()
    if "hada_w1_a" in p:
        return ((p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])).square().sum()
    factors = [p[w] if w in p else p[f"{w}_a"] @ p[f"{w}_b"] for w in ("lokr_w1", "lokr_w2")]
    return factors[0].square().sum() * factors[1].square().sum()
