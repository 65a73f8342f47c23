"""A fit ends with its page, or with a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from svdtrain.commands.report import write_page
from tests.commands.planted_run import plant


def test_a_fit_ends_with_its_page_or_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = plant(tmp_path / "run")
    write_page(Console(soft_wrap=True), run)
    assert f"report         {run / 'report.html'}" in capfd.readouterr().out
    assert (run / "report.html").read_bytes().count(b"<video") == 2 * 2
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    write_page(Console(), run)
    assert [one.getMessage().count("\n") for one in caplog.records if "not written" in one.getMessage()] == [0]
