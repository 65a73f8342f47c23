"""Several runs on one page: what differs, and which came out best, where that can be said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from svdtrain.cli import main
from svdtrain.foundation.json_lines import JsonLines
from tests.commands.planted_run import CONFIG, plant
from tests.reporting.pages import ReadPage


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The second one has another rank, and goes on to less than half of the base's loss."""
    first = plant(tmp_path_factory.mktemp("first") / "run")
    second = Path(shutil.copytree(first, first.parents[1] / "second" / "run"))
    (second / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"adapter": {"kind": "lora", "rank": 16}}))
    JsonLines(second / "metrics.jsonl").append({"step": 2001, "val_ratio": 0.4})
    return first, second


def test_several_runs_are_compared_on_one_page(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert main(["report", *map(str, pair), f"out={out}"]) == 0
    page = ReadPage(out.read_bytes())
    assert "The least held-out loss has second/run: 0.400 of the base's, at step 2,001." in page.text("head")
    assert "adapter.rank" in page.text("differences")
    assert "adapter.kind" not in page.text("differences")
    assert out.read_bytes().count(b"<video") == 2 * 3
    assert set(page.texts) - {"head", "foot"} == {"side-by-side", "losses", "outcomes", "differences"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{first}", "{first}/../run"], "a folder is given twice"),
        (["{first}", "{tmp}/nothing"], "nothing: it is no run folder"),
        (["{first}", "{second}", "evaluation=here"], "evaluation: is of one run"),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line(
    words: list[str], said: str, pair: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = pair
    assert main(["report", *(word.format(first=first, second=second, tmp=tmp_path) for word in words)]) == 2
    assert said in next(line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))


def test_losses_of_other_grids_are_not_compared(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(pair[0], tmp_path / "other"))
    shutil.rmtree(other / "samples")
    (other / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"validation": {"clips": 4}}))
    assert main(["report", str(pair[0]), str(other), f"out={tmp_path / 'page.html'}"]) == 0
    said = ReadPage((tmp_path / "page.html").read_bytes()).text("head")
    assert "cannot be compared: validation.clips differs" in said
