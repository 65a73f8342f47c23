"""Costs of operations, cards, and the plan of a fit from its words alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from svdtrain.cli import main
from svdtrain.config.compose import check
from svdtrain.config.overrides import parse
from svdtrain.config.schema import FitConfig
from svdtrain.foundation.files import packaged
from svdtrain.planning.cards import CARDS, EFFICIENCY, HOST, card_named, card_of, seconds
from svdtrain.planning.costs import KINDS, Costs
from svdtrain.planning.duration import step_seconds
from svdtrain.planning.memory import LiveStorages
from svdtrain.planning.training_step import ENCODING, predict_rungs
from svdtrain.reporting.tables import duration
from svdtrain.training.build import build_module

H200 = CARDS["h200"]


def test_work_is_counted_by_kind() -> None:
    """Of products 2 m n k; each tensor is moved once; views are free."""
    left, right, costs = torch.ones(8, 16), torch.ones(16, 4), Costs()
    pictures, kernels = torch.ones(1, 3, 8, 8), torch.ones(5, 3, 1, 1)
    with LiveStorages(costs):
        torch.sigmoid((left @ right).view(-1)[:16].view(4, 4).t())
        nn.functional.conv2d(pictures, kernels)
    assert {one.kind: (one.flops, one.moved) for one in costs.operations} == {
        "matrix": (2 * 8 * 16 * 4, 4 * (128 + 64 + 32)),
        "pointwise": (0, 4 * (16 + 16)),
        "convolution": (2 * 3 * 5 * 64, 4 * (192 + 15 + 320)),
    }
    assert set(EFFICIENCY) == set(KINDS)


def test_a_slow_host_is_the_least_that_a_step_takes() -> None:
    costs = Costs()
    with LiveStorages(costs):
        for _ in range(7):
            torch.sigmoid(torch.ones(2))
    assert seconds(costs, H200) == pytest.approx(costs.calls * HOST)


SPELLINGS = {
    "rtx4090": ("rtx4090", "RTX 4090", "NVIDIA GeForce RTX 4090"),
    "a100_40gb": ("A100_40GB", "a100-40gb", "A100 40GB"),
    "a100": ("a100", "A100 80GB", "a100_80gb"),
}


@pytest.mark.parametrize(("card", "name"), [(card, name) for card, names in SPELLINGS.items() for name in names])
def test_cards_are_found_in_any_spelling(card: str, name: str) -> None:
    assert card_of(name) == card


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 3060 Ti", None),
        ("Tesla T4", "t4"),
    ],
)
def test_a_drivers_name_is_a_card_of_the_table_or_none(said: str, wanted: str | None) -> None:
    assert card_named(said) == wanted


@pytest.mark.parametrize(
    ("spent", "wanted"), [(45, "45 s"), (720, "12 min"), (12000, "3 h 20 min"), (360000, "4 d 4 h")]
)
def test_durations(spent: float, wanted: str) -> None:
    assert duration(spent) == wanted


MEASURED = {
    (14, 576, 1024): {"none": 0.489, "feed_forward": 0.528, "blocks": 0.648, "nested": 0.667, "offload": 0.758},
    (25, 576, 1024): {"none": 0.805, "feed_forward": 0.873, "blocks": 1.074, "nested": 1.098, "offload": 1.269},
}
"""Seconds a step on an H200: scripts/benchmarks/results/2026-11-28-h200.json."""
PEAKS = {(14, 576, 1024): (22, 10), (25, 576, 1024): (36, 16)}
"""GiB on feed_forward, and on the lowest rung, at most."""


@pytest.mark.slow
@pytest.mark.parametrize("size", MEASURED)
def test_stable_video_diffusion_as_an_h200_has_measured_it(size: tuple[int, int, int]) -> None:
    """Of full size, rank 16 on attention, encoded ahead."""
    frames, height, width = size
    words = ["config=style_lora", "model=svd_xt", "adapter.modules=attention", "adapter.rank=16", "data.cache=disk"]
    words += [f"model.source={packaged('assets')}/blueprints/svd_xt", "trainer.precision=bf16-mixed"]
    words += [f"model.frames={frames}", f"model.height={height}", f"model.width={width}"]
    (config,) = check(parse(words, "fit", "", FitConfig), FitConfig)
    costs: dict[str, Costs] = {}
    rungs = ("feed_forward", "nested", "offload")
    memory = dict(predict_rungs(config, build_module, rungs, encoded_ahead=True, on_gpu=True, costs=costs))
    assert memory["feed_forward"].peak / 2**30 < PEAKS[size][0]
    assert min(one.peak for one in memory.values()) / 2**30 < PEAKS[size][1]
    for rung in rungs:
        assert step_seconds(config, memory, costs, rung, H200) == pytest.approx(MEASURED[size][rung], rel=0.15)
    assert costs[ENCODING].flops > 0


TINY = ["plan", "config=style_lora", "model=nano"]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*TINY, *words, "format=json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_tells_rungs_cards_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    plan = told(capsys, "card=[h200,rtx4090]", "price=2")
    assert plan["clips"] == 96
    assert list(plan["rungs"]) == ["none", "feed_forward", "blocks", "nested", "offload"]
    peaks = [rung["peak_bytes"] for rung in plan["rungs"].values()]
    assert peaks[0] > peaks[1] > peaks[2] >= peaks[3]
    assert plan["rungs"]["none"]["flops"] < plan["rungs"]["blocks"]["flops"]
    assert [(card["card"], card["rung"]) for card in plan["cards"]] == [("rtx4090", "none"), ("h200", "none")]
    assert plan["cards"][0]["cost"] == pytest.approx(2 * plan["cards"][0]["hours"])
    assert not plan["needs_less"]


def test_hours_are_of_what_a_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Encoding in each step, unless windows of clips come again; whatever is looked at; and every rank is paid."""

    def of(*words: str) -> dict[str, Any]:
        return told(capsys, "card=rtx3060", "price=1", "trainer.max_steps=1000", *words)["cards"][0]

    plain, kept = of(), of("data.windows=1")
    assert plain["step_seconds"] == of("data.cache=none")["step_seconds"] > kept["step_seconds"]
    assert kept["hours"] < of("data.windows=4", "data.horizontal_flip=true")["hours"] < plain["hours"]
    for more in (["validation.training_clips=90"], ["optimizer.ema_decay=0.9"]):
        assert of(*more)["hours"] > plain["hours"]
    ranks = of("trainer.devices=2", "trainer.nodes=2")
    assert ranks["cost"] == pytest.approx(4 * ranks["hours"])


