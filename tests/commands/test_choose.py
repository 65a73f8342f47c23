"""`choose` on a short fit: what it leaves, that nothing is done twice, what it says, and what it makes of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from svdtrain.adapters.files import WEIGHTS
from svdtrain.cli import main
from svdtrain.commands.choice_report import link, sentence
from svdtrain.data.shards import write_shard
from svdtrain.evaluation.choosing import Decision, candidates, chosen, loses_motion, ranked
from svdtrain.generation.video_files import encode_mp4
from tests.evaluation.planted_results import Shown, found
from tests.reporting.pages import ReadPage
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import GEOMETRY, fit_words, moving_square, save_picture, save_tiny_dataset

QUICK = ["clips=4", "inputs=1", "steps=1", "sigmas=2", "copies_of=2", "strengths=0,1,1.25", "device=cpu"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps that kept both, and losses that an evaluation of it took."""
    root = tmp_path_factory.mktemp("world")
    save_tiny_svd(root / "model")
    save_tiny_dataset(root / "data", train=3, held_out=4)
    kept = ["trainer.keep_adapters=true", "trainer.save_every=1", "trainer.max_steps=2", "trainer.keep_best=false"]
    taught = ["optimizer.learning_rate=1e-2", "adapter.rank=4", "data.decode_deadline=null"]
    assert main(["fit", *fit_words(root / "model", root / "data", *kept, *taught, f"run_dir={root / 'run'}")]) == 0
    few = ["clips=4", "inputs=0", "training_clips=0", "sigmas=2", "copies_of=2", "device=cpu"]
    assert main(["evaluate", f"adapter={root / 'run'}", *few]) == 0
    assert "Evaluated, adapter: " in ReadPage((root / "run" / "report.html").read_bytes()).text("head")
    return root


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """Of its own."""
    return Path(shutil.copytree(world / "run", tmp_path / "run", symlinks=True))


def choose(run: Path | str, *given: str) -> int:
    keys = {word.partition("=")[0] for word in given}
    return main(["choose", str(run), *(word for word in QUICK if word.partition("=")[0] not in keys), *given])


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "choice.json").read_text())


def test_a_choice_leaves_what_it_promises(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert choose(run) == 0
    choice, said = told(run), capfd.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "reference" / "evaluation.md").read_text()
    keys = {key for part in (choice, *choice["steps"], *choice["sweep"]) for key in part}
    assert [key for key in keys if f"`{key}`" not in page] == []
    assert [one["step"] for one in choice["steps"]] == [2, 1]
    assert [one["held_out"]["value"] < 1 for one in choice["steps"]] == [True, True]
    assert choice["steps"][0]["to_least"]["value"] == 1.0 < choice["steps"][1]["to_least"]["low"]
    assert choice["sweep"][0]["held_out"]["value"] == choice["sweep"][0]["motion"]["value"] == 1.0
    assert [one["strength"]["spatial"] for one in choice["sweep"]] == [0, 1, 1.25]
    best = next(one for one in choice["sweep"] if one["says"] == "chosen")["strength"]
    assert (choice["step"], choice["strength"], choice["adapter"]) == (2, best, "adapters/step-000002")
    assert choice["sentence"] in said
    assert "of fewer than four inputs nothing is known of motion; of 2 steps it has the least loss" in said
    taken_over = "adapter: 4 losses" not in said
    assert taken_over, "the evaluation of it stands in RUN/evaluation"

    assert choice["sentence"] in ReadPage((run / "report.html").read_bytes()).text("choice")
    assert (run / "best").readlink() == Path("adapters/step-000002")
    before = {path: path.stat().st_mtime_ns for path in run.glob("choice/**/*")}
    assert choose(run) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("choice/**/*")} == before
    picture = save_picture(tmp_path / "a.png")
    words = [f"image={picture}", f"out={tmp_path / 'b.mp4'}", "steps=1", *GEOMETRY, "strength=1/0.5"]
    assert main(["generate", f"adapter={run / 'best'}", *words]) == 0


def test_of_one_step_strengths_alone_are_swept_and_those_of_its_halves(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "adapters")
    assert choose(run, "inputs=0", "strengths=0.5,1", "clips=3") == 0
    assert "fewer than four inputs" in told(run)["sentence"]
    assert {one["says"] for one in told(run)["sweep"]} == {"chosen", "too few clips to tell"}
    assert choose(run, "halves=true", "inputs=0", "strengths=0.5/1,1") == 0
    choice = told(run)
    assert "the run kept no other step" in choice["sentence"]
    assert "step  held-out" not in capfd.readouterr().out
    tried = {(one["strength"]["spatial"], one["strength"]["temporal"]): one["held_out"] for one in choice["sweep"]}
    assert set(tried) == {(0.5, 1), (1, 1), (1, 0.5), (0.5, 0.5)}
    assert len({one["value"] for one in tried.values()}) == 4
    assert (run / "best").readlink() == Path("adapter")


