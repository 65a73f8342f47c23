"""`python -m svdtrain plan`: what a fit will need, and which cards it fits, without weights and without a GPU."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.families.build import build_weights
from svdtrain.families.weights import pipeline_of
from svdtrain.foundation.errors import SvdtrainError, UsageError
from svdtrain.foundation.files import packaged
from svdtrain.foundation.out_of_memory import shown_size
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.planning.cards import CARDS, CONTEXT, MARGIN, card_of
from svdtrain.planning.duration import encodes_anew
from svdtrain.planning.experience import RUNS, by_runs, experience
from svdtrain.planning.ladder import with_rung
from svdtrain.planning.plan import plan, room_on, seconds_on
from svdtrain.planning.relief import MOST_MENDS, mends
from svdtrain.reporting.tables import duration, text_table
from svdtrain.training import build

if TYPE_CHECKING:
    from svdtrain.config.planning import PlanConfig
    from svdtrain.data.datamodule import ClipDataModule
    from svdtrain.planning.cards import Card
    from svdtrain.planning.experience import Experience
    from svdtrain.planning.plan import OnCard, Plan


NAMED = 4
"""Cards at most for which it is said what would fit: with more, somebody looks for a card."""


def run(config: PlanConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Foretell, and print."""
    quiet_packages()
    cards = {card_of(name) for name in config.card}
    chosen = [name for name in CARDS if name in cards or not cards]
    config, published = _sized(_on_no_device(config, [CARDS[name] for name in chosen]))
    data, unknown = _data(config)
    clips = data.describe().train_clips if data else None
    sizes, known = data.sizes if data else (), _known(config)
    found = plan(config, build.build_module, chosen, sizes=sizes, clips=clips, price=config.price, known=known)
    least = _less(config, found, data) if not all(one.rung for one in found.cards) and len(found.cards) <= NAMED else []
    console = Console(highlight=False, soft_wrap=True)
    if config.format == "json":
        told = {"model": config.model.name, "published_sizes": published, "clips": clips}
        console.print_json(json.dumps({**told, **found.as_json(), "needs_less": least}))
        return
    _tell(console, config, found, clips, published=published)
    if unknown:
        console.print(f"clips unknown: {unknown}")
    for words in least:
        console.print(f"needs less     {words}")
    if encodes_anew(config):
        once = "encodes clips once: python -m svdtrain cache makes it"
        console.print(f"each step encodes its clips, which is in its time; data.cache=disk {once}")


def _known(config: PlanConfig) -> dict[str, Experience]:
    """Of earlier runs. Raises UsageError for a folder that is named and not there."""
    if not config.runs:
        return {}
    runs = Path(config.runs).expanduser()
    if runs != RUNS and not runs.is_dir():
        raise UsageError(f"runs={config.runs}: no such folder", "a folder of runs NAME/TIME, or runs=null")
    return experience(config.model.name, runs)


def _on_no_device(config: PlanConfig, cards: list[Card]) -> PlanConfig:
    """The precision that trainer.precision=auto is on these cards, and no question to this machine's own."""
    precision = config.trainer.precision
    if precision == "auto":
        precision = next((card.precision for card in cards if card.bf16), cards[0].precision)
    trainer = config.trainer.model_copy(update={"precision": precision, "device": "cpu"})
    return config.model_copy(update={"trainer": trainer})


def _sized(config: PlanConfig) -> tuple[PlanConfig, bool]:
    """The config with a folder that tells its model's sizes, and whether that is the package's, for want of the model."""
    model, blueprint = config.model, packaged("assets") / "blueprints" / config.model.name
    if model.source or model.id is None or pipeline_of(build_weights(model)) or not blueprint.is_dir():
        return config, False
    there = model.model_copy(update={"source": str(blueprint), "motion_adapter": None})
    return config.model_copy(update={"model": there}), True


def _data(config: PlanConfig) -> tuple[ClipDataModule | None, str]:
    """The clips, or why they are not known: a plan needs none."""
    try:
        data = build.build_data(config)
        data.setup("fit")
    except SvdtrainError as error:
        return None, error.message
    return data, ""


def _less(config: PlanConfig, found: Plan, data: ClipDataModule | None) -> list[str]:
    """What needs less than the least rung, the cheapest change first, and whether it would fit the largest card that it has
    to: of those that nothing fits as it is."""
    memory, room = found.step.memory, max(room_on(config, CARDS[one.card]) for one in found.cards if not one.rung)
    rung = min(memory, key=lambda name: memory[name].peak)
    ahead, sizes = config.data.cache == "disk", data.sizes if data else ()
    least = with_rung(config, rung)
    changes = mends(least, build.build_module, memory[rung], sizes=sizes, encoded_ahead=ahead, on_gpu=True)
    return [
        f"{one.words} memory={rung} ({shown_size(one.peak)}{', which fits' * (one.peak <= room)})"
        for one in islice(changes, MOST_MENDS)
    ]


def _tell(console: Console, config: PlanConfig, found: Plan, clips: int | None, *, published: bool) -> None:
    model, adapter, trainer = config.model, config.adapter, config.trainer
    size = f"{model.frames} frames of {model.height} x {model.width}"
    what = "all weights" if adapter.kind == "full" else f"{adapter.kind} on {adapter.modules.replace('_', ' ')}"
    console.print(f"{model.name}: {size}, batch {config.data.batch_size}, {what}, {trainer.precision}")
    if published:
        console.print("               sizes as published: the model itself is not here, and not needed")
    console.print(
        f"parameters     {found.parameters:,} and {found.frozen_around:,} around them; {found.trained:,} trained "
        f"({shown_size(4 * found.trained)} as a file)"
    )
    known = f"{clips:,} clips" if clips is not None else "of how many is unknown"
    console.print(
        f"on disk        {shown_size(found.run_folder_bytes)} for the run folder; a latent cache takes "
        f"{shown_size(found.window_bytes)} for each window of a clip ({known})"
    )
    alone = found.cards[0] if len(found.cards) == 1 else None
    rungs = [
        [name, shown_size(predicted.peak), f"{found.step.costs[name].flops / 1e12:.1f}"]
        + ([f"{seconds_on(alone, config, found.step, name):.2f}"] if alone else [])
        for name, predicted in found.step.memory.items()
    ]
    console.print(
        "\n" + text_table(["memory=", "peak", "TFLOP a step", *([f"s on {alone.card}"] if alone else [])], rungs)
    )
    header = [
        "card=",
        "memory",
        "memory=",
        "s a step",
        f"{trainer.max_steps:,} steps",
        *["cost"] * (config.price is not None),
    ]
    console.print(text_table(header, [_row(config, one) for one in found.cards]))
    console.print(
        f"predicted; {shown_size(CONTEXT)} and {MARGIN:.0%} of a card's memory are kept free; time is by what an H200's "
        "kernels reached of its data sheet"
    )
    for one in found.cards:
        if one.known.runs:
            console.print(f"{one.card}: {by_runs(one.known)} under {config.runs}/")


def _row(config: PlanConfig, one: OnCard) -> list[str]:
    cost = ["" if one.cost is None else f"{one.cost:.2f}"] * (config.price is not None)
    room = f"{CARDS[one.card].mebibytes / 1024:.0f} GiB"
    if one.rung is None or one.step_seconds is None or one.hours is None:
        within = f" {config.memory.budget}" * bool(config.memory.budget)
        return [one.card, room, f"does not fit{within}", "", "", *cost]
    return [one.card, room, one.rung, f"{one.step_seconds:.2f}", duration(3600 * one.hours), *cost]
