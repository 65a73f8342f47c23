"""How other programs read an adapter file, each by its own rules: what an export is proved with.

diffusers and peft are asked themselves. ComfyUI is no library: `comfyui_patches` follows the rules that its source states
(comfy/lora.py, comfy/weight_adapter/, read at 17358c8), and shares no code with svdtrain's own reader. So does
`motion_lora_patches` with AnimateDiff's (animatediff/utils/convert_lora_safetensor_to_diffusers.py at 069dd94).
"""

from __future__ import annotations

import logging
import re
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.adapters.container import Container
from svdtrain.adapters.formats import COMFYUI, DIFFUSERS, KOHYA, MOTION_LORA, PEFT
from svdtrain.adapters.layer import MAGNITUDE, Layer
from svdtrain.adapters.names import motion_module_name
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from svdtrain.adapters.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
if TYPE_CHECKING:
    Patch = Callable[[], Array]
    Found = tuple[Patch, set[str]]
_UP = (".lora_up.weight", "_lora.up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_B", ".lora_B.default.weight")
_DOWN = (
    ".lora_down.weight",
    "_lora.down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    ".lora_A",
    ".lora_A.default.weight",
)


def comfyui_names(layout: Layout) -> dict[str, str]:
    """Every name under which ComfyUI looks for an adapter of a module -> the module's name in diffusers."""
    names: dict[str, str] = {}
    for module, native in layout.native.items():
        names[f"lora_unet_{native.replace('.', '_')}"] = module
        names[f"diffusion_model.{native}"] = module
        # Its table of diffusers' names ends at the spatial transformer blocks: nothing temporal has one.
        if re.search(r"\.attentions\.\d+\.(transformer_blocks\.|proj_(in|out)$)", module):
            flat = module.replace(".", "_")
            names |= {f"lora_unet_{flat}": module, f"lycoris_{flat}": module}
            spelled = module.replace(".to_", ".processor.to_")
            spelled = spelled[:-2] if spelled.endswith(".to_out.0") else spelled
            names |= {spelled: module, f"unet.{spelled}": module}
    return names


def comfyui_patches(file: Container, layout: Layout) -> tuple[dict[str, Patch], list[str]]:
    """(module -> what ComfyUI adds to its weight, flattened, when asked for; the keys that it passes over)."""
    patches: dict[str, Patch] = {}
    used: set[str] = set()
    for name, module in comfyui_names(layout).items():
        alpha = None
        if f"{name}.alpha" in file.entries:
            used.add(f"{name}.alpha")
            alpha = file.number(f"{name}.alpha")
        found = _lora(file, name, alpha) or _loha(file, name, alpha) or _lokr(file, name, alpha)
        if found:
            patches[module], keys = found
            used |= keys
    return patches, [key for key in file.entries if key not in used]


def _lora(file: Container, name: str, alpha: float | None) -> Found | None:
    up = next((name + ending for ending in _UP if name + ending in file.entries), None)
    down = next((name + ending for ending in _DOWN if name + ending in file.entries), None)
    if up is None or down is None:
        return None

    def patch() -> Array:
        b, a = file.array(up), file.array(down)
        scale = 1.0 if alpha is None else alpha / a.shape[0]
        return scale * (b.reshape(len(b), -1) @ a.reshape(len(a), -1))

    return patch, {up, down}


def _loha(file: Container, name: str, alpha: float | None) -> Found | None:
    keys = [f"{name}.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")]
    if not all(key in file.entries for key in keys):
        return None

    def patch() -> Array:
        w1_a, w1_b, w2_a, w2_b = (file.array(key) for key in keys)
        scale = 1.0 if alpha is None else alpha / w1_b.shape[0]
        return scale * ((w1_a @ w1_b) * (w2_a @ w2_b))

    return patch, set(keys)


def _lokr(file: Container, name: str, alpha: float | None) -> Found | None:
    pairs: list[list[str]] = []
    for part in ("w1", "w2"):
        choices = ([f"{name}.lokr_{part}"], [f"{name}.lokr_{part}_a", f"{name}.lokr_{part}_b"])
        found = next((keys for keys in choices if all(key in file.entries for key in keys)), None)
        if found is None:
            return None
        pairs.append(found)

    def patch() -> Array:
        arrays = [[file.array(key) for key in keys] for keys in pairs]
        first, second = (one[0] if len(one) == 1 else one[0] @ one[1] for one in arrays)
        rank = next((len(one[1]) for one in reversed(arrays) if len(one) == 2), None)
        scale = alpha / rank if alpha is not None and rank else 1.0
        return scale * np.kron(first, second.reshape(len(second), -1))

    return patch, {key for keys in pairs for key in keys}


def motion_lora_patches(file: Container, layout: Layout) -> tuple[dict[str, Patch], list[str]]:
    """The same of AnimateDiff's own code, which ComfyUI-AnimateDiff-Evolved follows: up @ down, and no alpha."""
    names = {motion_module_name(module): module for module in layout.shapes if ".motion_modules." in module}
    patches: dict[str, Patch] = {}
    used: set[str] = set()
    for down in [key for key in file.entries if "up." not in key]:
        up = down.replace(".down.", ".up.")
        name = down.replace("processor.", "").replace("_lora", "").replace("down.", "").replace("to_out.", "to_out.0.")
        module = names.get(name.removesuffix(".weight"))
        if module and up != down and up in file.entries:
            patches[module] = lambda up=up, down=down: file.array(up) @ file.array(down)
            used |= {up, down}
    return patches, [key for key in file.entries if key not in used]