def _torn(file: str) -> Any:  # noqa: ANN401
    def tear(run: Path) -> None:
        (run / file).write_bytes((run / file).read_bytes()[:-9])

    return tear


def _gone(name: str) -> Any:  # noqa: ANN401
    return lambda run: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def _lonely(run: Path) -> None:
    write_shard(run / "lonely" / "a.tar", [("good", encode_mp4(moving_square(0), 7), {})])


def _taken(run: Path) -> None:
    (run / "best").mkdir()
    (run / "best" / "notes.txt").write_text("mine")


KEPT = f"adapters/step-000001/{WEIGHTS}"
BAD: list[tuple[Any, ...]] = [  # what is done to the run, words, exit code, fragments of error and hint
    (_gone("run.json"), [], 2, "run={r}: it is no run folder", "under runs/"),
    (lambda run: (run / "run.json").write_text("{"), [], 2, "run={r}: damaged, it is no run folder"),
    (_gone("adapter"), [], 4, "{r}: holds neither"),
    (_torn(f"adapter/{WEIGHTS}"), [], 4, f"{{r}}/adapter/{WEIGHTS}: not a whole safetensors file"),
    (_torn(KEPT), [], 4, f"{{r}}/{KEPT}: not a whole safetensors file"),
    (lambda run: (run / "denoiser").mkdir(), [], 2, "its whole denoiser was trained", "adapter extract"),
    (_taken, [], 2, "{r}/best: is no link to an adapter"),
    (_lonely, ["data={r}/lonely"], 3, "holds 1 clip"),
    (None, ["data={r}/nothing"], 3, "nothing': there is no such file or folder"),
    (None, ["strengths=1,0.5"], 2, "strengths: 0.5 after 1, and they are wanted rising"),
    (None, ["strengths=0.5,0.5"], 2, "strengths: 0.5 after 0.5"),
    (None, ["strengths=0,nan"], 2, "strengths: 'nan' is not allowed", ""),
    (None, ["strengths=0,1/2/3"], 2, "strengths: '1/2/3' is not allowed"),
    (None, ["strengths=0,1/inf"], 2, "strengths: '1/inf' is not allowed"),
    (None, ["strengths=[]"], 2, "strengths: [] is not allowed"),
    (None, ["halvs=true"], 2, "did you mean 'halves'?"),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: row[3][-40:])
def test_bad_input_ends_in_one_line(row: tuple[Any, ...], run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage, words, code, *fragments = row
    if damage:
        damage(run)
    assert choose(run, *(word.format(r=run) for word in words)) == code
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert [line.partition(":")[0] for line in lines] in (["error", "hint"], ["error"])
    assert [part for part in fragments if part.format(r=run) not in "\n".join(lines)] == []
    assert not (run / "choice.json").exists()


@pytest.mark.parametrize(
    ("steps", "sweep", "says"),
    [
        ([0.8], {0.5: Shown(0.9), 1: Shown(0.8)}, "Use step 10 at strength 1: its loss on clips it never saw is 20% ("),
        ([0.8], {1: Shown(0.802), 1.5: Shown(0.8)}, "(1.5 is not surely better, and 1 is nearer to 1, as trained)"),
        ([0.8], {1: Shown(1.3)}, "Use the base alone: no strength of step 10 that may be used is better"),
        ([0.8], {1: Shown(0.8), 1.5: Shown(0.7, motion=0.2)}, "; not 1.5: motion is lost."),
        ([0.8, 0.7], {1: Shown(0.8)}, "; of 2 steps it has the least loss."),
    ],
)
def test_a_sentence_says_which_and_why(
    steps: list[float], sweep: dict[float, Shown], says: str, tmp_path: Path
) -> None:
    for strength, one in sweep.items():
        one.strength, one.step = type(one.strength)(strength, strength), 10
    seen, arms = found(tmp_path / "sweep", {f"adapter@{s:g}": one for s, one in sweep.items()})
    kept, (_, *trained) = found(tmp_path / "steps", {f"{n}": Shown(r, step=10 * n) for n, r in enumerate(steps, 1)})
    lost = {arm.label: text for arm in trained if (text := loses_motion(kept, arm))}
    told = candidates(seen, arms)
    assert says in sentence(Decision(ranked(kept, trained), lost, arms[-1], told, chosen(told)))


def test_where_there_are_no_links_the_adapter_is_copied(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    for step in ("adapters/step-000001", "adapters/step-000002"):
        link(run / "best", run / step)
        assert (run / "best" / WEIGHTS).read_bytes() == (run / step / WEIGHTS).read_bytes()
    monkeypatch.undo()
    link(run / "best", run / "adapter")
    assert (run / "best").readlink() == Path("adapter")
    assert not list(run.glob(".partial-*"))
