"""Lines that outlast a kill in the middle of one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.json_lines import JsonLines


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    JsonLines(file).append({"step": 1})
    file.write_bytes(file.read_bytes() + b'{"step": 2, "lo')
    again = JsonLines(file)
    again.append({"step": 2, "loss": math.nan})
    again.append({"step": 3})
    assert list(again.rows()) == [{"step": 1}, None, {"step": 2, "loss": None}, {"step": 3}]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match=r"gone/rows\.jsonl cannot be written"):
        JsonLines(tmp_path / "gone" / "rows.jsonl").append({})
    assert list(JsonLines(tmp_path / "gone").rows()) == []
