"""How a run was made and what is done with it, as parts of its report: clips, cost, reproduction, use, licence."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from svdtrain.reporting.licences import UNKNOWN, licence_of
from svdtrain.reporting.model_card import LIMITS
from svdtrain.reporting.page import Listing, Paragraph, Section, Table
from svdtrain.reporting.report_choice import of_choice
from svdtrain.reporting.tables import duration
from svdtrain.reporting.told import at, listed, number, table, text

if TYPE_CHECKING:
    from svdtrain.reporting.run_files import RunFiles

COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
_PATH = re.compile(r"(?<![\w:/.~])(?:~|[A-Za-z]:(?=[\\/]))?[\\/](?:[^\s'\",\]\[}\\/]+[\\/])*([^\s'\",\]\[}\\/]*)")


def without_folders(words: str) -> str:
    """Absolute paths by their last name: a report goes to others."""
    return _PATH.sub(lambda found: f"…/{found[1]}", words)


def dataset(run: RunFiles) -> Section | None:
    """Counts, sizes, sources, the fingerprint."""
    told, data, model = table(run.fields, "dataset"), table(run.config, "data"), table(run.config, "model")
    source = data.get("source")
    names = [source] if isinstance(source, str) else listed(data, "source")
    size = [number(model, name) for name in ("width", "height", "frames")]
    amount = number(told, "bytes")
    rows = {
        "Source": ", ".join(without_folders(text(name)) for name in names),
        "Training clips": _of(told, "train_clips", "train_sources"),
        "Held-out clips": _of(told, "held_out_clips", "held_out_sources"),
        "Shards": _whole(told, "shards"),
        "On disk": "" if amount is None else f"{amount / 1e6:,.1f} MB",
        "Trained at": "" if None in size else "{:.0f} × {:.0f} pixels, {:.0f} frames".format(*size),
        "Frames per second": text(data, "fps") or text(model, "data_fps") or "that of each clip",
        "Trigger word": text(data, "trigger"),
        "Fingerprint": text(told, "fingerprint"),
    }
    if not told and not data:
        return None
    note = "The fingerprint is a checksum of the list of clips: equal clips, equal fingerprint."
    return Section("dataset", "The clips", "", tables=(_facts(rows, note),))


def cost(run: RunFiles, price: float | None) -> Section | None:
    """Machine, time and memory, foretold and real; money at a price of an hour."""
    fields, speed = run.fields, table(run.fields, "speed")
    if not speed:
        return None
    seconds, steps, step = number(speed, "training_seconds"), number(speed, "steps"), number(fields, "step")
    trainer = table(run.config, "trainer")
    cards = int((number(trainer, "devices") or 1) * (number(trainer, "nodes") or 1))
    each, planned = number(speed, "seconds_per_batch"), number(fields, "plan", "step_seconds")
    peak, foretold = number(fields, "speed", "peak_bytes"), number(fields, "plan", "peak_bytes")
    wait, beside = number(speed, "share_waiting_for_data"), number(speed, "share_beside_training")
    whole = seconds * step / steps if seconds and steps and step else seconds
    rows = {
        "Hardware": text(fields, "hardware") or "not told by this run",
        "Processes": f"{cards}",
        "Precision, memory rung": f"{text(trainer, 'precision')}, {text(fields, 'rung')}",
        "Training": "" if whole is None else duration(whole),
        "A batch": _against(each, planned, lambda value: f"{value:.3g} s"),
        "Peak memory": _against(peak, foretold, lambda value: f"{value / 2**30:.1f} GiB"),
        "Speed": f"{text(speed, 'steps_per_second')} steps/s, {text(speed, 'clips_per_second')} clips/s",
        "Looks, samples, saves": "" if beside is None else f"{beside:.1%} of the whole time",
        "Waiting for data": "" if wait is None else f"{wait:.1%} of the time",
    }
    if (joules := number(speed, "energy_joules")) is not None:
        on_cpu = text(fields, "hardware").startswith("CPU")
        alike = int(number(trainer, "nodes") or 1) if on_cpu else cards
        counted = f"the {'CPU' if on_cpu else 'card'}'s own counter, with looks and samples"
        times = f", {alike} times that of the first" if alike > 1 else ""
        of_all = step / steps if steps and step else 1.0
        rows["Energy"] = f"{joules * alike * of_all / 3.6e6:.3g} kWh by {counted}{times}"
    if price is not None and whole is not None:
        rows[f"Cost at {price:g} an hour"] = f"{price * cards * whole / 3600:.2f}"
    went_on = f" {steps:,.0f} of {step:,.0f} steps were timed." if steps and step and steps < step else ""
    note = f"Training alone: previews, validation and loading come on top.{went_on}"
    return Section("cost", "Machine, time and cost", "", tables=(_facts(rows, note),))


def reproduce(run: RunFiles) -> Section | None:
    """The command, the seed, versions, the whole config."""
    words = [without_folders(text(word)) for word in listed(run.fields, "overrides")]
    words = [word for word in words if word and not word.startswith(("run_dir=", "resume="))]
    listings = []
    if words:
        listings.append(Listing("Command", f"python -m svdtrain fit {' '.join(map(shlex.quote, words))}"))
    if run.config:
        written = yaml.safe_dump(_plain(run.config), sort_keys=False, allow_unicode=True, width=100)
        listings.append(Listing("config.yaml, whole", without_folders(written)[:60_000], folded=True))
    versions = [f"{name[:40]} {text(told)}" for name, told in list(table(run.fields, "versions").items())[:20]]
    rows = {"Seed": text(run.config, "seed"), "Started": text(run.fields, "started"), "Versions": ", ".join(versions)}
    tables = (_facts(rows),)
    if not listings and not run.fields:
        return None
    intro = "Equal settings, clips and versions give equal weights on equal hardware. Folders are left out of paths."
    return Section("reproduce", "How to make it again", intro, tables=tables, listings=tuple(listings))


def use(run: RunFiles) -> Section | None:
    """In svdtrain, diffusers and ComfyUI."""
    if text(run.config, "adapter", "kind") == "full":
        told = Paragraph("All weights were trained: RUN/denoiser takes the place of the base's, in its folder.")
        return Section("use", "How to use it", "", paragraphs=(told,))
    file = "adapter/adapter_model.safetensors"
    if not (run.folder / file).is_file():
        return None
    name = run.folder.resolve().name
    how = table(run.fields, "use")
    given = [*["image=PICTURE"] * (how.get("image", True) is True), *["prompt=TEXT"] * (how.get("text") is True)]
    trigger = text(run.config, "data", "trigger")
    listings = [
        Listing("A video", f"python -m svdtrain generate {' '.join([of_choice(run), *given, 'out=video.mp4'])}"),
        Listing(
            "For ComfyUI and diffusers, proved by loading",
            f"python -m svdtrain export adapter={name} to=comfyui,diffusers",
        ),
    ]
    if (pipeline := text(how, "pipeline")).isidentifier():
        base = text(run.config, "model", "id") or "FOLDER_OF_THE_BASE"
        code = (
            f"import svdtrain\nfrom diffusers import {pipeline}\n\n"
            f'pipe = {pipeline}.from_pretrained("{base}")\n'
            f'svdtrain.load_adapter(pipe, "{name}/{file}", strength=1.0)'
        )
        listings.append(Listing("In Python", code))
    paragraphs = [
        Paragraph("In ComfyUI the exported file goes into models/loras; LoraLoaderModelOnly loads it.", COMFYUI)
    ]
    if trigger:
        paragraphs.insert(0, Paragraph(f"“{trigger}” in the prompt calls what was learnt."))
    intro = "Strength 1 is as trained, 0 is the base; 0.5 to 1.2 is worth trying."
    return Section("use", "How to use it", intro, listings=tuple(listings), paragraphs=tuple(paragraphs))


def terms(run: RunFiles) -> Section:
    """The base's licence, and what the report does not prove."""
    base = text(run.config, "model", "id") or text(run.config, "model", "name")
    licence, stated = licence_of(base), text(run.config, "model", "licence")
    if licence != UNKNOWN:
        named = f"the base's licence, here {licence.name or licence.identifier}. {licence.terms}"
    else:
        named = f"the base's licence{f', here {stated}' if stated else ', which is not known here'}."
    told = [Paragraph(f"What is made of a base comes under {named.rstrip()}", licence.link)]
    told.append(Paragraph("The clips have owners too: whoever passes this on answers for their consent."))
    return Section("terms", "Licence and limits", "", paragraphs=(*told, *(Paragraph(limit) for limit in LIMITS)))


