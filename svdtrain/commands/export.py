"""`python -m svdtrain export`: an adapter for other programs, proved by loading each file as its program does."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from svdtrain.adapters.container import Container
from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import WEIGHTS, adapter_path, read_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.formats import PEFT
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.programs import add_to_weights
from svdtrain.adapters.spec import AdapterInfo, measured
from svdtrain.adapters.targets import adaptable_weights, half_of
from svdtrain.commands.export_proof import MERGED, Judge, fresh_family
from svdtrain.config.strengths import even
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import ModelError, SystemFault, UsageError
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.foundation.secrets import redacted
from svdtrain.reporting.export_card import card_facts
from svdtrain.reporting.model_card import model_card

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svdtrain.adapters.files import AdapterFile
    from svdtrain.config.schema import ExportConfig
    from svdtrain.families.protocol import ModelFamily

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def run(config: ExportConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """One file (or folder) a target in the out folder; a target that fails its proof is not left behind."""
    quiet_packages()
    console = Console()
    source = adapter_path(config.adapter)
    if config.trigger and not spec_of(config.model.family).needs_text:
        raise UsageError(f"trigger: {config.model.name} reads no text", "trigger=null")
    title, out = _title(config, source), _out(config, source)
    places = {to: out / _name(title, to) for to in dict.fromkeys(config.to)}
    _refuse_taken(config, out, places)
    family = fresh_family(config)
    file = _opened(config, family)
    judge = Judge(config, family, file) if config.verify else None
    with _workshop(out) as workshop:
        made: dict[str, Path] = {}
        for to in places:
            made[to] = workshop / _name(title, to)
            _write(config, family, file, to, made[to], title)
            if judge:
                console.print(f"{to:<11} {judge.judged(to, made[to])}", highlight=False, markup=False, soft_wrap=True)
        if config.card:
            samples = _copied_samples(source, workshop)
            (workshop / "README.md").write_text(redacted(_card(config, family, file, title, places, samples)))
        for path in sorted(workshop.iterdir()):
            path.rename(out / path.name)
    for path in places.values():
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
    if config.card:
        console.print(str(out / "README.md"), highlight=False, markup=False, soft_wrap=True)


def _opened(config: ExportConfig, family: ModelFamily) -> AdapterFile:
    file = read_adapter(config.adapter, layout_of(family.denoiser))
    mark = file.info.base_fingerprint
    if mark and (difference := differences(mark, fingerprint(family.denoiser))):
        made_for = file.info.base or "another base"
        hint = "model=NAME or model.source=FOLDER of the base it was trained on"
        raise ModelError(f"adapter={config.adapter}: made for {made_for}, and this model has {difference}", hint)
    return replace(file, info=replace(file.info, base_fingerprint=mark or fingerprint(family.denoiser)))


def _write(config: ExportConfig, family: ModelFamily, file: AdapterFile, to: str, path: Path, title: str) -> None:
    if to != MERGED:
        write_adapter(
            path / WEIGHTS if to == PEFT else path,
            file,
            to,
            config.dtype,
            architecture=family.spec.architecture,
            metadata=config.metadata,
            title=title,
        )
        return
    merged = fresh_family(config)
    weights = adaptable_weights(merged.denoiser)
    changes = {
        module: (lambda m=module, one=layer: _strength(config, m) * one.delta(weights[m].detach().cpu().numpy()))
        for module, layer in file.layers.items()
    }
    add_to_weights(weights, changes)
    torch.nn.Module.to(merged.denoiser, DTYPES[config.dtype])
    merged.pipeline().save_pretrained(path, safe_serialization=True)
    for settings in path.rglob("*.json"):
        told = json.loads(settings.read_text())
        if isinstance(told, dict) and told.pop("_name_or_path", None):  # where on this machine it was loaded from
            settings.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def _strength(config: ExportConfig, module: str) -> float:
    return config.strength.of(half_of(module))


def _title(config: ExportConfig, source: Path) -> str:
    """What files are named by: the recipe, where its name is no path (a header can say anything)."""
    recipe = AdapterInfo.from_header(Container(source).metadata).recipe
    return config.title or (recipe if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", recipe) else source.stem)


def _out(config: ExportConfig, source: Path) -> Path:
    if config.out is not None:
        return Path(config.out)
    run = source.parent.parent
    return (run if (run / "run.json").is_file() else source.parent) / "export"


def _name(title: str, to: str) -> str:
    return {PEFT: f"{title}_peft", MERGED: f"{title}_merged"}.get(to, f"{title}_{to}.safetensors")


def _refuse_taken(config: ExportConfig, out: Path, places: dict[str, Path]) -> None:
    if out.is_file():
        raise UsageError(f"out={out}: it is a file", "out=FOLDER")
    wanted = [*places.values(), *([out / "README.md", out / "samples"] if config.card else [])]
    if taken := next((path for path in wanted if path.exists()), None):
        raise ModelError(f"out={out}: {taken} exists already", "out=FOLDER or title=NAME; nothing is overwritten")


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """A folder inside `out` that is gone afterwards, whatever happens; and `out`, if it was made for nothing."""
    fresh = not out.exists()
    workshop = out / f".partial-{token_hex(4)}"
    try:
        workshop.mkdir(parents=True)
        yield workshop
    except OSError as error:
        raise SystemFault(f"out={out}: cannot be written: {error.strerror or error}", "free space or rights") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        if fresh and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _copied_samples(source: Path, workshop: Path) -> list[str]:
    """The run's own comparison, where there is one; a link could lead to any file of this machine."""
    run = source.parent.parent
    found = [
        run / name
        for name in ("before_after.mp4", "contact_sheet.png")
        if (run / name).is_file() and not (run / name).is_symlink()
    ]
    if found:
        (workshop / "samples").mkdir()
    for path in found:
        shutil.copyfile(path, workshop / "samples" / path.name)
    return [f"samples/{path.name}" for path in found]


def _card(
    config: ExportConfig,
    family: ModelFamily,
    file: AdapterFile,
    title: str,
    places: dict[str, Path],
    samples: list[str],
) -> str:
    names = {to: f"{path.name}/{WEIGHTS}" if to == PEFT else path.name for to, path in places.items()}
    model, spec = config.model, family.spec
    return model_card(
        card_facts(
            title=title,
            base=model.id or "",
            base_name=model.name,
            pipeline_class=spec.pipeline_class,
            component=layout_of(family.denoiser).component,
            image_to_video=spec.needs_image,
            tags=(spec.name,),
            files=names,
            frames=model.frames,
            info=vars(file.info),
            results=measured(file.info),
            samples=samples if config.strength == even(1) or set(config.to) != {MERGED} else [],
            strength=str(config.strength) if set(config.to) == {MERGED} else None,
            trigger=config.trigger,
            consent=config.consent,
        )
    )
