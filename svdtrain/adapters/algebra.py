"""Arithmetic of adapters: merged, cut to a rank, taken apart, extracted, averaged. Without torch but for TIES and DARE.

Low-rank changes stay in their factors: with B = Q_B R_B and A^T = Q_A R_A, the singular values of B A are those of the
small R_B R_A^T, so nothing of the size of a weight is ever decomposed unless the change itself is dense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.fingerprint import differences
from svdtrain.adapters.layer import A, B, Layer, flat_up, lora
from svdtrain.adapters.targets import half_of
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from svdtrain.adapters.files import AdapterFile

Array = np.ndarray[Any, np.dtype[Any]]
Layers = dict[str, Layer]


@dataclass(frozen=True)
class Cut:
    """How much of a change is kept: a rank for every module, or in each as few as hold a share of the energy."""

    rank: int | None = None
    keep: float | None = None

    def of(self, values: Array) -> int:
        """The rank for singular values, largest first."""
        count = max(1, int((values > values[:1] * 1e-7).sum()))
        if self.keep is not None:
            energy = np.cumsum(values.astype(np.float64) ** 2)
            count = min(count, 1 + int(np.searchsorted(energy, energy[-1] * self.keep * (1 - 1e-12))))
        return count if self.rank is None else min(self.rank, count)


@dataclass
class Loss:
    """What a cut leaves out, over all modules: |lost|^2 and |whole|^2."""

    lost: float = 0.0
    whole: float = 0.0

    @property
    def share(self) -> float:
        """|lost| / |whole|, Frobenius norms of all changes together."""
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0


def truncated(change: Layer | Array, cut: Cut, shape: Sequence[int], loss: Loss) -> Layer:
    """The nearest LoRA (least squares, Eckart-Young) to a layer or a flat change; the factors share the singular values."""
    if isinstance(change, Layer) and change.kind == "lora":
        up, down = flat_up(change.parts[B]).astype(np.float64), change.parts[A].reshape(len(change.parts[A]), -1)
        q_up, r_up = np.linalg.qr(up)
        q_down, r_down = np.linalg.qr(down.astype(np.float64).T)
        left, values, right = np.linalg.svd(change.scale * (r_up @ r_down.T))
        left, right = q_up @ left, right @ q_down.T
    else:
        dense = change.delta() if isinstance(change, Layer) else change
        left, values, right = np.linalg.svd(dense.astype(np.float64), full_matrices=False)
    rank = cut.of(values)
    loss.whole += float((values**2).sum())
    loss.lost += float((values[rank:] ** 2).sum())
    root = np.sqrt(values[:rank])
    up, down = left[:, :rank] * root, root[:, None] * right[:rank]
    return lora(down.astype(np.float32), up.astype(np.float32), shape)


def shape_in(file: AdapterFile, module: str) -> tuple[int, ...]:
    """The shape of the weight that a layer is for: the base's, else what the layer says, flat for LoHa and LoKr."""
    return file.layout.shapes[module] if file.layout else file.layers[module].made_for()


def resized(file: AdapterFile, cut: Cut) -> tuple[Layers, Loss]:
    """Every layer cut. DoRA cannot be: its change is not of low rank."""
    loss = Loss()
    layers = {module: plain(module, layer) for module, layer in file.layers.items()}
    return {m: truncated(layer, cut, shape_in(file, m), loss) for m, layer in layers.items()}, loss


def to_lora(file: AdapterFile, cut: Cut, weight: Callable[[str], Array] | None) -> tuple[Layers, Loss]:
    """Plain LoRA of any kind; `weight` gives the base's weights, which only a DoRA needs."""
    loss = Loss()
    made: Layers = {}
    for module, layer in file.layers.items():
        if layer.kind == "dora" and weight is None:
            raise ModelError(f"'{module}' is a DoRA: its change is relative to the base's weights", "base=FOLDER")
        change = layer.delta(weight(module) if weight else None) if layer.kind != "lora" else layer
        made[module] = truncated(change, cut, shape_in(file, module), loss)
    return made, loss


def extracted(pairs: Iterator[tuple[str, Array, Array]], cut: Cut) -> tuple[Layers, Loss]:
    """LoRA of (module, tuned weight, base weight); modules that did not change are left out."""
    loss, made = Loss(), Layers()
    for module, tuned, base in pairs:
        change = tuned.astype(np.float64) - base
        if change.any():
            made[module] = truncated(change.reshape(len(change), -1), cut, base.shape, loss)
    return made, loss


def average(files: Sequence[AdapterFile], decay: float) -> Layers:
    """Of every number, over saved adapters, oldest first: each weighs `decay` times as much as the one after it."""
    first = files[0]
    shares = [decay ** (len(files) - 1 - place) for place in range(len(files))]
    shares = [share / sum(shares) for share in shares]
    kept = {
        m: {n: shares[0] * p.astype(np.float64) for n, p in layer.parts.items()} for m, layer in first.layers.items()
    }
    for share, file in zip(shares[1:], files[1:], strict=True):
        same = file.layers.keys() == kept.keys() and all(
            {n: p.shape for n, p in layer.parts.items()} == {n: p.shape for n, p in first.layers[m].parts.items()}
            and layer.scale == first.layers[m].scale
            for m, layer in file.layers.items()
        )
        if not same:
            hint = "only saves of one run can be averaged; `adapter merge method=cat` adds others"
            raise ModelError(f"{file.path}: other modules, ranks or scales than {first.path}", hint)
        for module, layer in file.layers.items():
            for name, part in layer.parts.items():
                kept[module][name] += share * part
    return {
        m: Layer({n: p.astype(np.float32) for n, p in parts.items()}, first.layers[m].scale)
        for m, parts in kept.items()
    }


