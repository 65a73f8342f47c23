"""`python -m svdtrain export`: an adapter for other programs, proved by loading each file as its program does."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from svdtrain.adapters.export import write_adapter
from svdtrain.adapters.files import WEIGHTS, adapter_path, read_adapter
from svdtrain.adapters.fingerprint import differences, fingerprint
from svdtrain.adapters.formats import KOHYA, PEFT
from svdtrain.adapters.layout import layout_of
from svdtrain.adapters.pipelines import load_adapter, set_strength, unload_adapter
from svdtrain.adapters.programs import add_to_weights, read_as
from svdtrain.adapters.targets import adaptable_weights
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import ModelError, SystemFault, UsageError
from svdtrain.foundation.hardware import choose_device
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.generation.proof import Proof, Sampled, proof, request_of, sampled
from svdtrain.reporting.export_card import card_facts
from svdtrain.reporting.model_card import model_card

if TYPE_CHECKING:
    from collections.abc import Iterator

    from svdtrain.adapters.files import AdapterFile
    from svdtrain.config.schema import ExportConfig
    from svdtrain.families.protocol import ModelFamily, Request

MERGED = "merged"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def run(config: ExportConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """One file (or folder) a target in the out folder; a target that fails its proof is not left behind."""
    quiet_packages()
    console = Console()
    source = adapter_path(config.adapter)
    title, out = _title(config, source), _out(config, source)
    places = {to: out / _name(title, to) for to in dict.fromkeys(config.to)}
    _refuse_taken(config, out, places)
    family = _family(config)
    file = _opened(config, family)
    shown = _Judge(config, family) if config.verify else None
    with _workshop(out) as workshop:
        made: dict[str, Path] = {}
        for to in places:
            made[to] = workshop / _name(title, to)
            _write(config, family, file, to, made[to], title)
            if shown:
                found = shown.of(to, made[to])
                console.print(f"{to:<10} {found}", highlight=False, soft_wrap=True)
                _refuse_failed(found, to, config.dtype)
        if config.card:
            samples = _copied_samples(source, workshop)
            (workshop / "README.md").write_text(_card(config, family, file, title, places, samples))
        for path in sorted(workshop.iterdir()):
            path.rename(out / path.name)
    for path in places.values():
        console.print(str(path), highlight=False, soft_wrap=True)
    if config.card:
        console.print(str(out / "README.md"), highlight=False, soft_wrap=True)


class _Judge:
    """The base and the adapter in memory, sampled once; and each file in a fresh pipeline."""

    def __init__(self, config: ExportConfig, family: ModelFamily) -> None:
        self.config, model = config, config.model
        self.request: Request = request_of(
            model.height, model.width, model.frames, model.fps, model.motion_bucket_id, config.steps
        )
        self.layout = layout_of(family.denoiser)
        self.base = sampled(family, self.request)
        name = load_adapter(family.denoiser, config.adapter)
        self.memory = sampled(family, self.request)
        self.at_strength: Sampled = self.memory
        if MERGED in config.to and config.strength != 1:
            set_strength(family.denoiser, config.strength)
            self.at_strength = sampled(family, self.request)
        unload_adapter(family.denoiser, name)

    def of(self, to: str, path: Path) -> Proof:
        """Load by the target's own rules, sample, compare."""
        source = {"source": str(path)} if to == MERGED else {}
        family = _family(self.config, **source)
        if to == KOHYA and not self.layout.native:
            load_adapter(family.denoiser, path)
        elif to != MERGED:
            read_as(to, family.denoiser, path / WEIGHTS if to == PEFT else path, self.layout)
        memory = self.at_strength if to == MERGED else self.memory
        return proof(memory, self.base, sampled(family, self.request))


def _family(config: ExportConfig, **changes: Any) -> ModelFamily:  # noqa: ANN401
    model = config.model.model_copy(update=changes | ({"variant": None} if changes else {}))
    family = build_family(model)
    family.to(choose_device(config.device), torch.float32)
    return family


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
    merged = _family(config)
    weights = adaptable_weights(merged.denoiser)
    changes = {
        module: (lambda m=module, one=layer: config.strength * one.delta(weights[m].detach().cpu().numpy()))
        for module, layer in file.layers.items()
    }
    add_to_weights(weights, changes)
    torch.nn.Module.to(merged.denoiser, DTYPES[config.dtype])
    merged.pipeline().save_pretrained(path, safe_serialization=True)


def _refuse_failed(found: Proof, to: str, dtype: str) -> None:
    if not found.change:
        raise ModelError(f"to={to}: the adapter changes nothing at all", "train on, or look: adapter info FILE")
    if not found.holds(dtype):
        raise ModelError(
            f"to={to}: the file does not do what the adapter does: it {found}",
            "nothing was left behind; a wider dtype=fp32 keeps every bit" if dtype != "fp32" else "please report this",
        )


def _title(config: ExportConfig, source: Path) -> str:
    recipe = read_adapter(source).info.recipe if config.title is None else config.title
    return recipe or source.stem


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
    """The run's own comparison, where there is one."""
    run = source.parent.parent
    found = [run / name for name in ("before_after.mp4", "contact_sheet.png") if (run / name).is_file()]
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
    results = json.loads(file.info.results) if file.info.results else {}
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
            results=results,
            samples=samples,
            trigger=config.trigger,
            consent=config.consent,
        )
    )
