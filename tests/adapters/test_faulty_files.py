"""Every fault of an adapter file is told by name, and nothing of the file is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import svdtrain
from svdtrain.adapters.files import CONFIG, WEIGHTS
from svdtrain.foundation.errors import ModelError
from tests.adapters.trained import frames_of, stock


def damage(folder: Path, to: Path, kind: str) -> Path:
    """A copy of an adapter folder with one fault."""
    to.mkdir()
    tensors, config = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())
    first = next(iter(tensors))
    if kind == "nan":
        tensors[first].flatten()[0] = float("nan")
    elif kind == "missing tensor":
        del tensors[first]
    elif kind == "missing module":
        tensors = {name: t for name, t in tensors.items() if not name.startswith(first.partition(".lora_")[0])}
    elif kind == "extra module":
        tensors |= {name.replace(".attn1.", ".attn3."): t.clone() for name, t in tensors.items() if name == first}
    elif kind == "foreign prefix":
        tensors = {f"net.{name}": t for name, t in tensors.items()}
    elif kind == "half a pair":
        tensors = {name: t for name, t in tensors.items() if "lora_B" not in name}
    elif kind == "twice":
        tensors[first.removeprefix("base_model.model.")] = tensors[first].clone()
    elif kind == "path":
        tensors["../../etc/x.lora_A.weight"] = tensors.pop(first)
    elif kind == "foreign module":
        tensors[first.replace("attn1", "attn7")] = tensors.pop(first)
    elif kind == "rank":
        config["r"], config["rank_pattern"] = 5, {}
    elif kind == "alpha":
        config["lora_alpha"] = 1e9
    elif kind == "alpha of one half":
        config["alpha_pattern"] = dict.fromkeys(config["alpha_pattern"], 1e9)
    elif kind == "no lora":
        tensors = {"weight": torch.zeros(2)}
    elif kind == "empty":
        tensors = {}
    (to / CONFIG).write_text(json.dumps(config))
    save_file(tensors, to / WEIGHTS)
    if kind == "truncated":
        (to / WEIGHTS).write_bytes((to / WEIGHTS).read_bytes()[:-100])
    if kind == "no config":
        (to / CONFIG).unlink()
    return to


FAULTS = [
    ("nan", "not finite"),
    ("missing tensor", "'lora_A.weight' is missing"),
    ("missing module", "1 of its 72 modules are missing"),
    ("foreign module", "not in this model"),
    ("extra module", "1 of its 73 modules are not in this model"),
    ("foreign prefix", "72 of its 72 modules are not in this model"),
    ("half a pair", "'lora_B.weight' is missing"),
    ("twice", "twice"),
    ("path", "is a path"),
    ("rank", "in the file"),
    ("alpha", "outside"),
    ("alpha of one half", "outside"),
    ("no lora", "no adapter's"),
    ("empty", "no tensors"),
    ("truncated", "not a whole safetensors file"),
    ("no config", "rank and alpha"),
]


@pytest.mark.parametrize(("kind", "said"), FAULTS)
def test_a_faulty_file_is_refused_and_nothing_is_loaded(
    base: Path, trained: tuple[Path, np.ndarray], tmp_path: Path, kind: str, said: str
) -> None:
    pipe = stock(base)
    before = frames_of(pipe)
    with pytest.raises(ModelError, match=said):
        svdtrain.load_adapter(pipe, damage(trained[0], tmp_path / "faulty", kind))
    assert np.array_equal(frames_of(pipe), before)
    assert not [name for name, _ in pipe.unet.named_parameters() if "lora" in name]
