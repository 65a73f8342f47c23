"""A short mark of a base model's weights that survives bf16 and fp16 casts, and tells fine-tunes of one shape apart."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor, nn

_PROBES = 16
_VALUES = 4096
_TOLERANCE = 4e-3


def fingerprint(denoiser: nn.Module) -> str:
    """JSON [layout hash, numbers]: a hash of names and shapes, and fixed random projections of 16 weight matrices.

    Each number is sum(w s) / |w| over up to 4096 values of a weight, s = fixed signs: about 1 in size. Rounding weights to
    bf16 moves the numbers by 0.001 (root mean square), a fine-tune by its relative size. LoRA layers are left out.
    """
    weights = {name.replace(".base_layer", ""): p for name, p in denoiser.named_parameters() if ".lora_" not in name}
    layout = hashlib.sha256(json.dumps([[n, list(p.shape)] for n, p in sorted(weights.items())]).encode()).hexdigest()[
        :16
    ]
    matrices = [name for name in sorted(weights) if weights[name].dim() > 1]
    chosen = matrices[:: max(1, len(matrices) // _PROBES)][:_PROBES]
    return json.dumps([layout, [round(_project(weights[name]), 5) for name in chosen]])


def _project(weight: Tensor) -> float:
    flat = weight.detach().flatten()
    values = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES].double().cpu()
    # Signs from the golden ratio's multiples: fixed, balanced, and without structure of their own.
    signs = torch.sign(torch.remainder(torch.arange(len(values), dtype=torch.float64) * 0.6180339887498949, 1.0) - 0.5)
    return float((values * signs).sum() / values.norm().clamp_min(1e-30))


def differences(expected: str, actual: str) -> str:
    """Empty when two fingerprints belong to the same base, else what differs."""
    expected_layout, expected_numbers = json.loads(expected)
    actual_layout, actual_numbers = json.loads(actual)
    if expected_layout != actual_layout:
        return "other modules or shapes"
    squares = [(a - b) ** 2 for a, b in zip(expected_numbers, actual_numbers, strict=True)]
    moved = (sum(squares) / max(1, len(squares))) ** 0.5
    return "" if moved <= _TOLERANCE else f"same shapes, other weights (they moved by {moved:.1%})"
