"""`python -m svdtrain adapter check`: whether programs read a file whole, and whether it is sound at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.adapters import formats
from svdtrain.adapters.container import Container
from svdtrain.adapters.coverage import Coverage, alpha_in_words, coverage, faults_of_numbers
from svdtrain.adapters.files import adapter_path, read_adapter, read_settings
from svdtrain.adapters.fingerprint import differences, fingerprint_on_disk
from svdtrain.adapters.measures import measure
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.commands.adapter.opening import open_base, say, stated_base
from svdtrain.foundation.errors import ModelError
from svdtrain.reporting.tables import text_table

if TYPE_CHECKING:
    from pathlib import Path

    from svdtrain.adapters.layout import BaseWeights, Layout
    from svdtrain.config.toolbox import CheckConfig


def run(config: CheckConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Everything that was found, good and bad; then ModelError if a program that was asked for does not read it whole."""
    path = adapter_path(config.file)
    base = open_base(config.base) or stated_base(path)
    file = Container(path)
    if not file.entries:
        raise ModelError(f"{path}: it holds no tensors", "train or export it again")
    keys = formats.split_keys(file.entries)
    layout = base.layout if base else formats.recognised(file, keys)
    if layout is None:
        message = (
            f"{path}: {len(file.entries)} keys that no model svdtrain knows has, first '{next(iter(file.entries))}'"
        )
        raise ModelError(message, "base=FOLDER of the model that it was made for")
    settings = read_settings(path, file, formats.format_of(file.entries))
    problems = _soundness(path, file, keys, settings, layout, base)
    programs = config.programs or list(formats.FORMATS)
    found = {program: coverage(program, file, layout, settings) for program in programs}
    say("\n" + text_table(["for", "modules", "", "unread keys", ""], [_row(*one) for one in found.items()]))
    for program in config.programs or []:
        unread = found[program].unread
        if unread:
            say(f"{program} passes over " + ", ".join(f"'{key}'" for key in unread[:3]) + (" …" if unread[3:] else ""))
    lost: list[str] = []
    readers = [program for program, one in found.items() if one.whole]
    if config.programs or not readers:
        lost = [f"{program} does not read it whole" for program in found if program not in readers]
        problems += lost
    if config.base and config.sample is not False and not problems:
        from svdtrain.commands.adapter.sampling import compare_in_pipelines

        problems += compare_in_pipelines(path, config.base, readers, layout)
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise ModelError(f"{path}: {problems[0]}{more}", _mend(path, found, sound=problems == lost))
    say("sound")


def _row(program: str, found: Coverage) -> list[str]:
    verdict = "whole" if found.whole else "; ".join(found.faults) or "NOT WHOLE"
    return [program, str(len(found.modules)), f"({found.halves()})", str(len(found.unread)), verdict]


def _soundness(
    path: Path,
    file: Container,
    keys: formats.Keys,
    settings: formats.Settings | None,
    layout: Layout,
    base: BaseWeights | None,
) -> list[str]:
    """Print what is true whatever reads the file; return what is wrong with it."""
    problems: list[str] = []
    bad, dtypes = faults_of_numbers(file)
    named = {stem: formats.module_of(stem, layout) for stem in keys.stems}
    unknown = [stem for stem, module in named.items() if module is None]
    say(f"file           {path}")
    kind = formats.format_of(file.entries)
    say(f"modules        {len(named) - len(unknown)} of the model's {len(layout.shapes)}, named as in {kind}")
    say(f"dtype          {', '.join(f'{count} {dtype}' for dtype, count in dtypes.items())}")
    say(f"alpha          {alpha_in_words(file, settings, keys.stems)}")
    if keys.strange:
        problems.append(f"{len(keys.strange)} keys are no adapter's, first '{keys.strange[0]}'")
    if unknown:
        problems.append(f"{len(unknown)} modules are not in the model, first '{unknown[0]}'")
    if bad:
        problems.append(f"{len(bad)} tensors hold numbers that are not finite (or no numbers), first '{bad[0]}'")
    if not problems:
        problems += _layers(path, layout)
    problems += _base(AdapterInfo.from_header(file.metadata), base)
    for problem in problems:
        say(f"WRONG          {problem}")
    return problems


def _layers(path: Path, layout: Layout) -> list[str]:
    try:
        layers = read_adapter(path, layout).layers
    except ModelError as error:
        return [error.message.removeprefix(f"{path}: ")]
    dead = [module for module, layer in layers.items() if layer.kind != "dora" and measure(layer).norm == 0]
    say(f"dead layers    {len(dead)}" + (f", first '{dead[0]}'" if dead else ""))
    return ["every layer is dead: it changes nothing"] if len(dead) == len(layers) else []


def _base(info: AdapterInfo, base: BaseWeights | None) -> list[str]:
    made_for = info.base or "a base that it does not name"
    if not info.base_fingerprint or base is None:
        say(f"made for       {made_for}" + ("" if base else " (not compared: no base=…)"))
        return []
    difference = differences(info.base_fingerprint, fingerprint_on_disk(base))
    say(f"made for       {made_for}: {difference or 'this base'}")
    return [f"it was made for {made_for}, and this base has {difference}"] if difference else []


def _mend(path: Path, found: dict[str, Coverage], *, sound: bool) -> str:
    lost = [program for program, one in found.items() if not one.whole]
    out = "NEW_FOLDER" if lost[:1] == [formats.PEFT] else "NEW.safetensors"
    return (
        f"python -m svdtrain adapter convert {path} to={lost[0]} out={out}"
        if lost and sound
        else "train or export it again"
    )
