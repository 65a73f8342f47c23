"""One tiny model for all tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_svd


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))
