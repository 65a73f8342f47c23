"""The README.md of a model repository: what the adapter is, how to load it, how it was made, and on what terms.

Whatever reads like a path of this machine is left out; captions, users and hosts are never asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from huggingface_hub import ModelCardData

from svdtrain.reporting.licences import LICENCE_TO_FILL_IN, UNKNOWN, Licence

if TYPE_CHECKING:
    from collections.abc import Mapping

DIFFUSERS, COMFYUI, PEFT, KOHYA, MOTION_LORA, MERGED = (
    "diffusers",
    "comfyui",
    "peft",
    "kohya",
    "motion_lora",
    "merged",
)
"""What CardFacts.files may hold."""
READERS = {
    DIFFUSERS: "svdtrain, diffusers",
    COMFYUI: "ComfyUI",
    PEFT: "svdtrain, peft",
    KOHYA: "kohya's tools, svdtrain",
    MOTION_LORA: "AnimateDiff's extensions of ComfyUI and the web UI, svdtrain",
    MERGED: "diffusers: a whole pipeline with the adapter in its weights",
}
MOTION_BUCKET = "motion bucket"
"""A setting of bases that are told frame rate and noise of their first picture: ComfyUI counts both differently."""
CONSENT_TO_FILL_IN = "Not stated: say here whose clips these are and that you may use them."
TO_FILL_IN = (CONSENT_TO_FILL_IN, LICENCE_TO_FILL_IN)
"""Sentences that a card should not be published with."""
LOADER = """\
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file

weights = {key.removeprefix("COMPONENT."): value for key, value in load_file("FILE").items()}
ranks = {key.removesuffix(".lora_A.weight"): len(value) for key, value in weights.items() if ".lora_A." in key}
usual = max(ranks.values(), key=list(ranks.values()).count)
rarer = {f"^{name}": rank for name, rank in ranks.items() if rank != usual}
config = LoraConfig(r=usual, lora_alpha=usual, target_modules=list(ranks), rank_pattern=rarer, alpha_pattern=rarer)
report = set_peft_model_state_dict(inject_adapter_in_model(config, pipe.COMPONENT), weights)
assert not report.unexpected_keys and not [key for key in report.missing_keys if "lora_" in key], report
"""
"""Without svdtrain, and strict: alpha is the rank, and every key of the file must find its place. FILE and COMPONENT
are filled in; `pipe` is a pipeline of the base."""
LIMITS = (
    "It was trained and judged at the settings above; other sizes, lengths and frame rates were not tried.",
    "What the base cannot do, and whom or what it shows in a biased way, stays as it is; the clips add their own.",
    "A loss on held-out clips measures how well noise is predicted, not what a viewer sees: look at your own videos.",
)
_PATH = re.compile(r"(?<![\w.:/\\])(?:file:|~|[A-Za-z]:(?=[\\/]))?[\\/]+[^\s|]+")


@dataclass(frozen=True)
class CardFacts:
    """What a card says, as plain values in the order in which they are to be read."""

    title: str
    base: str
    """Hub id of the base; empty when it has none."""
    base_name: str
    licence: Licence
    """Of the base: licences.licence_of."""
    pipeline_tag: str
    """The Hub's: image-to-video or text-to-video."""
    pipeline_class: str
    """Of diffusers."""
    component: str
    """The pipeline's part that was trained: unet, transformer."""
    files: Mapping[str, str]
    """Format (a key of READERS) -> path in the repository."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """How it is used: frames, size, fps, MOTION_BUCKET, range of strength …"""
    training: Mapping[str, str] = field(default_factory=dict)
    """How it was made: recipe, kind, rank, steps, clips, held-out loss …"""
    samples: tuple[str, ...] = ()
    """Videos and pictures, as paths in the repository."""
    tags: tuple[str, ...] = ()
    """Of the family."""
    trigger: str | None = None
    """A word that calls what was learned; None for bases without a text."""
    consent: str | None = None
    """Whose clips these are, and who allowed their use."""


def model_card(facts: CardFacts) -> str:
    """The whole README.md, front matter first."""
    names = (*facts.files.values(), *facts.samples)
    assert facts.files
    assert not [name for name in names if PurePosixPath(name).is_absolute() or ".." in name.split("/")], names
    sections = (
        f"# {_public(facts.title)}",
        _introduction(facts),
        _gallery(facts.samples),
        _loading(facts),
        _comfyui(facts),
        _table("Settings", facts.settings),
        _table("Training", facts.training),
        f"## The clips\n\n{_public(facts.consent or '') or CONSENT_TO_FILL_IN}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        f"## Licence\n\n{_licence(facts)}",
    )
    front = ModelCardData(**_front_matter(facts)).to_yaml()
    return f"---\n{front}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    adapter = _is_adapter(facts)
    tags = ["lora"] if adapter else []
    tags += [*facts.tags, facts.pipeline_tag, "diffusers", *(["template:sd-lora"] if adapter else []), "svdtrain"]
    entries: dict[str, Any] = {
        "base_model": facts.base,
        "base_model_relation": ("adapter" if adapter else "finetune") if facts.base else "",
        "library_name": "diffusers",
        "license": facts.licence.identifier,
        "license_name": facts.licence.name,
        "license_link": facts.licence.link,
        "pipeline_tag": facts.pipeline_tag,
        "tags": list(dict.fromkeys(tags)),
        "instance_prompt": _public(facts.trigger or ""),
        "widget": [{"text": _public(facts.trigger or "") or "-", "output": {"url": name}} for name in facts.samples],
    }
    return {key: value for key, value in entries.items() if value}


def _is_adapter(facts: CardFacts) -> bool:
    return set(facts.files) != {MERGED}


def _introduction(facts: CardFacts) -> str:
    base = f"[{facts.base}](https://huggingface.co/{facts.base})" if facts.base else _public(facts.base_name)
    what = "An adapter for" if _is_adapter(facts) else "A pipeline, fine-tuned from"
    trigger = f" `{_public(facts.trigger)}` in the prompt calls it." if facts.trigger else ""
    rows = "\n".join(f"| `{name}` | {READERS[kind]} |" for kind, name in facts.files.items())
    return f"{what} {base}, trained with svdtrain.{trigger}\n\n| file | for |\n|---|---|\n{rows}"


def _gallery(samples: tuple[str, ...]) -> str:
    """The Hub puts the widget's videos in place of <Gallery />; links serve every other reader."""
    if not samples:
        return ""
    links = [f"{'' if name.endswith('.mp4') else '!'}[{PurePosixPath(name).stem}]({quote(name)})" for name in samples]
    return "## Samples\n\n<Gallery />\n\n" + "\n".join(links)


