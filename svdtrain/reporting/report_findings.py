"""What a run came to, as parts of its report: the verdict, losses by noise level, health, metrics of videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svdtrain.reporting.charts import counted, tally
from svdtrain.reporting.curves import Points, curves
from svdtrain.reporting.page import Paragraph, Section, Table, Tile, Verdict
from svdtrain.reporting.report_choice import CLIP
from svdtrain.reporting.tables import duration
from svdtrain.reporting.told import at, estimate, listed, number, table, text

if TYPE_CHECKING:
    from svdtrain.reporting.run_files import RunFiles

SAYS = {
    "improving": ("good", "It learnt: clips it never saw are predicted better than by the base.", ""),
    "flat": (
        "mild",
        "It changed little: clips it never saw are predicted about as well as by the base.",
        "To change more: more steps, a higher learning rate or rank, or clips that are more alike.",
    ),
    "over-fitting": (
        "serious",
        "It learns its training clips by heart: on clips it never saw it gets worse.",
        "Use an earlier step, fewer steps next time, or more clips.",
    ),
    "forgetting": (
        "serious",
        "It forgets: clips of other things are predicted worse than by the base.",
        "Use it at a lower strength; next time fewer steps or a lower learning rate.",
    ),
    "worse": (
        "serious",
        "It is worse than the base on clips that it never saw.",
        "Lower the learning rate, and look whether the clips are what they should be: python -m svdtrain inspect.",
    ),
}
UNKNOWN = (
    "mild",
    "No verdict: there is too little to judge by.",
    "With four held-out clips or more (validation.clips) the next run has one.",
)
UNFINISHED = ("mild", "The run is not finished.", "What there is so far is shown; the verdict comes with the end.")
MEAN, BASE = "val_ratio", "base"
MEANS = {MEAN: "held out", "train_ratio": "training clips", "generic_ratio": "generic clips"}


def verdict(run: RunFiles) -> Verdict:
    """The run's own; an evaluation's is said first where there is one."""
    lines: list[str] = []
    kind, best = text(run.fields, "verdict", "kind"), number(run.fields, "verdict", "best_step")
    for arm, told in table(run.evaluation, "verdicts").items():
        if arm == "adapter" or not lines:
            kind, best = text(told, "kind") or kind, number(told, "best_step")
        said = [text(told, "sentence").removeprefix(f"{kind}: "), *map(text, listed(told, "findings"))]
        lines += [f"Evaluated, {arm}: {line}." for line in said if line]
    if own := text(run.fields, "verdict", "sentence"):
        lines.append(f"While it trained: {own.removeprefix(f'{kind}: ')}.")
    state = text(run.fields, "state")
    unfinished = not kind and state not in ("", "done")
    level, says, mend = SAYS.get(kind, UNFINISHED if unfinished else UNKNOWN)
    if kind in ("over-fitting", "improving", "worse") and best is not None:
        lines.append(f"The least loss on held-out clips was at step {best:,.0f}.")
    if any("motion is lost" in line for line in lines):
        level, mend = (
            "serious",
            mend or "Lower the strength, or adapt the spatial half alone (adapter.targets=spatial).",
        )
    return Verdict(level, says, tuple(lines), mend, tuple(marks(run)))


def marks(run: RunFiles) -> list[str]:
    """What the reader must know of what he sees: damage, an unfinished run, what is missing."""
    found = [f"Damaged: {one}" for one in run.damage]
    state = text(run.fields, "state")
    if run.fields and state != "done":
        step = number(run.fields, "step") or max((points[-1][0] for points in run.curves.values()), default=0)
        of = number(run.config, "trainer", "max_steps")
        whole = f" of {of:,.0f}" if of else ""
        found.append(f"Unfinished ({state or 'it does not say in which state'}): seen up to step {step:,.0f}{whole}.")
    if run.fields and run.curves and MEAN not in run.curves:
        found.append("No held-out clips: there is no loss to compare with the base's.")
    found += [text(mark) for mark in listed(run.evaluation, "marks")]
    if absent := len(table(run.evaluation, "missing")):
        found.append(f"The evaluation is not whole: {counted(absent, 'result')} missing.")
    return [*found, *run.missing]


def tiles(run: RunFiles) -> tuple[Tile, ...]:
    """Numbers that are seen first; what is not known is left out."""
    fields, found = run.fields, list[Tile]()
    step, most = number(fields, "step"), number(run.config, "trainer", "max_steps")
    if step is not None:
        found.append(Tile("Steps", f"{step:,.0f}", f"of {most:,.0f}" if most and most != step else ""))
    if mean := run.curves.get(MEAN):
        found.append(Tile("Held-out loss", f"{mean[-1][1]:.0%}", "of the base's; less is better"))
    if (clips := number(fields, "dataset", "train_clips")) is not None:
        held_out = number(fields, "dataset", "held_out_clips") or 0
        found.append(Tile("Clips", f"{clips:,.0f}", f"and {held_out:,.0f} held out"))
    if seconds := number(fields, "speed", "training_seconds"):
        found.append(Tile("Training", duration(seconds), text(fields, "hardware")))
    model, rank = text(run.config, "model", "name"), number(run.config, "adapter", "rank")
    if model:
        kind = text(run.config, "adapter", "kind")
        found.append(Tile("Model", model, f"{kind}, rank {rank:.0f}" if rank and kind != "full" else kind))
    return tuple(found)


def losses(run: RunFiles) -> Section | None:
    """Ratios to the base, over steps."""
    if MEAN not in run.curves:
        return None
    levels: list[tuple[float, Points]] = []
    for name, points in run.curves.items():
        sigma = number({"sigma": _float(name.removeprefix(f"{MEAN}_"))}, "sigma")
        if name.startswith(f"{MEAN}_") and sigma is not None:
            levels.append((sigma, points))
    by_level = {f"noise {sigma:g}": points for sigma, points in sorted(levels)[:8]}
    means = {words: run.curves[name] for name, words in MEANS.items() if name in run.curves}
    charts = [curves("All noise levels", means, "loss as a ratio to the base's", even=1.0)]
    if by_level:
        charts.append(curves("By noise level", by_level, "loss as a ratio to the base's", even=1.0))
    clips = number(run.config, "validation", "clips")
    count = f"{clips:,.0f} " if clips else ""
    intro = (
        f"Loss on {count}held-out clips, always with the same noise, divided by the base's: 1 (dashed) is the base, less "
        "is better. High noise decides layout and motion, low noise texture and detail."
    )
    return Section("losses", "What it learnt", intro, charts=tuple(charts))


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def health(run: RunFiles) -> Section:
    """Whether the numbers held."""
    charts = []
    if norm := run.curves.get("gradient_norm"):
        charts.append(curves("Gradient norm", {"norm": norm}, "before clipping"))
    if loss := run.curves.get("loss"):
        charts.append(
            curves("Training loss", {"loss": loss}, "jumps with the noise that was drawn; held-out loss says more")
        )
    skipped, spikes = at(run.fields, "skipped_steps"), number(run.fields, "loss_spikes")
    rows = []
    if isinstance(skipped, list):
        last = f", the last {text(skipped[-1])}" if skipped else ""
        rows.append(("Steps left out", f"{len(skipped)}{last}", "loss or gradient was not finite"))
    if spikes is not None:
        rows.append(("Loss spikes", f"{spikes:,.0f}", "ten times the usual of their noise level"))
    bad = {reason: int(count) for reason, one in table(run.fields, "bad_samples").items() if (count := number(one))}
    if "bad_samples" in run.fields:
        rows.append(("Clips replaced", f"{sum(bad.values()):,}", "could not be read; others stood in for them"))
    tables = (Table(("", "times", "what it means"), tuple(rows), frozenset({"times"})),) if rows else ()
    if bad:
        labels = (reason.replace("_", " ") for reason, count in bad.items() for _ in range(min(count, 10**5)))
        charts.append(tally("Clips replaced, by reason", labels))
    quiet = rows and not skipped and not spikes and not bad
    intro = "Nothing went wrong: no step was left out, no loss jumped, no clip was replaced." if quiet else ""
    if not charts and not rows:
        intro = "Nothing is known of it: the run has logged nothing yet."
    return Section("health", "Health of the training", intro, charts=tuple(charts), tables=tables)


def metrics(run: RunFiles) -> Section | None:
    """An evaluation's losses and metrics, each with its interval."""
    if not run.evaluation:
        return None
    arms = list(table(run.evaluation, "verdicts"))[:6]
    rows = []
    for name, one in table(run.evaluation, "metrics").items():
        cells = [estimate(at(one, "arms", arm)) for arm in (CLIP, BASE)]
        for arm in arms:
            cells.append(f"{estimate(at(one, 'arms', arm))} {text(one, 'against_base', arm, 'says')}".strip())
        n = number(one, "arms", BASE, "n")
        rows.append((name.replace("_", " "), *cells, text(one, "unit"), text(one, "good"), f"{n:.0f}" if n else ""))
    ratios = [
        (f"{arm}, {group.replace('_', '-')} clips", estimate(at(told, "ratio")), text(at(told, "ratio"), "n"))
        for group, of in table(run.evaluation, "losses").items()
        for arm, told in table(of, "arms").items()
        if at(told, "ratio") is not None
    ]
    tables = []
    if ratios:
        tables.append(Table(("loss / base's", "ratio", "clips"), tuple(ratios), frozenset({"ratio", "clips"})))
    if rows:
        columns = ("metric", "clips", "base", *arms, "unit", "good is", "n")
        tables.append(Table(columns, tuple(rows), frozenset({"n"})))
    absent = [Paragraph(f"Not measured: {name}, {text(why)}.") for name, why in table(run.evaluation, "absent").items()]
    intro = (
        "Base and adapter on the same held-out clips, noise and seeds. In brackets the 95 % interval over clips; better "
        "and worse are said only where it is sure."
    )
    return Section("metrics", "Measured", intro, tables=tuple(tables), paragraphs=tuple(absent))
