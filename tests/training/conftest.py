"""One tiny model and one tiny dataset for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import save_tiny_dataset


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dataset(tmp_path_factory.mktemp("dataset"))