def _facts(rows: dict[str, str], note: str = "") -> Table:
    return Table(("", " "), tuple((name, value) for name, value in rows.items() if value.strip(" ,")), note=note)


def _of(told: dict[str, Any], clips: str, sources: str) -> str:
    found, of = number(told, clips), number(told, sources)
    if found is None:
        return ""
    return f"{found:,.0f}" + (f" of {of:,.0f} sources" if of else "")


def _whole(told: dict[str, Any], name: str) -> str:
    found = number(told, name)
    return "" if found is None else f"{found:,.0f}"


def _against(real: float | None, foretold: float | None, spelled: Any) -> str:  # noqa: ANN401
    if real is None:
        return f"{spelled(foretold)} foretold" if foretold is not None else ""
    return spelled(real) + (f" ({spelled(foretold)} foretold)" if foretold is not None else "")


def _plain(tree: object) -> Any:  # noqa: ANN401
    """What safe_dump takes."""
    if isinstance(tree, dict):
        return {str(key): _plain(one) for key, one in tree.items()}
    if isinstance(tree, list | tuple | set):
        return [_plain(one) for one in tree]
    return tree if tree is None or isinstance(tree, bool | int | float) else str(at({"one": tree}, "one"))


def name_of(run: RunFiles) -> str:
    """The run's, else its folder's."""
    return text(run.fields, "name") or PurePath(run.folder.resolve()).name
