"""Settings of a fit of a tiny model of each family."""

from __future__ import annotations

from pathlib import Path

from svdtrain.config import compose, overrides
from svdtrain.config.schema import FitConfig
from tests.families.cases import CASES
from tests.families.test_commands import words
from tests.tiny_runs import SHORT

PLAIN = ["data.source=nowhere", "memory=none"]


def settings_of(name: str, folder: Path, *more: str) -> FitConfig:
    """Of a case of tests/families/cases.py, saved in this folder; later words win."""
    case = next(case for case in CASES if case.name == name)
    case.save(folder / name)
    return tiny(name, folder, *more)


def tiny(name: str, folder: Path, *more: str) -> FitConfig:
    """The same of a model that is there."""
    case = next(case for case in CASES if case.name == name)
    given = ["config=motion_lora", *SHORT, *words(case, folder / name), *PLAIN, *more]
    kept = {word.partition("=")[0]: word for word in given}
    [config] = compose.check(overrides.parse(list(kept.values()), "fit"), FitConfig)
    return config
