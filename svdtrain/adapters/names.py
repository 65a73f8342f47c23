"""One module, many names: how programs spell the modules of a denoiser, and the way back.

Stability's own code (and so ComfyUI) counts the blocks of a UNet through: with L resnets to a level, the resnet i of
diffusers' down_blocks.b is input_blocks.{1 + (L + 1) b + i}.0, its attention .1; those of up_blocks.b are
output_blocks.{(L + 1) b + i}. The mapping of all 1428 tensors of SVD-XT is bijective (tests/adapters/test_names.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_OUTER: tuple[tuple[str, Callable[[re.Match[str], int], str]], ...] = (
    (r"conv_in\b", lambda _m, _n: "input_blocks.0.0"),
    (r"time_embedding\.linear_([12])", lambda m, _n: f"time_embed.{2 * int(m[1]) - 2}"),
    (r"add_embedding\.linear_([12])", lambda m, _n: f"label_emb.0.{2 * int(m[1]) - 2}"),
    (r"conv_norm_out\b", lambda _m, _n: "out.0"),
    (r"conv_out\b", lambda _m, _n: "out.2"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)", lambda m, n: f"input_blocks.{1 + n * int(m[1]) + int(m[2])}.0"),
    (r"down_blocks\.(\d+)\.attentions\.(\d+)", lambda m, n: f"input_blocks.{1 + n * int(m[1]) + int(m[2])}.1"),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", lambda m, n: f"input_blocks.{n * (int(m[1]) + 1)}.0.op"),
    (r"mid_block\.resnets\.(\d+)", lambda m, _n: f"middle_block.{2 * int(m[1])}"),
    (r"mid_block\.attentions\.0", lambda _m, _n: "middle_block.1"),
    (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m, n: f"output_blocks.{n * int(m[1]) + int(m[2])}.0"),
    (r"up_blocks\.(\d+)\.attentions\.(\d+)", lambda m, n: f"output_blocks.{n * int(m[1]) + int(m[2])}.1"),
)
_INNER = (
    (r"\.temporal_transformer_blocks\.", ".time_stack."),
    (r"\.time_pos_embed\.linear_1", ".time_pos_embed.0"),
    (r"\.time_pos_embed\.linear_2", ".time_pos_embed.2"),
    (r"\.spatial_res_block\.", "."),
    (r"\.temporal_res_block\.", ".time_stack."),
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def stability_names(modules: Iterable[str]) -> dict[str, str]:
    """Module (or tensor) name in diffusers -> in Stability's code; empty for denoisers that did not come from there."""
    names = list(modules)
    if not any(".temporal_transformer_blocks." in name for name in names):
        return {}
    counted = [re.match(r"up_blocks\.\d+\.(?:resnets|attentions)\.(\d+)", name) for name in names]
    per_level = 1 + max((int(match[1]) for match in counted if match), default=0)
    attended = {match[1] for name in names if (match := re.match(r"(up_blocks\.\d+)\.attentions\.", name))}
    return {name: _stability_name(name, per_level, attended) for name in names}


def _stability_name(name: str, per_level: int, attended: set[str]) -> str:
    upsampler = re.match(r"(up_blocks\.(\d+))\.upsamplers\.0\.conv", name)
    if upsampler:
        place = 2 if upsampler[1] in attended else 1
        return f"output_blocks.{per_level * (int(upsampler[2]) + 1) - 1}.{place}.conv{name[upsampler.end() :]}"
    found = ((re.match(pattern, name), made) for pattern, made in _OUTER)
    match, made = next((pair for pair in found if pair[0]), (None, None))
    if match is None or made is None:
        return name
    inner = name[match.end() :]
    for pattern, replacement in _INNER:
        inner = re.sub(pattern, replacement, inner)
    if ".resnets." in name:
        inner = re.sub(rf"\.({'|'.join(_RESNET)})\b", lambda m: f".{_RESNET[m[1]]}", inner)
    return made(match, per_level) + inner


def motion_module_name(module: str) -> str:
    """The name of a motion module's layer in the code of its first authors; other modules keep theirs."""
    if ".motion_modules." not in module:
        return module
    name = re.sub(r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer.", module)
    return re.sub(r"\.attn([12])\b", lambda m: f".attention_blocks.{int(m[1]) - 1}", name)


def without_motion_module_name(name: str) -> str:
    """The way back, for a model whose modules are not known; `to_out` stands for its only layer there."""
    if ".temporal_transformer." not in name:
        return name
    name = re.sub(r"\.attention_blocks\.([01])\b", lambda m: f".attn{int(m[1]) + 1}", name)
    return re.sub(r"\.to_out$", ".to_out.0", name.replace(".temporal_transformer.", "."))


def motion_lora_stem(module: str) -> str | None:
    """What stands before `.down.weight` in a MotionLoRA of its first authors; None for a module that none can hold."""
    match = re.fullmatch(r"(.+\.motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12])\.(to_[qkv]|to_out\.0)", module)
    return f"{motion_module_name(match[1])}.processor.{match[2].removesuffix('.0')}_lora" if match else None


def spellings(modules: Iterable[str]) -> dict[str, str]:
    """Every known spelling of every module -> its name in diffusers. Spellings that two modules share are left out."""
    names = list(modules)
    native = stability_names(names)
    found: dict[str, str] = {}
    shared: set[str] = set()
    for name in names:
        dotted = {name, native.get(name, name), motion_module_name(name)}
        for spelling in dotted | {one.replace(".", "_") for one in dotted}:
            if found.setdefault(spelling, name) != name:
                shared.add(spelling)
    return {spelling: name for spelling, name in found.items() if spelling not in shared}