def read_as(program: str, denoiser: nn.Module, path: Path, layout: Layout) -> dict[str, Patch]:
    """Load a file into a fresh denoiser as a program does; returns what it now adds to each weight, flattened.

    Raises ModelError when that fails, or leaves a key unread.
    """
    readers: dict[str, Callable[[nn.Module, Path, Layout], dict[str, Patch]]] = {
        DIFFUSERS: _as_diffusers,
        PEFT: _as_peft,
        COMFYUI: partial(_by_patches, "ComfyUI", comfyui_patches),
        KOHYA: partial(_by_patches, "ComfyUI", comfyui_patches),
        MOTION_LORA: partial(_by_patches, "its own code", motion_lora_patches),
    }
    with _quietly(program, path):
        return readers[program](denoiser, path, layout)


def _as_diffusers(denoiser: nn.Module, path: Path, layout: Layout) -> dict[str, Patch]:
    """By its own mixin, which the classes of some video UNets do not have and any can be given."""
    from diffusers.loaders.peft import PeftAdapterMixin

    if not isinstance(denoiser, PeftAdapterMixin):
        kind = type(denoiser)
        denoiser.__class__ = type(kind.__name__, (kind, PeftAdapterMixin), {})
    prefixed = any(key.startswith(f"{layout.component}.") for key in Container(path).entries)
    load: Any = denoiser.load_lora_adapter  # type: ignore[operator]
    load(str(path.parent), weight_name=path.name, prefix=layout.component if prefixed else None, local_files_only=True)
    return _live_changes(denoiser, path)


def _as_peft(denoiser: nn.Module, path: Path, layout: Layout) -> dict[str, Patch]:  # noqa: ARG001
    from peft import PeftModel

    PeftModel.from_pretrained(denoiser, str(path.parent))  # type: ignore[arg-type]
    return _live_changes(denoiser, path)


def _live_changes(denoiser: nn.Module, path: Path) -> dict[str, Patch]:
    """Of the layers that peft has put in place. Both programs leave out, with a warning at most, what they cannot place."""
    from svdtrain.adapters.inject import adapter_layers, adapter_names, layer_parts

    changes: dict[str, Patch] = {}
    count = 0
    for module, layer in adapter_layers(denoiser, name := (adapter_names(denoiser) or [""])[-1]):
        parts = layer_parts(layer, name)
        count += len(parts)
        changes[module] = partial(_live_change, layer, parts, float(layer.scaling[name]))
    wanted = len([key for key, entry in Container(path).entries.items() if entry.shape])
    if count != wanted:
        raise ModelError(f"{path}: {count} of its {wanted} tensors were loaded")
    return changes


def _live_change(layer: Any, parts: Mapping[str, Any], scale: float) -> Array:  # noqa: ANN401
    arrays = {name: part.detach().cpu().float().numpy() for name, part in parts.items()}
    if MAGNITUDE in arrays:
        arrays[MAGNITUDE] = arrays[MAGNITUDE].reshape(-1)
    return Layer(arrays, scale).delta(layer.get_base_layer().weight.detach().cpu().float().numpy())


def _by_patches(
    name: str,
    find: Callable[[Container, Layout], tuple[dict[str, Patch], list[str]]],
    denoiser: nn.Module,
    path: Path,
    layout: Layout,
) -> dict[str, Patch]:
    from svdtrain.adapters.targets import adaptable_weights

    patches, unread = find(Container(path), layout)
    if unread:
        raise ModelError(f"{path}: {name} reads nothing of {len(unread)} keys, first '{unread[0]}'")
    add_to_weights(adaptable_weights(denoiser), patches)
    return patches


def add_to_weights(weights: Mapping[str, Any], changes: Mapping[str, Patch]) -> None:
    """Add flat changes to live weights, in fp32."""
    import torch

    with torch.no_grad():
        for module, change in changes.items():
            weight = weights[module]
            added = torch.from_numpy(np.ascontiguousarray(change(), np.float32)).reshape(weight.shape)
            weight.copy_((weight.float() + added.to(weight.device)).to(weight.dtype))


WEIGHT_LIMITS = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 3e-2}
"""How far a module's change may be from the adapter's, as a share of its largest number: two factors, rounded."""
ROUNDING = {"fp32": 2e-7, "fp16": 1e-3, "bf16": 8e-3}
"""Of a weight that a change was added to."""


def furthest(
    seen: Mapping[str, Patch],
    layers: Mapping[str, Layer],
    weight: Callable[[str], Array],
    dtype: str,
    *,
    strengths: Mapping[str, float] | None = None,
    merged: bool = False,
) -> float:
    """The largest share by which what a program adds to a weight differs from the adapter's own change.

    Every module is compared, so that none can hide behind others. Raises ModelError for one that is further than its dtype
    rounds, and for modules that are missing or too many.
    """
    if odd := sorted(seen.keys() ^ layers.keys()):
        raise ModelError(f"{len(odd)} modules are changed that should not be, or the other way round, first '{odd[0]}'")
    worst = 0.0
    for module, layer in layers.items():
        base = weight(module)
        wanted = (strengths or {}).get(module, 1.0) * layer.delta(base)
        largest = float(np.abs(wanted).max())
        apart = float(np.abs(seen[module]() - wanted).max())
        allowed = WEIGHT_LIMITS[dtype] * largest
        if merged or layer.kind == "dora":
            allowed += ROUNDING[dtype if merged else "fp32"] * float(np.abs(base).max())
        if not apart <= allowed:
            raise ModelError(f"'{module}': its change is off by {apart:.2e}, and is {largest:.2e} itself")
        worst = max(worst, apart / largest if largest else 0.0)
    return worst


@contextmanager
def _quietly(program: str, path: Path) -> Iterator[None]:
    """Their remarks are kept back; what they raise becomes a ModelError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        except ModelError:
            raise
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"{path}: {program} cannot read it: {lines[0][:160]}") from error
        finally:
            logging.disable(logging.NOTSET)
