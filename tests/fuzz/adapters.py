"""Bad adapter files: their safetensors header, metadata, settings, shapes, kinds and numbers, as every tool opens them."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

import numpy as np

from svdtrain.adapters.files import CONFIG, WEIGHTS, read_adapter
from tests.fuzz.mutations import NUMBERS, RAW_JSON, TEXTS, altered, damaged, json_bytes, noise, strange
from tests.fuzz.place import Answer, Place, asked, commanded

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
NAMES = (MODULE, MODULE.replace("to_q", "to_out.0"), "mid_block.attentions.0.proj_in", "x", "a.b", "conv_in", "")
PREFIXES = ("base_model.model.", "unet.", "transformer.", "lora_unet_", "diffusion_model.", "lycoris_", "")
PARTS = {
    "lora": {".lora_A.weight": (4, 320), ".lora_B.weight": (320, 4)},
    "kohya": {".lora_down.weight": (4, 320), ".lora_up.weight": (320, 4), ".alpha": ()},
    "dora": {".lora_A.weight": (2, 320), ".lora_B.weight": (320, 2), ".lora_magnitude_vector": (320,)},
    "loha": {".hada_w1_a": (320, 2), ".hada_w1_b": (2, 320), ".hada_w2_a": (320, 2), ".hada_w2_b": (2, 320)},
    "lokr": {".lokr_w1": (8, 8), ".lokr_w2": (40, 40)},
    "low lokr": {".lokr_w1_a": (8, 2), ".lokr_w1_b": (2, 8), ".lokr_w2": (40, 40)},
}
SETTINGS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 4,
    "peft_type": "LORA",
    "target_modules": ["to_q"],
    "rank_pattern": {"to_q": 4},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": True,
}
ABOUT = {"svdtrain.model": "nano", "svdtrain.source": "", "svdtrain.base": "", "svdtrain.results": "{}", "format": "pt"}
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "F4", "", "x")
SHAPES = (
    [],
    [0],
    [1],
    [2**31, 2**31],
    [2**40],
    [-1],
    [1] * 40,
    [320, 0],
    [4, 320, 1, 1],
    [4, 320, 3, 3],
    [1, 320],
    [320, 1],
)
COMMANDS = (
    ("info",),
    ("info",),
    ("check",),
    ("diff",),
    ("convert", "to=comfyui"),
    ("slice", "half=temporal"),
    ("resize", "rank=1"),
)


def attempt(draw: Random, place: Place) -> Answer:
    """One bad adapter, opened by the reader alone or by a tool."""
    header, body = _good(draw)
    place.names += [name for name in NAMES if len(name) > 3]
    kind = draw.randrange(8)
    if kind < 3:
        header = altered(draw, header)
    elif kind < 6:
        header, body = _tensors(draw, header, body)
    text = json_bytes(draw, header) if kind == 6 else json.dumps(header).encode()
    length = draw.choice(NUMBERS[:18]) % 2**64 if draw.random() < 0.04 else len(text)
    data = struct.pack("<Q", length) + text + body
    file = place.write(WEIGHTS, damaged(draw, data) if kind == 7 else data)
    if draw.random() < 0.4:
        place.write(CONFIG, json_bytes(draw, SETTINGS))
    where = str(draw.choice((file, file, place.folder)))
    if draw.random() < 0.5:
        return asked(lambda: read_adapter(where))
    verb, *words = draw.choice(COMMANDS)
    out = ["out=new.safetensors"] if verb in ("convert", "slice", "resize") else []
    return commanded(["adapter", verb, *([where] * (2 if verb == "diff" else 1)), *words, *out])


def _good(draw: Random) -> tuple[dict[str, Any], bytes]:
    """The header and the body of a file that could be read."""
    header: dict[str, Any] = {}
    parts, prefix, body = PARTS[draw.choice(sorted(PARTS))], draw.choice(PREFIXES), b""
    for name in {draw.choice(NAMES) for _ in range(2)}:
        for part, shape in parts.items():
            array = np.full(shape, 0.01, np.float32).tobytes()
            header[prefix + name + part] = {
                "dtype": "F32",
                "shape": list(shape),
                "data_offsets": [len(body), len(body) + len(array)],
            }
            body += array
    settings = altered(draw, SETTINGS) if draw.random() < 0.5 else SETTINGS
    about = ABOUT | {"lora_adapter_metadata": json.dumps(settings)} if draw.random() < 0.7 else dict(ABOUT)
    if draw.random() < 0.3:
        odd = draw.choice((*TEXTS, *(raw.decode("latin-1") for raw in RAW_JSON), json.dumps(strange(draw))))
        about[draw.choice(sorted(about))] = odd
    return header | {"__metadata__": about}, body


def _tensors(draw: Random, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Other kinds, shapes, places and numbers of one tensor."""
    names = sorted(header.keys() - {"__metadata__"})
    entry = header[name := draw.choice(names)]
    kind = draw.randrange(7)
    if kind == 0:
        entry["dtype"] = draw.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = draw.choice(SHAPES)
    elif kind == 2:
        entry["data_offsets"] = [draw.choice(NUMBERS[:18]), draw.choice(NUMBERS[:18])]
    elif kind == 3:  # numbers: not finite, huge, or any
        start, stop = entry["data_offsets"]
        new = draw.choice((np.float32("nan"), np.float32("inf"), np.float32(3e38), np.float32(1e-44), np.float32(0)))
        body = (
            body[:start]
            + (noise(draw, stop - start) if draw.random() < 0.3 else new.tobytes() * ((stop - start) // 4))
            + body[stop:]
        )
    elif kind == 4:  # whole, of another shape
        start, stop = entry["data_offsets"]
        count = (stop - start) // 4
        entry["shape"] = draw.choice(
            ([count], [count, 1], [1, count], [2, count // 2], [count // 2, 2], [1, 1, 1, count])
        )
    elif kind == 5:
        header[draw.choice((*TEXTS, name + ".x", name.upper(), "unet." + name, name.replace(".", "_")))] = header.pop(
            name
        )
    else:
        del header[name]
    return header, body
