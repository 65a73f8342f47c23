"""The run folder is what docs/reference/run-folder.md and svdtrain/reporting/contract.py say, no less and no more."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from svdtrain.commands import fit
from svdtrain.reporting.contract import FILES, EventLine, MetricsLine, RunJson
from svdtrain.reporting.run_events import Event
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_config, save_tiny_dataset

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "run-folder.md"
WORDS = ["trainer.max_steps=7", "trainer.keep_adapters=true", "trainer.report=true", "optimizer.ema_decay=0.5"]
LOOKS = ["validation.every=3", "validation.sample_inputs=1", "validation.sample_every=4", "data.batch_size=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    model, dataset = save_tiny_svd(folder / "model"), save_tiny_dataset(folder / "data")
    words = [*WORDS, *LOOKS, f"run_dir={folder / 'run'}"]
    assert fit.run(fit_config(model, dataset, *words), words) == 0
    return folder / "run"


def test_run_json_is_told_whole(run: Path) -> None:
    told = json.loads((run / "run.json").read_text())
    RunJson.model_validate(told)
    assert told.keys() == RunJson.model_fields.keys() - {"tracker_run"}
    assert 0 < 2 * told["speed"]["settled_seconds"] < told["speed"]["training_seconds"], "two of seven steps"
    with pytest.raises(ValueError, match="more"):
        RunJson.model_validate(told | {"more": 1})


@pytest.mark.parametrize(("file", "schema"), [("metrics.jsonl", MetricsLine), ("events.jsonl", EventLine)])
def test_each_line_is_as_it_should(run: Path, file: str, schema: type[BaseModel]) -> None:
    rows = [schema.model_validate_json(line) for line in (run / file).read_text().splitlines()]
    assert len(rows) >= 3
    assert [row.time for row in rows] == sorted(row.time for row in rows)  # type: ignore[attr-defined]


def test_no_file_stands_there_that_nobody_knows(run: Path) -> None:
    known = [name.replace("NNNNNN", "*").replace("N.", "*.") for name in FILES]
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        hidden = name.startswith(".")
        assert hidden or path.is_dir() or any(fnmatch(name, one + "*" * one.endswith("/")) for one in known), name
    for name in ("run.json", "config.yaml", "metrics.jsonl", "events.jsonl", "report.html", "before_after.mp4"):
        assert (run / name).is_file()


def test_the_page_lists_every_file_and_field() -> None:
    words = set(re.findall(r"`([^`]+)`", PAGE.read_text()))
    parts = [one for field in RunJson.model_fields.values() for one in get_args(field.annotation)]
    inner = {name for part in parts if hasattr(part, "model_fields") for name in part.model_fields}
    wanted = set(FILES) | set(RunJson.model_fields) | inner | set(get_args(Event))
    assert wanted - words == set()
