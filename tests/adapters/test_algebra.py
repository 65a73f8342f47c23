"""Arithmetic of adapters against dense float64 matrices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from svdtrain.adapters.algebra import Cut, Loss, average, extracted, merged, resized, to_lora, truncated
from svdtrain.adapters.files import AdapterFile
from svdtrain.adapters.layer import MAGNITUDE, A, B, Layer
from svdtrain.adapters.measures import by_block, measure, product
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation.errors import ModelError

SPATIAL, TEMPORAL = (f"down_blocks.0.attentions.0.{half}transformer_blocks.0.attn1.to_q" for half in ("", "temporal_"))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain(rank: int = 4, out: int = 20, into: int = 16, seed: int = 0, scale: float = 2.0) -> Layer:
    return Layer({A: normal(rank, into, seed=seed), B: normal(out, rank, seed=seed + 1)}, scale)


def conv(rank: int = 3) -> Layer:
    return Layer({A: normal(rank, 5, 3, 3), B: normal(8, rank, 1, 1)}, 0.5)


def loha(rank: int = 3, seed: int = 0) -> Layer:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    shapes = ((20, rank), (rank, 16)) * 2
    return Layer({n: normal(*s, seed=seed + i) for i, (n, s) in enumerate(zip(names, shapes, strict=True))}, 0.3)


def lokr(*, whole: bool) -> Layer:
    second = {"lokr_w2": normal(5, 4)} if whole else {"lokr_w2_a": normal(5, 2), "lokr_w2_b": normal(2, 4)}
    return Layer({"lokr_w1": normal(4, 4, seed=3), **second}, 0.7)


def dora() -> Layer:
    return Layer({**plain().parts, MAGNITUDE: 1 + abs(normal(20))}, 2.0)


KINDS = {"lora": plain(), "conv": conv(), "loha": loha(), "lokr": lokr(whole=True), "lokr in three": lokr(whole=False)}


def dense(layer: Layer, weight: np.ndarray | None = None) -> np.ndarray:
    exact = Layer({n: p.astype(np.float64) for n, p in layer.parts.items()}, layer.scale)
    return exact.delta(weight)


def file(layers: Mapping[str, Layer], name: str = "a", **info: str) -> AdapterFile:
    return AdapterFile(Path(name), dict(layers), AdapterInfo(**info))


def close(layer: Layer, wanted: np.ndarray, tolerance: float = 2e-6) -> bool:
    return bool(np.abs(dense(layer) - wanted).max() <= tolerance * np.abs(wanted).max())


def test_kronecker_and_hadamard_by_hand() -> None:
    layer = lokr(whole=True)
    w1, w2 = layer.parts["lokr_w1"], layer.parts["lokr_w2"]
    assert dense(layer)[7, 9] == pytest.approx(0.7 * w1[1, 2] * w2[2, 1], rel=1e-6)
    other, p = loha(), loha().parts
    by_hand = 0.3 * (p["hada_w1_a"][7] @ p["hada_w1_b"][:, 9]) * (p["hada_w2_a"][7] @ p["hada_w2_b"][:, 9])
    assert dense(other)[7, 9] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("layer", KINDS.values(), ids=KINDS)
def test_measures_are_those_of_the_dense_change(layer: Layer) -> None:
    values = np.linalg.svdvals(dense(layer))
    assert layer.singular_values()[: len(values)] == pytest.approx(values[: len(layer.singular_values())], abs=1e-4)
    share = values[values > 1e-6] / values.sum()
    found = measure(layer)
    assert found.norm == pytest.approx(np.linalg.norm(dense(layer)), rel=1e-4)
    assert found.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-2)


@pytest.mark.parametrize("layer", KINDS.values(), ids=KINDS)
def test_folding_changes_no_weight(layer: Layer) -> None:
    assert layer.folded().scale == 1.0
    assert close(layer.folded(), dense(layer), 1e-6)
    assert layer.folded().folded(layer.scale).scale == layer.scale


@pytest.mark.parametrize("layer", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("rank", [1, 2, 3, 16])
def test_a_cut_is_the_best_of_its_rank(layer: Layer, rank: int) -> None:
    """Eckart-Young: no matrix of the rank is nearer than the truncated SVD, whose error is that of the values left out."""
    loss, wanted = Loss(), dense(layer)
    cut = truncated(layer, Cut(rank), layer.made_for(), loss)
    left, values, right = np.linalg.svd(wanted, full_matrices=False)
    assert np.abs(dense(cut) - (left[:, :rank] * values[:rank]) @ right[:rank]).max() < 1e-5 * values[0]
    assert loss.share == pytest.approx(np.linalg.norm(dense(cut) - wanted) / np.linalg.norm(wanted), abs=1e-6)
    assert (cut.rank or 0) <= min(rank, len(values))
    assert cut.made_for() == layer.made_for()


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99, 1.0])
def test_as_few_ranks_as_keep_the_energy(keep: float) -> None:
    layers, loss = resized(file({"a": plain(8), "b": plain(2, seed=5)}), Cut(keep=keep))
    for name, layer in layers.items():
        values = np.linalg.svdvals(dense({"a": plain(8), "b": plain(2, seed=5)}[name])) ** 2
        rank = layer.rank or 0
        assert values[:rank].sum() >= keep * values.sum() * (1 - 1e-9)
        assert rank == 1 or values[: rank - 1].sum() < keep * values.sum()
    assert loss.share <= np.sqrt(1 - keep) + 1e-6


def test_merging_by_cat_is_the_exact_weighted_sum() -> None:
    first, second = plain(4), plain(2, seed=7, scale=0.5)
    layers, _ = merged([(file({SPATIAL: first}), 0.8), (file({SPATIAL: second, TEMPORAL: second}), -0.5)], "cat", Cut())
    assert close(layers[SPATIAL], 0.8 * dense(first) - 0.5 * dense(second))
    assert close(layers[TEMPORAL], -0.5 * dense(second))
    assert layers[SPATIAL].rank == 6


@pytest.mark.parametrize("second", [plain(2, seed=7), loha(seed=9), lokr(whole=False)], ids=["lora", "loha", "lokr"])
def test_merging_by_svd_is_the_sum_cut(second: Layer) -> None:
    first, weights = plain(4), (0.8, 1.5)
    wanted = 0.8 * dense(first) + 1.5 * dense(second)
    files = list(zip([file({"m": first}), file({"m": second})], weights, strict=True))
    exact, loss = merged(files, "svd", Cut(16))
    assert close(exact["m"], wanted, 1e-5)
    assert loss.share < 1e-6
    cut, loss = merged(files, "svd", Cut(2))
    assert loss.share == pytest.approx(np.linalg.norm(dense(cut["m"]) - wanted) / np.linalg.norm(wanted), abs=1e-5)


def test_merging_one_by_linear_is_that_one() -> None:
    layers, _ = merged([(file({"m": plain()}), -0.7)], "linear", Cut())
    assert close(layers["m"], -0.7 * dense(plain()))


def test_ties_keeps_what_agrees() -> None:
    """arXiv 2306.01708: with all numbers kept, signs that agree are averaged or summed, and no sign is against the elected."""
    first, second = plain(4), plain(4, seed=3)
    total = dense(first) + dense(second)
    layers, _ = merged([(file({"m": first}), 1.0), (file({"m": second}), 1.0)], "ties", Cut(16), density=1.0)
    made = dense(layers["m"])
    large = np.abs(made) > 1e-3
    assert (np.sign(made) == np.sign(total))[large].all()


def test_dare_is_a_function_of_its_seed() -> None:
    files = [(file({"m": plain()}), 1.0), (file({"m": plain(seed=3)}), 1.0)]
    made = [merged(files, "dare", Cut(16), density=0.5, seed=seed)[0]["m"].parts[A] for seed in (1, 1, 2)]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_an_average_weighs_by_age() -> None:
    saves = [{"m": plain(seed=seed)} for seed in (0, 3, 6)]
    layers = average([file(save) for save in saves], 0.75)
    for name in (A, B):
        first, second, third = (save["m"].parts[name].astype(np.float64) for save in saves)
        wanted = (0.5625 * first + 0.75 * second + third) / (0.5625 + 0.75 + 1)
        assert layers["m"].parts[name] == pytest.approx(wanted, abs=1e-6)
    assert layers["m"].scale == 2.0


def test_extraction_finds_a_low_rank_change_again() -> None:
    base, layer = normal(20, 16, seed=11), plain(3)
    pairs = [("m", base + dense(layer), base), ("same", base, base)]
    layers, loss = extracted(iter(pairs), Cut(3))
    assert list(layers) == ["m"]
    assert close(layers["m"], dense(layer), 1e-5)
    assert loss.share < 1e-6


def test_a_dora_becomes_a_lora_of_its_whole_change() -> None:
    weight, layer = normal(20, 16, seed=11).astype(np.float64), dora()
    moved = weight + dense(Layer({A: layer.parts[A], B: layer.parts[B]}, 2.0))
    wanted = layer.parts[MAGNITUDE][:, None] / np.linalg.norm(moved, axis=1, keepdims=True) * moved - weight
    layers, _ = to_lora(file({"m": layer}), Cut(keep=1.0), lambda _: weight)
    assert close(layers["m"], wanted, 1e-5)


def test_inner_products_by_factors() -> None:
    first, second = plain(4), plain(2, seed=7)
    assert product(first, second) == pytest.approx((dense(first) * dense(second)).sum(), rel=1e-6)
    assert product(first, loha()) == pytest.approx((dense(first) * dense(loha())).sum(), rel=1e-4)


def test_a_change_of_one_direction_has_an_effective_rank_of_one() -> None:
    """As after a first step: every column of B is the same, and its Gram matrix is singular."""
    up = np.repeat(normal(20, 1), 4, axis=1)
    found = measure(Layer({A: normal(4, 16), B: up}))
    assert found.effective_rank == pytest.approx(1.0, abs=1e-3)
    assert found.norm == pytest.approx(np.linalg.norm(up @ normal(4, 16)), rel=1e-4)


def test_rows_by_block_and_half() -> None:
    dead = Layer({A: normal(4, 16), B: np.zeros((20, 4), np.float32)})
    layers = {SPATIAL: plain(), TEMPORAL: dead, TEMPORAL.replace("to_q", "to_k"): plain(seed=2)}
    layers["up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_q"] = plain(seed=4)
    rows = by_block(layers, lambda _: normal(20, 16))
    assert [(r.block, r.half, r.modules, r.dead) for r in rows] == [
        ("down_blocks.0", "spatial", 1, 0),
        ("down_blocks.0", "temporal", 2, 1),
        ("up_blocks.3", "spatial", 1, 0),
    ]
    assert rows[0].relative == pytest.approx(np.linalg.norm(dense(plain())) / np.linalg.norm(normal(20, 16)), rel=1e-4)


OTHER = '["0", [0.5]]'
REFUSED = [
    ("linear", plain(4), plain(2), {}, "has ranks"),
    ("cat", plain(), loha(), {}, "no factors to join"),
    ("svd", plain(), dora(), {}, "is a DoRA"),
    ("cat", plain(), plain(out=22), {}, "of another size"),
    ("cat", plain(), plain(), {"base_fingerprint": OTHER}, "made for different models"),
]


@pytest.mark.parametrize(("method", "first", "second", "info", "said"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_what_cannot_be_merged_is_refused(
    method: str, first: Layer, second: Layer, info: dict[str, str], said: str
) -> None:
    files = [(file({"m": first}, base_fingerprint='["1", [0.5]]'), 1.0), (file({"m": second}, "b", **info), 1.0)]
    with pytest.raises(ModelError, match=said):
        merged(files, method, Cut())


def test_saves_of_two_runs_are_not_averaged() -> None:
    with pytest.raises(ModelError, match="other modules, ranks or scales"):
        average([file({"m": plain(4)}), file({"m": plain(2)})], 0.5)
