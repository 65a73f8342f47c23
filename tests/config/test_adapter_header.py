"""The header reader against safetensors' own writer, and against files that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from svdtrain.config.adapter_header import adapter_metadata

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("inside", ["adapter/adapter_model.safetensors", "adapter_model.safetensors", ""])
def test_reads_what_safetensors_wrote(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "it" / inside if inside else tmp_path / "it"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.zeros(3)}, file, metadata={"svdtrain.model": "nano"})
    assert adapter_metadata(str(tmp_path / "it")) == {"svdtrain.model": "nano"}


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_anything_else_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert adapter_metadata(str(tmp_path / "a.safetensors")) == {}
    assert adapter_metadata(str(tmp_path)) == {}
    assert adapter_metadata(str(tmp_path / "absent")) == {}
