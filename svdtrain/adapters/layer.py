"""What an adapter does to one weight matrix, as plain mathematics in numpy: LoRA, DoRA, LoHa and LoKr.

With W the base's weight, flattened to [out, in * kernel], and s the scale:

    LoRA   W + s B A                                                         arXiv 2106.09685
    DoRA   m (W + s B A) / |W + s B A|, norms of rows                        arXiv 2402.09353
    LoHa   W + s (w1_a w1_b) * (w2_a w2_b), elementwise                      arXiv 2108.06098
    LoKr   W + s w1 (x) w2, Kronecker; either factor may be a product a b    arXiv 2309.14859
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Array = np.ndarray[Any, np.dtype[Any]]
A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
LORA = {A, B}
DORA = {A, B, MAGNITUDE}
LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}


@dataclass(frozen=True)
class Layer:
    """One module's adapter; parts by their names in peft's files."""

    parts: Mapping[str, Array]
    scale: float = 1.0

    @property
    def kind(self) -> str:
        """lora, dora, loha or lokr."""
        if MAGNITUDE in self.parts:
            return "dora"
        first = next(iter(self.parts))
        return "lora" if first in LORA else "loha" if first in LOHA else "lokr"

    @property
    def rank(self) -> int | None:
        """The inner dimension; None where there is none (LoKr of two whole factors)."""
        named = ((A, 0), ("hada_w1_b", 0), ("lokr_w1_b", 0), ("lokr_w2_b", 0))
        return next((int(self.parts[name].shape[axis]) for name, axis in named if name in self.parts), None)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return sum(part.size for part in self.parts.values())

    def delta(self, weight: Array | None = None) -> Array:
        """The change of the weight, [out, in * kernel]; DoRA needs the base's weight."""
        p = self.parts
        if self.kind in ("lora", "dora"):
            plain = self.scale * (flat_up(p[B]) @ p[A].reshape(len(p[A]), -1))
            if self.kind == "lora":
                return plain
            if weight is None:
                raise ModelError("a DoRA is no change by itself: it is relative to its base's weights", "base=FOLDER")
            flat = weight.reshape(len(weight), -1)
            moved = flat + plain
            norm = np.linalg.norm(moved, axis=1, keepdims=True)
            return p[MAGNITUDE].reshape(-1, 1) / norm * moved - flat
        if self.kind == "loha":
            return self.scale * ((p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]))
        first, second = self.kronecker()
        return self.scale * np.kron(first, second.reshape(len(second), -1))

    def kronecker(self) -> tuple[Array, Array]:
        """LoKr's two factors, whole."""
        p = self.parts
        first = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
        second = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
        return first, second

    def singular_values(self) -> Array:
        """Of the change, largest first, without building it where its form allows. Not for DoRA."""
        if self.kind == "lora":
            # B A = Q_B (R_B R_A^T) Q_A^T, whose middle is rank by rank.
            _, upper = np.linalg.qr(flat_up(self.parts[B]))
            _, lower = np.linalg.qr(self.parts[A].reshape(len(self.parts[A]), -1).T)
            return abs(self.scale) * np.linalg.svdvals(upper @ lower.T)
        if self.kind == "lokr":
            first, second = (np.linalg.svdvals(f.reshape(len(f), -1)) for f in self.kronecker())
            return abs(self.scale) * np.sort(np.outer(first, second).ravel())[::-1]
        return np.linalg.svdvals(self.delta())

    def folded(self, scale: float | None = None) -> Layer:
        """The same change with another scale written beside it (1 when None), the rest multiplied into one factor."""
        wanted = 1.0 if scale is None else scale
        if self.scale == wanted:
            return self
        name = next(n for n in (B, "hada_w1_a", "lokr_w1", "lokr_w1_a") if n in self.parts)
        parts = {**self.parts, name: self.parts[name] * np.asarray(self.scale / wanted, self.parts[name].dtype)}
        return replace(self, parts=parts, scale=wanted)

    def fault(self, shape: Sequence[int] | None = None) -> str:
        """Empty, or why this is no layer (for a weight of that shape)."""
        names = set(self.parts)
        whole = {"lora": LORA, "dora": DORA, "loha": LOHA}.get(self.kind)
        if whole is not None and names != whole:
            odd = sorted(names ^ whole)
            return f"'{odd[0]}' is {'missing' if odd[0] in whole else 'superfluous'}"
        if self.kind == "lokr" and (
            not names <= LOKR
            or not all(f"lokr_{w}" in names or {f"lokr_{w}_a", f"lokr_{w}_b"} <= names for w in ("w1", "w2"))
        ):
            return "its two factors are not whole"
        return self._shape_fault(shape)

    def made_for(self) -> tuple[int, ...]:
        """The shape of the weight: [out, in, *kernel], or [out, in * kernel] of LoHa and LoKr. ValueError: none."""
        p = self.parts
        shapes = {name: part.shape for name, part in p.items()}
        if 0 in (size for shape in shapes.values() for size in shape):
            raise ValueError(f"shapes {shapes} hold nothing")
        if self.kind in ("lora", "dora"):
            a, b = shapes[A], shapes[B]
            if not 2 <= len(a) <= 5 or len(b) not in (2, len(a)) or a[0] != b[1] or math.prod(b[2:]) != 1:
                raise ValueError(f"lora_A {list(a)} and lora_B {list(b)} have no rank in common")
            if self.kind == "dora" and shapes[MAGNITUDE] != (b[0],):
                raise ValueError(f"magnitude {list(shapes[MAGNITUDE])} for {b[0]} rows")
            return (b[0], *a[1:])
        if (
            any(len(shape) != 2 for name, shape in shapes.items() if name != "lokr_w2")
            or len(shapes.get("lokr_w2", (1, 1))) < 2
        ):
            raise ValueError(f"shapes {shapes} are no factors")
        if self.kind == "loha":
            pairs = [_joined(shapes, f"hada_{w}_a", f"hada_{w}_b") for w in ("w1", "w2")]
            if pairs[0] != pairs[1]:
                raise ValueError(f"products of {pairs[0]} and {pairs[1]}")
            return pairs[0]
        first, second = (shapes.get(f"lokr_{w}") or _joined(shapes, f"lokr_{w}_a", f"lokr_{w}_b") for w in ("w1", "w2"))
        return (first[0] * second[0], first[1] * math.prod(second[1:]))

    def _shape_fault(self, shape: Sequence[int] | None) -> str:
        try:
            made = self.made_for()
        except ValueError as error:
            return str(error)
        wanted = tuple(shape or made)
        flat = (wanted[0], math.prod(wanted[1:]))
        fits = made == wanted if self.kind in ("lora", "dora") else made == flat
        return "" if fits else f"it is for {list(made)}, the model has {list(wanted)}"


def _joined(shapes: Mapping[str, tuple[int, ...]], first: str, second: str) -> tuple[int, int]:
    """The shape of a product of two factors."""
    if shapes[first][1] != shapes[second][0]:
        raise ValueError(f"{first} {list(shapes[first])} and {second} {list(shapes[second])} do not fit each other")
    return shapes[first][0], shapes[second][1]


def flat_up(up: NDArray[Any]) -> Array:
    """lora_B [out, r] of a linear layer or [out, r, 1, 1] of a convolution, as [out, r]."""
    return up.reshape(len(up), -1)


def lora(down: Array, up: Array, shape: Sequence[int] | None = None) -> Layer:
    """A LoRA of scale 1 from flat factors [r, in * kernel] and [out, r]; with a convolution's weight shape, in its form."""
    if shape is not None and len(shape) > 2:
        down, up = down.reshape(len(down), *shape[1:]), up.reshape(*up.shape, *(1 for _ in shape[2:]))
    return Layer({A: np.ascontiguousarray(down), B: np.ascontiguousarray(up)})
