"""A tracker that breaks is told once and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning.loggers import CSVLogger

from svdtrain.training.loggers import unfailing


class Dies(CSVLogger):
    """From the second call on."""

    calls = 0

    def log_metrics(self, *given: object, **named: object) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ConnectionResetError("Connection lost\nand more")
        super().log_metrics(*given, **named)  # type: ignore[arg-type]


def test_it_is_told_once_and_asked_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = Dies(tmp_path)
    unfailing(logger)
    for step in range(4):
        logger.log_metrics({"loss": 1.0}, step)
    logger.save()
    logger.finalize("success")
    assert logger.calls == 2
    assert [record.getMessage() for record in caplog.records] == ["Dies is left alone from here on: Connection lost"]
