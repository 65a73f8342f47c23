"""Rows 48 to 54: adapter files that are damaged or another's, and exports."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from svdtrain.selftest.faults.place import ADAPTER, Place
from svdtrain.selftest.faults.row import Fault, Run, Runs
from svdtrain.selftest.faults.settings import UNET
from svdtrain.selftest.faults.videos import square

if TYPE_CHECKING:
    from svdtrain.selftest.children import Child

Tensors = dict[str, np.ndarray]
SIZES = ("model.frames=3", "model.height=32", "model.width=32", "steps=1", "device=cpu")
OUT = ("out", "out/*")


def check(name: str) -> list[str]:
    """The words that look at a file beside the packaged base."""
    return ["adapter", "check", name, "base=nano", "sample=false"]


def opened(place: Place) -> tuple[Tensors, dict[str, str]]:
    """The kit's adapter: tensors, and what its header says."""
    path = place.kit.run / ADAPTER
    with safe_open(path, "np") as file:
        metadata = dict(file.metadata())
    return load_file(path), metadata


def settled(metadata: dict[str, str], **changes: Any) -> dict[str, str]:  # noqa: ANN401
    """The header with other settings."""
    settings = json.loads(metadata["lora_adapter_metadata"]) | changes
    return metadata | {"lora_adapter_metadata": json.dumps(settings)}


def _damaged(place: Place) -> Runs:
    whole = (place.kit.run / ADAPTER).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    contents = {
        "nothing": b"",
        "length": whole[:4],
        "header": whole[: 8 + length // 2],
        "data": whole[:-100],
        "more": whole + b"0",
        "huge": (1 << 60).to_bytes(8, "little") + whole[8:],
        "braces": whole[:8] + b"[" * length + whole[8 + length :],
        "text": b"no safetensors at all" * 50,
    }
    for name, content in contents.items():
        place.write(f"{name}.safetensors", content)
        yield Run(check(f"{name}.safetensors"), 4, (f"{name}.safetensors: ", "not a whole safetensors file"))
    place.write("pickle.bin", b"\x80\x02}q\x00.")
    yield Run(["adapter", "info", "pickle.bin"], 4, ("pickle.bin: ", "a pickle"))


def _other_base(place: Place) -> Runs:
    tensors, metadata = opened(place)
    wide = {n: np.repeat(t, 2, -1) if ".lora_A." in n else t for n, t in tensors.items()}
    save_file(wide, place.folder / "wide.safetensors", metadata)
    yield Run(check("wide.safetensors"), 4, ("wide.safetensors: ", ", the model has "))
    half = dict(list(tensors.items())[: len(tensors) // 2])
    save_file(half, place.folder / "half.safetensors", metadata)
    yield Run(check("half.safetensors"), 4, ("half.safetensors", "12 of its 24 modules are missing"))
    place.copy("run")
    weights = place.copy("model") / UNET
    draw, others = np.random.default_rng(0), load_file(weights)
    for name, tensor in others.items():
        others[name] = tensor + (0.05 * tensor.std() * draw.standard_normal(tensor.shape)).astype(tensor.dtype)
    save_file(others, weights, {"format": "pt"})
    Image.fromarray(square(0, 0)).save(place.folder / "first.png")
    words = ["generate", "adapter=run", "model.source=model", "image=first.png", "out=a.mp4", *SIZES]
    yield Run(words, 4, ("run: made for nano, and this model has same shapes, other weights",))


def _wrong_rank(place: Place) -> Runs:
    tensors, metadata = opened(place)
    save_file(tensors, place.folder / "a.safetensors", settled(metadata, r=5, rank_pattern={}))
    yield Run(check("a.safetensors"), 4, ("a.safetensors", "rank 5 there, 1 in the file"))


def _wrong_keys(place: Place) -> Runs:
    tensors, metadata = opened(place)
    first = next(iter(tensors))
    kinds: dict[str, tuple[Tensors, str]] = {
        "more": (tensors | {first.replace("temporal", "sideways"): tensors[first]}, "not in the model"),
        "fewer": ({n: t for n, t in tensors.items() if n != first}, "is missing"),
        "strange": (tensors | {"conv_in.bias": np.ones(3, np.float32)}, "are no adapter's"),
        "elsewhere": ({f"net.{n}": t for n, t in tensors.items()}, "not in the model"),
        "climbing": (tensors | {"../../etc/x.lora_A.weight": tensors[first]}, "is a path"),
        "empty": ({}, "no tensors"),
    }
    for name, (content, said) in kinds.items():
        save_file(content, place.folder / f"{name}.safetensors", metadata)
        yield Run(check(f"{name}.safetensors"), 4, (f"{name}.safetensors", said))


def _wrong_numbers(place: Place) -> Runs:
    tensors, metadata = opened(place)
    first = next(iter(tensors))
    for name, number in (("nan", np.nan), ("inf", np.inf)):
        save_file(
            tensors | {first: np.full_like(tensors[first], number)}, place.folder / f"{name}.safetensors", metadata
        )
        yield Run(check(f"{name}.safetensors"), 4, (f"{name}.safetensors", "not finite"))
    save_file(tensors, place.folder / "alpha.safetensors", settled(metadata, lora_alpha=1e9, alpha_pattern={}))
    yield Run(check("alpha.safetensors"), 4, ("alpha.safetensors", "lora_alpha is 1000000000.0, outside "))
    save_file(tensors | {n: t * 0 for n, t in tensors.items()}, place.folder / "dead.safetensors", metadata)
    yield Run(check("dead.safetensors"), 4, ("dead.safetensors", "every layer is dead"))


def _export_proof(place: Place) -> Runs:
    place.copy("run")
    words = ["export", "adapter=run", "to=diffusers,comfyui,peft", "out=out", *SIZES]
    yield Run(words, 0, ("diffusers   differs from memory by ", "comfyui     differs from memory by "), OUT)
    yield Run(words, 4, ("out=out: out/", " exists already"))


def _killed_export(place: Place) -> Runs:
    place.copy("run")
    words = ["export", "adapter=run", "to=diffusers,comfyui", "out=out", *SIZES]

    def kill(child: Child) -> None:
        if child.until(lambda: any((place.folder / "out").glob(".partial-*/*.safetensors"))):
            child.send(signal.SIGKILL)

    place.write("out/mine.safetensors", "an earlier one")
    yield Run(words, -signal.SIGKILL, (), ("out/.partial-*",), meanwhile=kill, stopped=True, shown=False)
    yield Run(words, 0, ("differs from memory by ",), ("out/style_lora_*",))


ROWS = (
    Fault(48, "an adapter file that is cut, empty, not one", _damaged),
    Fault(49, "an adapter of another base, or half of one", _other_base),
    Fault(50, "a rank that the file does not have", _wrong_rank),
    Fault(51, "keys too many, too few, of other names", _wrong_keys),
    Fault(52, "numbers that are not finite, alpha 1e9, all zero", _wrong_numbers),
    Fault(53, "an export that other programs would read otherwise", _export_proof),
    Fault(54, "an export that is killed", _killed_export),
)
