"""A tiny base and an adapter trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svdtrain.adapters.files import save_adapter
from svdtrain.adapters.fingerprint import fingerprint
from svdtrain.adapters.inject import inject, peft_config
from svdtrain.adapters.spec import AdapterInfo
from tests.adapters.trained import ADAPTER, arrays, frames_of, randomise
from tests.tiny_models import load_tiny_svd, save_tiny_svd


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An adapter with B far from zero, saved; and the frames of the very model that was saved."""
    family = load_tiny_svd(base)
    mark = fingerprint(family.denoiser)
    inject(family.denoiser, ADAPTER, seed=0)
    randomise(family)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    info = AdapterInfo(model="tiny", base="tiny", base_fingerprint=mark)
    save_adapter(folder, arrays(family), peft_config(ADAPTER).to_dict(), info)
    return folder, frames_of(family.pipeline())
