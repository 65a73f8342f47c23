"""Memory that runs out in a real fit ends with what was predicted, what is in use, and changes that do need less."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from svdtrain.cli import main
from svdtrain.commands import relief as relief_child
from svdtrain.commands.relief import ask
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import ModelError
from svdtrain.planning.memory import MemoryPrediction
from svdtrain.planning.relief import Foretold, Mend, candidates, explain, mends
from svdtrain.planning.training_step import predict_fit
from svdtrain.training.build import build_module
from tests.planning.settings import settings_of, tiny

SMALL = MemoryPrediction(weights=90, trained=1, gradients=1, optimizer=2, activations=6)
LARGE = MemoryPrediction(weights=10, trained=20, gradients=20, optimizer=40, activations=10)
NOTHING_LEFT = ["memory=blocks", "data.batch_size=1", "adapter.modules=attention"]
FEWER, SMALLER = {"model.frames": 2}, {"model.height": 16, "model.width": 16}
CASES: list[tuple[str, list[str], MemoryPrediction, list[dict[str, Any]]]] = [
    (
        "svd",
        ["data.batch_size=1"],
        SMALL,
        [{"memory.rung": "blocks"}, {"adapter.modules": "attention"}, FEWER, SMALLER],
    ),
    (
        "svd",
        [*NOTHING_LEFT, "data.batch_size=9", "trainer.accumulate=2"],
        SMALL,
        [{"data.batch_size": 3, "trainer.accumulate": 6}, FEWER, SMALLER],
    ),
    ("svd", [*NOTHING_LEFT, "adapter.kind=full"], LARGE, [{"adapter.kind": "lora"}, FEWER, SMALLER]),
    (
        "svd",
        [*NOTHING_LEFT, "adapter.rank=8"],
        LARGE,
        [{"adapter.spatial.rank": 4, "adapter.temporal.rank": 4}, FEWER, SMALLER],
    ),
    ("svd", [*NOTHING_LEFT, "data.buckets=true"], SMALL, [{"data.buckets": False}]),
    ("svd", [*NOTHING_LEFT, "model.frames=2", "model.size_multiple=32"], SMALL, []),
    ("cogvideox_2b", NOTHING_LEFT, SMALL, [{"model.frames": 5}, SMALLER]),
    ("cogvideox_5b_i2v", NOTHING_LEFT, SMALL, []),
]


@pytest.mark.parametrize(("name", "words", "now", "wanted"), CASES)
def test_what_costs_least_comes_first(
    name: str, words: list[str], now: MemoryPrediction, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = settings_of(name, tmp_path, *words)
    assert (
        list(candidates(config, build_family(config.model, blank=True), now, encoded_ahead=False, on_gpu=False))
        == wanted
    )


def test_on_a_gpu_encoders_can_be_left_out(tmp_path: Path) -> None:
    config = settings_of("svd", tmp_path, *NOTHING_LEFT)
    family = build_family(config.model, blank=True)
    assert {"data.cache": "disk"} in candidates(config, family, SMALL, encoded_ahead=False, on_gpu=True)
    assert {"data.cache": "disk"} not in candidates(config, family, SMALL, encoded_ahead=True, on_gpu=True)


def test_mends_are_words_of_a_command_line_with_their_own_predictions(tmp_path: Path) -> None:
    config = settings_of("svd", tmp_path, "data.batch_size=2")
    now = predict_fit(config, build_module)
    found = list(islice(mends(config, build_module, now), 3))
    assert [mend.words for mend in found] == [
        "memory=blocks",
        "data.batch_size=1 trainer.accumulate=2",
        "adapter.modules=attention",
    ]
    for mend in found:
        assert mend == Mend(mend.words, predict_fit(tiny("svd", tmp_path, *mend.words.split()), build_module).peak)
        assert mend.peak < 0.95 * now.peak


def test_what_cannot_be_predicted_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = settings_of("svd", tmp_path)
    (tmp_path / "svd" / "vae" / "config.json").unlink()
    with pytest.raises(ModelError):
        predict_fit(config, build_module)
    fault = explain(MemoryError(), config, partial(ask, config), step=7)
    assert re.fullmatch(r"out of memory at step 7: in use \d+\.\d of \d+\.\d GiB", fault.message)
    assert fault.hint.startswith("less at once: ")
    assert "what would need less is not known: SystemFault: svdtrain.foundation.errors.ModelError: " in caplog.text


def test_what_is_known_in_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the child, as with no memory left each allocation takes milliseconds."""
    config = settings_of("svd", tmp_path)
    slow = tmp_path / "slow"
    slow.write_text(
        f"#!{sys.executable}\nimport time\nprint(900)\nprint('[\"a=1\", 7]\\n[\"b', end='', flush=True)\ntime.sleep(60)\n"
    )
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(relief_child, "PATIENCE", 2.0)
    assert ask(config) == Foretold(900, (Mend("a=1", 7),))


def test_samples_are_told_apart_from_training(tmp_path: Path) -> None:
    def sample() -> None:
        raise MemoryError

    with pytest.raises(MemoryError) as caught:
        sample()
    config = settings_of("svd", tmp_path)
    fault = explain(caught.value, config, partial(ask, config), step=7)
    assert fault.message.startswith("out of memory while sampling at step 7: in use")
    assert fault.hint.startswith("validation.sample_inputs=0 ")


LIMITED = """
import re, resource, sys
from pathlib import Path
from svdtrain.cli import main
from svdtrain.commands import relief as relief_child
from svdtrain.commands.relief import ask
from svdtrain.commands import fit, relief
relief.PATIENCE = 500.0
(used,) = re.findall(r"VmSize:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
limit = int(used) * 1024 + 600 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(["fit", *sys.argv[1:]]))
"""
"""No more addresses than are in use when all is imported, and 600 MiB; and all the time that a slow machine may need."""


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fit_that_runs_out_ends_in_two_lines_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    """The packaged model, gone on with under a limit that its step does not fit into."""
    run = tmp_path / "run"
    words = [
        "config=style_lora",
        "debug=quick",
        "data.batch_size=4",
        "validation.sample_inputs=0",
        "trainer.device=cpu",
    ]
    assert main(["fit", *words, "trainer.max_steps=1", f"run_dir={run}"]) == 0
    before = bytes_below(run / "checkpoints")
    command = [sys.executable, "-c", LIMITED, *words, "trainer.max_steps=3", f"resume={run}"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=600)
    lines = child.stderr.splitlines()
    told = [line for line in lines if line.startswith(("error: ", "hint: "))]
    assert child.returncode == 5, child.stderr[-2000:]
    assert len(told) == 2
    assert "Traceback" not in child.stderr
    assert all(len(line) <= 200 for line in told)
    size = r"[\d.]+ [GM]iB"
    figures = rf"predicted ({size}), in use [\d.]+ of [\d.]+ GiB when {size} more were asked"
    assert re.fullmatch(rf"error: out of memory at step 1: {figures}", told[0])
    assert len(re.findall(rf"[a-z._]+=\w+ \({size}\)", told[1])) == 3
    assert bytes_below(run / "checkpoints") == before