def merged(
    files: Sequence[tuple[AdapterFile, float | Mapping[str, float]]],
    method: str,
    cut: Cut,
    *,
    density: float = 0.5,
    seed: int = 0,
) -> tuple[Layers, Loss]:
    """One adapter of several, each with its weight, or with one by half. Raises ModelError for those that cannot be merged so.

    cat: exact, ranks add up. linear: factors are added, which is another thing than adding changes; equal ranks only.
    svd: the exact sum cut to a rank. ties, dare: peft's, on the changes (arXiv 2306.01708, 2311.03099), cut to a rank.
    """
    refuse_other_bases([file for file, _ in files])
    loss, made = Loss(), Layers()
    for module in sorted({module for file, _ in files for module in file.layers}):
        having = [(file, weight) for file, weight in files if module in file.layers]
        present = [
            (plain(module, file.layers[module]), weight if isinstance(weight, int | float) else weight[half_of(module)])
            for file, weight in having
        ]
        shape = shape_in(having[0][0], module)
        if method == "cat":
            made[module] = _concatenated(module, present)
        elif method == "linear":
            made[module] = _linear(module, present)
        elif method in ("ties", "dare"):
            made[module] = truncated(_by_peft(module, present, method, density, seed), _cut(cut, present), shape, loss)
        elif all(layer.kind == "lora" for layer, _ in present):
            made[module] = truncated(_concatenated(module, present), _cut(cut, present), shape, loss)
        else:
            dense = sum((weight * layer.delta() for layer, weight in present), start=np.zeros(1))
            made[module] = truncated(dense, _cut(cut, present), shape, loss)
    return made, loss


def refuse_other_bases(files: Sequence[AdapterFile]) -> None:
    """Raises ModelError when two adapters were made for different models, or a module of theirs is of another size."""
    first = files[0]
    for file in files[1:]:
        marks = (first.info.base_fingerprint, file.info.base_fingerprint)
        if all(marks) and (difference := differences(*marks)):
            bases = f"{first.path} for {first.info.base or 'one base'}, {file.path} for {file.info.base or 'another'}"
            raise ModelError(
                f"made for different models: {bases} ({difference})", "only adapters of one base go together"
            )
        for module in first.layers.keys() & file.layers.keys():
            shapes = [math.prod(one.layers[module].made_for()) for one in (first, file)]
            if shapes[0] != shapes[1]:
                raise ModelError(f"{file.path}: '{module}' is of another size than in {first.path}", "another base")


def _cut(cut: Cut, present: Sequence[tuple[Layer, float]]) -> Cut:
    """What was asked for, else the highest rank that goes in."""
    if cut.rank or cut.keep:
        return cut
    return Cut(rank=max(layer.rank or min(layer.made_for()) for layer, _ in present))


def plain(module: str, layer: Layer) -> Layer:
    """The layer. Raises ModelError for a DoRA, which is no change by itself."""
    if layer.kind == "dora":
        raise ModelError(
            f"'{module}' is a DoRA, which only its base makes a change of", "adapter to-lora makes it a LoRA"
        )
    return layer


def _only_lora(module: str, present: Sequence[tuple[Layer, float]], method: str) -> None:
    if kind := next((layer.kind for layer, _ in present if layer.kind != "lora"), None):
        raise ModelError(
            f"method={method}: '{module}' is a {kind}, which has no factors to join", "method=svd, or to-lora"
        )


def _concatenated(module: str, present: Sequence[tuple[Layer, float]]) -> Layer:
    _only_lora(module, present, "cat")
    # The weight goes into B: A keeps its size, and rounding to bf16 stays even.
    ups = [layer.parts[B] * np.float32(weight * layer.scale) for layer, weight in present]
    return Layer({A: np.concatenate([layer.parts[A] for layer, _ in present]), B: np.concatenate(ups, axis=1)})


def _linear(module: str, present: Sequence[tuple[Layer, float]]) -> Layer:
    _only_lora(module, present, "linear")
    ranks = sorted({layer.rank or 0 for layer, _ in present})
    if len(ranks) > 1:
        raise ModelError(
            f"method=linear: '{module}' has ranks {ranks}, and factors of one rank can be added", "method=cat"
        )
    roots = [math.sqrt(abs(weight * layer.scale)) for layer, weight in present]
    signs = [math.copysign(1.0, weight * layer.scale) for layer, weight in present]
    down = sum(root * layer.parts[A] for root, (layer, _) in zip(roots, present, strict=True))
    up = sum(sign * r * layer.parts[B] for sign, r, (layer, _) in zip(signs, roots, present, strict=True))
    return Layer({A: np.asarray(down, np.float32), B: np.asarray(up, np.float32)})


def _by_peft(module: str, present: Sequence[tuple[Layer, float]], method: str, density: float, seed: int) -> Array:
    import torch
    from peft.utils.merge_utils import dare_linear, ties

    from svdtrain.foundation.seeding import key_to_seed

    changes = [torch.from_numpy(layer.delta().astype(np.float32)) for layer, _ in present]
    weights = torch.tensor([weight for _, weight in present])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_to_seed(seed, "dare", module))
        return (ties if method == "ties" else dare_linear)(changes, weights, density).numpy()
