"""`evaluate` on short fits: what it leaves, that it goes on where it was, that shards agree, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from svdtrain.cli import main
from svdtrain.data.decoding import probe
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.tiny_models import SIZE, save_tiny_svd
from tests.tiny_runs import GEOMETRY, fit_words, moving_square, save_tiny_dataset

QUICK = ["steps=1", "inputs=2", "clips=2", "training_clips=1", "sigmas=2", "copies_of=3", "device=cpu"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, another of its shape, clips, and a run that kept an earlier adapter."""
    root = tmp_path_factory.mktemp("world")
    save_tiny_svd(root / "model")
    save_tiny_svd(root / "other_model", seed=1)
    save_tiny_dataset(root / "data")
    kept = ["trainer.keep_adapters=true", "trainer.save_every=1", "trainer.max_steps=2", "trainer.keep_best=false"]
    taught = ["optimizer.learning_rate=1e-1", "adapter.rank=4", "data.decode_deadline=null"]
    assert main(["fit", *fit_words(root / "model", root / "data", *kept, *taught, f"run_dir={root / 'run'}")]) == 0
    return root


def evaluate(*given: object) -> int:
    keys = {str(word).partition("=")[0] for word in given}
    return main(["evaluate", *(word for word in QUICK if word.partition("=")[0] not in keys), *map(str, given)])


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def whole(world: Path) -> Path:
    """Evaluated in one go."""
    out = world / "whole"
    assert evaluate(f"adapter={world / 'run'}", f"out={out}") == 0
    return out


def test_an_evaluation_leaves_what_it_promises(whole: Path) -> None:
    found = told(whole)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "evaluation.md").read_text()
    assert [key for key in found if f"`{key}`" not in page] == []
    assert set(found["losses"]) == {"held_out", "training"}
    arms = found["losses"]["held_out"]["arms"]
    assert list(arms) == ["base", "adapter", "adapter/step-000001"]
    assert arms["adapter"]["ratio"]["n"] == len(found["losses"]["held_out"]["clips"]) == 2
    assert [len(arms[arm]["losses"]) for arm in arms] == [2, 2, 2]
    assert found["sigmas"] == [2]
    assert found["verdicts"]["adapter"]["sentence"] == "unknown: 2 held-out clips say nothing"
    assert list(found["absent"]) == ["motion_response"]
    assert found["missing"] == {}
    assert found["metrics"]["motion"]["arms"]["held-out clip"]["n"] == 2
    assert found["metrics"]["cmmd"]["arms"]["base"]["value"] > 0
    for folder in found["videos"].values():
        assert len(list((whole / folder).glob("*.mp4"))) == 2
    assert probe((whole / "side_by_side.mp4").read_bytes(), "video").height >= 2 * SIZE
    assert (whole / "contact_sheet.png").stat().st_size > 1000


def test_losses_are_those_of_the_fits_own_validation(world: Path, tmp_path: Path) -> None:
    """The same clip, noise and levels: the ratio that the run's record tells."""
    record = json.loads((world / "run" / "run.json").read_text())
    assert not (world / "run" / "report.html").exists(), "an evaluation elsewhere leaves the run alone"
    few = ["clips=1", "inputs=0", "training_clips=0", "sigmas=0.5,10"]
    assert evaluate(f"adapter={world / 'run'}", f"out={tmp_path}", *few) == 0
    ratio = told(tmp_path)["losses"]["held_out"]["arms"]["adapter"]["ratio"]["value"]
    assert ratio == pytest.approx(record["validation_ratios"]["2"], rel=1e-4)
    assert ratio != pytest.approx(1, abs=1e-3)