def _loading(facts: CardFacts) -> str:
    if not _is_adapter(facts):
        lines = _pipeline(facts.pipeline_class, f"THIS_REPOSITORY/{facts.files[MERGED]}".removesuffix("/."))
        return f"## Use it\n\n{_python(lines)}"
    name = next(
        (facts.files[kind] for kind in (DIFFUSERS, PEFT, KOHYA, COMFYUI, MOTION_LORA) if kind in facts.files), ""
    )
    note = "" if facts.base else f"  # {_public(facts.base_name)}"
    lines = _pipeline(facts.pipeline_class, facts.base or "FOLDER_OF_THE_BASE", note)
    short = f'import svdtrain\n\nsvdtrain.load_adapter(pipe, "{name}", strength=1.0)\n'
    text = f"## Use it\n\nA pipeline of the base first:\n\n{_python(lines)}\n\nThen, with svdtrain:\n\n{_python(short)}"
    if DIFFUSERS in facts.files and facts.training.get("kind") in ("lora", "rslora", None):
        block = LOADER.replace("FILE", facts.files[DIFFUSERS]).replace("COMPONENT", facts.component)
        text += f"\n\nOr without it: diffusers, peft and safetensors are enough.\n\n{_python(block)}"
    return text


def _pipeline(pipeline_class: str, place: str, note: str = "") -> str:
    load = f'{pipeline_class}.from_pretrained("{place}", torch_dtype=torch.float32)'
    return f"import torch\nfrom diffusers import {pipeline_class}\n\npipe = {load}{note}\n"


def _python(code: str) -> str:
    return f"```python\n{code}```"


def _comfyui(facts: CardFacts) -> str:
    if COMFYUI not in facts.files:
        return ""
    text = (
        f"## In ComfyUI\n\nPut `{facts.files[COMFYUI]}` into `models/loras`, and LoraLoaderModelOnly between the "
        "checkpoint loader and the sampler; strength_model is the strength."
    )
    if MOTION_BUCKET not in facts.settings:
        return text
    return (
        f"{text}\n\n- Its fps is one less than the fps below: ComfyUI hands the number on as it is, diffusers and "
        "svdtrain take one off first.\n- Its augmentation noise is added to pixels in [0, 1], theirs to pixels in "
        "[-1, 1]: the same number is twice the noise there."
    )


def _table(title: str, rows: Mapping[str, str]) -> str:
    if not rows:
        return ""
    cells = "\n".join(f"| {_public(label)} | {_public(str(value))} |" for label, value in rows.items())
    return f"## {title}\n\n| | |\n|---|---|\n{cells}"


def _licence(facts: CardFacts) -> str:
    licence = facts.licence
    if licence == UNKNOWN:
        return LICENCE_TO_FILL_IN
    name = licence.name or licence.identifier
    shown = f"[{name}]({licence.link})" if licence.link else name
    return f"What is made of a base comes under the base's licence, here {shown}. {licence.terms}".rstrip()


def _public(text: str) -> str:
    """One line that neither breaks a table nor starts HTML, without paths of this machine."""
    return _PATH.sub("(a local path)", " ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
