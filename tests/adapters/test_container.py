"""safetensors read strictly and written in one way: every torn, doubled or forged file is refused by name."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from svdtrain.adapters.container import DTYPES, Container, encoded, write_container
from svdtrain.foundation.errors import ModelError

KINDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
GOOD = save({"a": torch.ones(2, 3), "b": torch.zeros(4)}, {"format": "pt"})


def built(header: Any, body: bytes = b"") -> bytes:  # noqa: ANN401
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


FAULTS = [
    ("empty", b"", "not a whole safetensors file"),
    ("three bytes", b"abc", "not a whole safetensors file"),
    ("cut in the header", GOOD[:20], "its header alone"),
    ("cut in the weights", GOOD[:-3], "is not whole"),
    ("more than it says", GOOD + b"xx", "its header speaks of"),
    ("a header of 2^60 bytes", struct.pack("<Q", 2**60) + b"{}", "not a whole"),
    ("no JSON", built(b"{nonsense"), "no JSON"),
    ("deep JSON", built(b"[" * 100_000), "not a whole"),
    ("a list", built([1]), "no table"),
    ("metadata with numbers", built({"__metadata__": {"a": 1}}), "no table of texts"),
    ("an entry without a shape", built({"a": {"dtype": "F32"}}), "cannot be read"),
    ("a shape too large", built({"a": entry(shape=[2**40])}, b"1234"), "is not whole"),
    ("offsets before the start", built({"a": entry(data_offsets=[-4, 0])}, b"1234"), "is not whole"),
    ("an integer without its bytes", built({"a": entry(dtype="I64")}, b"1234"), "is not whole"),
    ("a name twice", built(b'{"a":{"dtype":"F32"},"a":{"dtype":"F32"}}'), "'a' stands in it twice"),
    ("a name that is a path", built({"../../a": entry()}, b"1234"), "is a path"),
    ("a zip", b"PK\x03\x04" + GOOD, "pickle"),
    ("a pickle", b"\x80\x02}q\x00." + GOOD, "pickle"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        Container(path)
    assert caught.value.message.startswith(str(path))
    assert caught.value.hint


@pytest.mark.parametrize("cut", range(0, len(GOOD), 7))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a").write_bytes(GOOD[:cut])
    with pytest.raises(ModelError):
        Container(tmp_path / "a")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("c") / "a"
    path.write_bytes(content if len(content) % 2 else built(content))
    with contextlib.suppress(ModelError):
        Container(path)


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path: Path) -> None:
    header = json.dumps({"a": entry()}).encode().ljust(0x180)
    assert built(header)[:1] == b"\x80"
    (tmp_path / "a").write_bytes(built(header, b"1234"))
    assert list(Container(tmp_path / "a").entries) == ["a"]


def test_integers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.int64)}, tmp_path / "a")
    with pytest.raises(ModelError, match="'a' is I64"):
        Container(tmp_path / "a").array("a")


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_rounded_as_torch_rounds_them(tmp_path: Path, name: str) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10.0 ** torch.arange(
        -8, 2
    ).repeat(100)
    special = torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 1e-40, 3e38])
    values = torch.cat([values, special.double()]).reshape(-1, 2)
    values = values if name == "fp64" else values.float()
    values = values.clamp(-60000, 60000) if name == "fp16" else values
    write_container(tmp_path / "a", {"x": values.numpy(), "one": np.array(2.0, np.float32)}, {"k": "é"}, DTYPES[name])
    read = load_file(tmp_path / "a")
    assert torch.equal(read["x"], values.to(KINDS[name]))
    assert read["one"] == 2.0
    again = Container(tmp_path / "a")
    assert again.metadata == {"k": "é"}
    assert np.array_equal(again.array("x"), read["x"].double().numpy() if name == "fp64" else read["x"].float().numpy())


def test_bf16_keeps_infinities_and_nan() -> None:
    values = np.array([np.inf, -np.inf, np.nan], np.float32)
    back = torch.frombuffer(bytearray(encoded(values, "BF16")), dtype=torch.bfloat16).float().numpy()
    assert np.array_equal(back, values, equal_nan=True)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {f"t{n}": np.full((2, 2), n, np.float32) for n in range(5)}
    for name, order in (("a", 1), ("b", -1)):
        pairs = list(tensors.items())[::order]
        write_container(
            tmp_path / name, dict(pairs), {"x": "1", "a": "2"} if order == 1 else {"a": "2", "x": "1"}, "F16"
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