def test_of_a_card_that_nothing_fits_there_is_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    plan = told(capsys, "card=[t4,h200]", "memory.budget=10MiB", "price=1")
    assert {(one["rung"], one["step_seconds"], one["hours"], one["cost"]) for one in plan["cards"]} == {(None,) * 4}
    assert plan["needs_less"]


@pytest.mark.slow
def test_the_readmes_plan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By published sizes: there is no such model here."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert main(["plan", "config=style_lora", "model=svd_xt", "card=rtx4090", "price=0.4"]) == 0
    said = capsys.readouterr().out
    assert "svd_xt: 25 frames of 576 x 1024, batch 1, lora on attention and feed forward, bf16-mixed" in said
    assert "sizes as published" in said
    assert re.search(r"rtx4090 +24 GiB +blocks +\d+\.\d\d +\d+ h \d+ min +\d+\.\d\d", said)


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "card=rtx4090", "memory.budget=10MiB"]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "needs less     " in said


def test_clips_that_cannot_be_read_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "card=rtx4090", "data.source=/nowhere"]) == 0
    said = capsys.readouterr().out
    assert re.search("clips unknown: .*/nowhere", said)


def test_a_card_that_is_not_in_the_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "card=rtx4099"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: card=rtx4099: not in the table")
    assert "rtx4090" in said
