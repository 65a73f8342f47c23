"""A slice of the fuzzer (scripts/soak/fuzz.py is all of it): hypothesis draws the inputs, and the judge can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svdtrain.data.isolation import DecodeChild
from svdtrain.foundation.errors import DataError
from tests.fuzz import driver, verdict
from tests.fuzz.place import SECONDS, Answer, Place, asked, make_world
from tests.tiny_models import save_tiny_text

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
EXAMPLES = {"tar": 360, "mp4": 1000, "json": 450, "caption": 120, "override": 180, "adapter header": 120}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    make_world(folder)
    save_tiny_text(folder / "text")
    return folder


@pytest.fixture(scope="module")
def child() -> Iterator[DecodeChild]:
    with DecodeChild(SECONDS) as decoder:
        yield decoder


@pytest.mark.slow
@pytest.mark.parametrize("kind", verdict.KINDS)
def test_no_input_is_a_finding(kind: str, world: Path, child: DecodeChild, tmp_path: Path) -> None:
    verdict.judged(kind, -1, Random(0), world, tmp_path, child)  # what is imported late is no input's fault

    @settings(
        max_examples=EXAMPLES[kind],
        deadline=None,  # the judge has one
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(st.randoms(use_true_random=False))
    def judge(draw: Random) -> None:
        found = verdict.judged(kind, 0, draw, world, tmp_path, child)
        assert not found.finding, found.finding

    judge()


def spin(_draw: Random, _place: Place) -> Answer:
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass
    return 0, ""


def said(message: str) -> Callable[[Random, Place], Answer]:
    return lambda _, place: asked(
        lambda: (_ for _ in ()).throw(DataError(message.replace("{here}", str(place.folder))))
    )


PLANTED: dict[str, tuple[Callable[[Random, Place], Answer], str]] = {
    "a bug": (lambda _, __: (0, str({}["x"])), "KeyError at test_fuzz.py:"),
    "no name": (said("something is wrong"), "neither file nor key"),
    "a novel": (said("{here}/a: " + "x" * 300), "303 characters"),
    "slow": (spin, "0.2 s"),
    "greedy": (lambda _, __: (0, str(len(bytearray(300 << 20)))[:0]), "bytes of memory"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_judge_sees(name: str, child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, finding = PLANTED[name]
    monkeypatch.setitem(verdict.KINDS, "planted", planted)
    monkeypatch.setattr(verdict, "SECONDS", 0.15 if name == "slow" else SECONDS)
    monkeypatch.setattr(verdict, "MOST_GROWTH", 200 << 20)
    found = verdict.judged("planted", 0, Random(0), tmp_path, tmp_path, child)
    assert found.code == 1
    assert finding in found.finding


def test_what_is_refused_by_name_is_no_finding(
    child: DecodeChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verdict.KINDS, "planted", said("{here}/a.tar is damaged\nin two lines"))
    found = verdict.judged("planted", 0, Random(0), tmp_path, tmp_path, child)
    assert (found.code, found.message, found.finding) == (3, "a.tar is damaged in two lines", "")


@pytest.mark.slow
def test_children_judge_the_same_each_time_and_their_death_is_a_finding(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = driver.numbers(12)
    found = sorted(driver.run(inputs * 2, 1, processes=2), key=lambda one: (one.kind, one.number))
    assert [(one.kind, one.number) for one in found] == sorted(inputs * 2)
    assert len({(one.kind, one.number, one.code, one.message) for one in found}) == len(inputs)
    assert not [one for one in found if one.finding]
    monkeypatch.setattr(driver, "PATIENCE", 1e-4)
    [late] = driver.run([("tar", 0)], 1)
    assert late.finding == "no answer in 0.0001 s"
    monkeypatch.setattr(driver, "PATIENCE", 60.0)
    monkeypatch.setattr(driver, "MOST_MEMORY", 100 << 20)
    child = driver.Child(world, 1)
    large = child.judge("tar", 0)
    assert large.finding == f"{large.memory:,} bytes in all"
    child._process.kill()
    assert child.judge("tar", 0).finding == "the process ended with -9"
