"""A short mark of a base model's weights that survives bf16 and fp16 casts, and tells fine-tunes of one shape apart."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from svdtrain.adapters.layout import BaseWeights

Array = np.ndarray[Any, np.dtype[Any]]

_PROBES = 16
_VALUES = 4096
_TOLERANCE = 4e-3


def fingerprint(denoiser: nn.Module) -> str:
    """JSON [layout hash, numbers]: a hash of names and shapes, and fixed random projections of 16 weight matrices.

    Each number is sum(w s) / |w| over up to 4096 values of a weight, s = fixed signs: about 1 in size. Rounding weights to
    bf16 moves the numbers by 0.001 (root mean square), a fine-tune by its relative size. Adapters are left out.
    """
    weights = {
        name.replace(".base_layer", ""): p
        for name, p in denoiser.named_parameters()
        if not any(mark in name for mark in (".lora_", ".hada_", ".lokr_"))
    }

    def values(name: str) -> Array:
        flat = weights[name].detach().flatten()
        return flat[:: max(1, len(flat) // _VALUES)][:_VALUES].double().cpu().numpy()

    return _mark({name: tuple(p.shape) for name, p in weights.items()}, values)


def fingerprint_on_disk(base: BaseWeights) -> str:
    """The same of weights on disk, without building the model."""

    def values(name: str) -> Array:
        flat = base.tensor(name).ravel()
        return flat[:: max(1, len(flat) // _VALUES)][:_VALUES].astype(np.float64)

    return _mark(base.shapes(), values)


def _mark(shapes: Mapping[str, Sequence[int]], values: Callable[[str], Array]) -> str:
    """Weights and biases count; a file also holds what a module calls buffers."""
    named = {name: list(shape) for name, shape in sorted(shapes.items()) if name.endswith((".weight", ".bias"))}
    layout = hashlib.sha256(json.dumps(list(named.items())).encode()).hexdigest()[:16]
    matrices = [name for name, shape in named.items() if len(shape) > 1]
    chosen = matrices[:: max(1, len(matrices) // _PROBES)][:_PROBES]
    return json.dumps([layout, [round(_project(values(name)), 5) for name in chosen]])


def _project(values: Array) -> float:
    # Signs from the golden ratio's multiples: fixed, balanced, and without structure of their own.
    signs = np.sign(np.remainder(np.arange(len(values)) * 0.6180339887498949, 1.0) - 0.5)
    return float((values * signs).sum() / max(float(np.linalg.norm(values)), 1e-30))


def differences(expected: str, actual: str) -> str:
    """Empty when two fingerprints belong to the same base, else what differs."""
    try:
        expected_layout, expected_numbers = json.loads(expected)
        actual_layout, actual_numbers = json.loads(actual)
        if expected_layout != actual_layout:
            return "other modules or shapes"
        squares = [(a - b) ** 2 for a, b in zip(expected_numbers, actual_numbers, strict=True)]
    except (ValueError, TypeError, RecursionError):
        return "a fingerprint that cannot be read"
    moved = (sum(squares) / max(1, len(squares))) ** 0.5
    return "" if moved <= _TOLERANCE else f"same shapes, other weights (they moved by {moved:.1%})"
