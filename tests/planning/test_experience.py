"""What earlier runs took mends what is foretold: the ratio of a card is that of its runs, and nothing else counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from svdtrain.cli import main
from svdtrain.planning.experience import LOOKED_AT, NEWEST, Experience, experience

RUN: dict[str, Any] = {
    "state": "done",
    "hardware": "NVIDIA H200",
    "plan": {"peak_bytes": 1, "model": "nano", "step_seconds": 3.0, "table_seconds": 2.0},
    "speed": {"steps": 100, "seconds_per_batch": 9.0, "settled_seconds": 3.0, "compile_seconds": 0.0},
}


def save(runs: Path, number: int, fields: object, name: str = "style") -> None:
    file = runs / name / f"run-{number:04d}" / "run.json"
    file.parent.mkdir(parents=True)
    file.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    os.utime(file, (number, number))


def took(seconds: float, **other: object) -> dict[str, Any]:
    return RUN | other | {"speed": RUN["speed"] | {"settled_seconds": seconds}}


def test_what_settled_steps_took_counts_for_that_model(tmp_path: Path) -> None:
    save(tmp_path, 0, RUN)
    assert experience("nano", tmp_path) == {"h200": Experience(3.0 / 2.0, 1)}
    assert experience("svd_xt", tmp_path) == {}


def test_the_median_of_the_newest_counts_for_each_card(tmp_path: Path) -> None:
    for number in range(NEWEST):
        save(tmp_path, number, took(200.0))
    for number in range(NEWEST, 2 * NEWEST):
        save(tmp_path, number, took(2.0 * number), "other")
    save(tmp_path, 100, took(1.0, hardware="NVIDIA A100-SXM4-80GB"))
    middle = (NEWEST + 2 * NEWEST - 1) / 2
    assert experience("nano", tmp_path) == {"h200": Experience(middle, NEWEST), "a100": Experience(0.5, 1)}


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "[" * 100_000,
        "[]",
        {},
        RUN | {"hardware": "CPU, 2 cores"},
        RUN | {"hardware": 7},
        RUN | {"state": "running"},
        RUN | {"plan": None},
        RUN | {"plan": RUN["plan"] | {"table_seconds": 0}},
        RUN | {"plan": RUN["plan"] | {"table_seconds": None}},
        RUN | {"plan": RUN["plan"] | {"model": "svd_xt"}},
        RUN | {"speed": RUN["speed"] | {"steps": 19}},
        RUN | {"speed": RUN["speed"] | {"settled_seconds": "3"}},
        RUN | {"speed": RUN["speed"] | {"settled_seconds": None}},
        RUN | {"speed": RUN["speed"] | {"compile_seconds": 4.0}},
    ],
)
def test_what_tells_no_times_does_not_count(fields: object, tmp_path: Path) -> None:
    save(tmp_path, 0, fields)
    assert experience("nano", tmp_path) == {}


def test_only_so_many_are_read(tmp_path: Path) -> None:
    save(tmp_path, 0, RUN)
    for number in range(1, LOOKED_AT + 1):
        save(tmp_path, number, "{}")
    assert experience("nano", tmp_path) == {}
    assert experience("nano", tmp_path / "nowhere") == {}


def test_a_plan_is_mended_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "runs", 0, took(4.0))
    cards = {}
    for runs in ("null", f"{tmp_path}/runs"):
        words = ["config=style_lora", "model=nano", "card=[h200,t4]", "price=1", "format=json", f"runs={runs}"]
        assert main(["plan", *words]) == 0
        cards[runs] = {card["card"]: card for card in json.loads(capsys.readouterr().out)["cards"]}
    alone, mended = cards.values()
    assert mended["t4"] == alone["t4"]
    for name in ("step_seconds", "hours", "cost"):
        assert mended["h200"][name] == pytest.approx(2 * alone["h200"][name])
    assert mended["h200"]["known"] == {"ratio": 2.0, "runs": 1}
    assert main(["plan", "config=style_lora", "model=nano", "runs=/nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: runs=/nowhere: no such folder\nhint: ")
    assert main(["plan", "config=style_lora", "model=nano", "card=h200", f"runs={tmp_path}/runs"]) == 0
    assert f"h200: the table's times 2.00, by 1 run under {tmp_path}/runs/" in capsys.readouterr().out