def test_a_second_run_does_only_what_is_missing(whole: Path, world: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "copy")
    (out / "samples" / "adapter" / "0001-0.mp4").unlink()
    (out / "losses" / "base" / "held_out-0001.json").write_text('{"key": "cut')
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/**/*") if path.is_file()}
    again = [f"adapter={world / 'run'}", f"out={out}"]
    assert evaluate(*again) == 0
    touched = {path.relative_to(out).as_posix() for path in before if path.stat().st_mtime_ns != before[path]}
    assert touched == {"samples/adapter/0001-0.json", "losses/base/held_out-0001.json"}
    assert (out / "samples" / "adapter" / "0001-0.mp4").is_file()
    assert (out / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
    assert evaluate(*again, "steps=2") == 0
    assert told(out)["metrics"]["motion"] != told(whole)["metrics"]["motion"], "other settings, other results"
    assert told(out)["losses"] == told(whole)["losses"]


def test_shards_find_what_one_process_finds(
    whole: Path, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [f"adapter={world / 'run'}", f"out={tmp_path}"]
    assert evaluate(*shared, "shard=1/2") == 0
    assert "results are missing yet" in capfd.readouterr().out
    assert not (tmp_path / "evaluation.json").exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert evaluate(*shared) == 0
    assert (tmp_path / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()


def test_strength_0_is_the_base_and_several_adapters_are_compared(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "run" / "adapters" / "step-000001", tmp_path / "early")
    adapters, data = f"adapters={world / 'run'},{tmp_path / 'early'}", f"data={world / 'data'}"
    more = [f"generic={world / 'data'}", "generic_clips=1", "motion_buckets=60,200", "strengths=0,1"]
    assert evaluate(adapters, data, *more, f"out={tmp_path / 'out'}", "inputs=1", "clips=1") == 0
    found = told(tmp_path / "out")
    assert list(found["verdicts"]) == ["run@0", "run", "early@0", "early"]
    ratios = {arm: one["ratio"]["value"] for arm, one in found["losses"]["generic"]["arms"].items() if arm != "base"}
    assert ratios["run@0"] == ratios["early@0"] == 1.0
    assert len({ratios[arm] for arm in ("run@0", "run", "early")}) == 3
    motion = found["metrics"]["motion"]
    assert motion["arms"]["run@0"] == motion["arms"]["base"] != motion["arms"]["run"]
    assert motion["against_base"]["run@0"]["change"]["value"] == 0
    assert found["metrics"]["motion_response"]["arms"]["base"]["n"] == 1
    assert found["absent"] == {}


BAD: list[tuple[Any, ...]] = [  # words, exit code, fragments of error and hint
    (["adapter={w}/nothing"], 4, "nothing: does not exist"),
    (["adapter={w}/run", "model.source={w}/other_model"], 4, "made for nano", "same shapes, other weights"),
    (["adapter={w}/torn.safetensors"], 4, "torn.safetensors"),
    (["adapter={w}/run", "data={w}/nothing"], 3, "nothing': there is no such file or folder"),
    (["adapter={w}/run", "metrics=flikker"], 2, "no metric 'flikker'", "did you mean 'flicker'?"),
    (["adapter={w}/run", "metrics=motion_response"], 2, "motion_response cannot be measured", "leave it out"),
    (["adapter={w}/run", "out={w}/notes.txt"], 5, "notes.txt cannot be written"),
    (["adapter={w}/run", "adapters={w}/run"], 2, "adapters: adapter is given, too"),
    (["adapters={w}/run,{w}/run"], 2, "adapters: one of them is named twice"),
    (["adapter={w}/run", "shard=2/2"], 2, "shard: 2/2: there is no such part", "shard=0/2 to 1/2"),
    (["adapter={w}/file.safetensors"], 2, "data: is not set, and {w}/file.safetensors does not say", "data=FOLDER"),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: row[0][-1].replace("{w}/", ""))
def test_bad_input_ends_in_one_line(row: tuple[Any, ...], world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (world / "notes.txt").write_text("mine")
    source = world / "run" / "adapter" / "adapter_model.safetensors"
    (world / "torn.safetensors").write_bytes(source.read_bytes()[:-9])
    if not (world / "file.safetensors").exists():
        export = ["to=diffusers", "verify=false", f"out={world}", "title=file", *GEOMETRY]
        assert main(["export", f"adapter={world / 'run'}", *export]) == 0
        (world / "file_diffusers.safetensors").rename(world / "file.safetensors")
    before = {path for path in world.rglob("*") if "evaluation" in path.parts}
    capfd.readouterr()
    given, code, *fragments = row
    assert evaluate(*(word.format(w=world) for word in given)) == code
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert [line.partition(":")[0] for line in lines] in (["error", "hint"], ["error"])
    assert [part for part in fragments if part.format(w=world) not in "\n".join(lines)] == []
    assert {path for path in world.rglob("*") if "evaluation" in path.parts} == before


@pytest.mark.parametrize(
    ("file", "content", "code", "mark"),
    [
        ("run.json", '{"state": "running"}', 0, "unfinished (running); its adapter's step: 2"),
        ("run.json", '{"sta', 2, "damaged, it is no run folder"),
        ("config.yaml", "name: x", 2, "config.yaml has not the settings of a fit"),
    ],
)
def test_of_an_unfinished_or_damaged_run_is_shown_what_there_is(
    file: str, content: str | None, code: int, mark: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "run" / "adapter", tmp_path / "run" / "adapter")
    for name in ("run.json", "config.yaml"):
        shutil.copy(world / "run" / name, tmp_path / "run" / name)
    (tmp_path / "run" / file).unlink()
    if content:
        (tmp_path / "run" / file).write_text(content)
    few = ["inputs=0", "clips=1", "sigmas=1", f"data={world / 'data'}", *GEOMETRY]
    assert evaluate(f"adapter={tmp_path / 'run'}", *few, f"out={tmp_path / 'out'}") == code
    assert mark in told(tmp_path / "out")["marks"][0]
    assert mark in capfd.readouterr().err
    assert told(tmp_path / "out")["losses"]["held_out"]["arms"]["adapter"]["ratio"]["n"] == 1


def test_a_clip_that_cannot_be_used_is_told_and_the_others_are_shown(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = [(f"clip-{n}", encode_mp4(moving_square(n), 7), {"fps": 7}) for n in range(5)]
    write_shard(tmp_path / "data" / "train-0.tar", good[:3])
    write_shard(tmp_path / "data" / "held_out-0.tar", [good[3], ("bad", good[4][1][:900], {})])
    few = ["training_clips=0", "copies_of=0", "sigmas=1", "metrics=motion"]
    again = [f"adapter={world / 'run'}", f"data={tmp_path / 'data'}", f"out={tmp_path / 'out'}", *few]
    assert evaluate(*again) == 3
    said = capfd.readouterr()
    assert "error: 6 results are missing, first losses/base/held_out-0001: clip 'bad'" in said.err
    assert "motion" in said.out
    found = told(tmp_path / "out")
    assert found["losses"]["held_out"]["clips"] == ["clip-3"]
    assert found["metrics"]["motion"]["arms"]["base"]["n"] == 1
    assert set(found["missing"]) == {
        *(f"losses/{arm}/held_out-0001" for arm in ("base", "adapter", "adapter_step-000001")),
        "samples/clips/0001",
        *(f"samples/{arm}/0001-0" for arm in ("base", "adapter")),
    }
    write_shard(tmp_path / "data" / "held_out-0.tar", good[3:])
    assert evaluate(*again) == 0
    assert told(tmp_path / "out")["missing"] == {}
