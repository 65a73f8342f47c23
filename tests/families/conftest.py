"""Tiny checkpoints by case, saved when they are first asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.families.protocol import ModelFamily
from tests.families.cases import Case


@pytest.fixture(scope="session")
def folders() -> dict[str, Path]:
    """Case -> folder."""
    return {}


@pytest.fixture
def family(case: Case, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    """The case's checkpoint through the project's own loader."""
    if case.name not in folders:
        folders[case.name] = case.save(tmp_path_factory.mktemp(case.name))
    return case.load(folders[case.name])
