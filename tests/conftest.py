"""What every test starts from: one thread, no network, no account; GPU tests are skipped where there is no GPU."""

from __future__ import annotations

import os

import pytest

os.environ |= {
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked gpu when torch sees none; torch is not imported to find that nothing is."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
