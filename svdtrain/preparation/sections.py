"""The chapters of the inspection page, from what was surveyed and seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from svdtrain.preparation.advice import scale_and_loss, target_of, used
from svdtrain.preparation.records import REASONS
from svdtrain.preparation.survey import equal_clips
from svdtrain.reporting.charts import counted, distribution, number, tally
from svdtrain.reporting.page import Section, Sheet, Strip, Table, Tile, strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.preparation.advice import Wanted
    from svdtrain.preparation.looks import Look
    from svdtrain.preparation.survey import Row, Survey

NAMES = {
    "motion": ("Motion", "mean optical flow in % of the width per second"),
    "blur": ("Sharpness", "variance of the Laplacian: low is blurred"),
    "exposure_clipped": ("Clipped pixels", "share that is fully dark or fully bright"),
    "black": ("Black frames", "share of frames"),
    "frozen": ("Frozen steps", "share of steps that change nothing"),
    "repeated": ("Repeated frames", "share of frames that the source did not have"),
    "crop_loss": ("Cropped by the bucket", "share of the picture"),
}
EXTREMES = 3
MOST_LISTED = 40
MOST_GROUPS = 12


def tiles(survey: Survey) -> tuple[Tile, ...]:
    """The numbers at the head of the page."""
    rows = survey.rows
    splits = Counter(row.split for row in rows)
    seconds = sum(row.seconds or 0 for row in rows)
    sources = len({row.source for row in rows})
    folder = survey.kind == "folder"
    stills = sum(row.still for row in rows)
    found = [
        Tile(
            "Files" if folder else "Clips",
            f"{len(rows):,}",
            f"with {counted(stills, 'still')}" if stills else "" if folder else f"from {counted(sources, 'source')}",
        )
    ]
    if not folder:
        found.append(Tile("To train on", f"{splits['train']:,}", f"{splits['held_out']:,} held out"))
    found.append(Tile("Length", _duration(seconds), f"on disk {_size(sum(row.place.size for row in rows))}"))
    if survey.kind == "dataset":
        kept = len(rows) / max(1, len(rows) + len(survey.rejected))
        found.append(Tile("Rejected", f"{len(survey.rejected):,}", f"{kept:.0%} were kept"))
    if not folder:
        share = sum(row.verified for row in rows) / max(1, len(rows))
        found.append(Tile("Verified", f"{share:.0%}", counted(survey.shards, "shard")))
    captioned = sum(bool(row.caption) for row in rows)
    found.append(Tile("Captioned", f"{captioned / max(1, len(rows)):.0%}" if captioned else "none"))
    return tuple(found)


def distributions(survey: Survey, looks: Sequence[Look]) -> Section:
    """Histograms of size, rate, length, motion and the scores."""
    rows = survey.rows
    charts = [tally("Picture size", [f"{row.size[1]}×{row.size[0]}" for row in rows if row.size])]
    columns: list[tuple[str, list[float], str]] = [
        ("Frames per second", [round(row.fps, 2) for row in rows if row.fps and not row.still], "fps"),
        ("Length", [row.seconds for row in rows if row.seconds], "s"),
        ("Motion bucket id", [row.motion_bucket_id for row in rows if row.motion_bucket_id is not None], ""),
        ("Length of the caption", [len(row.caption) for row in rows if row.caption], "characters"),
    ]
    indexed = any(row.scores for row in rows)
    scored = [row.scores for row in rows] if indexed else [look.scores for look in looks]
    columns[2:2] = [
        (name, [scores[key] for scores in scored if key in scores], "")
        for key, (name, _) in NAMES.items()
        if key in ("motion", "blur")
    ]
    charts += [distribution(title, values, unit) for title, values, unit in columns if values]
    unknown = sum(row.size is None for row in rows)
    intro = f"Over {len(rows):,} {'files' if survey.kind == 'folder' else 'clips'}."
    if unknown:
        intro += f" Sizes are those of the {len(rows) - unknown:,} whose headers were read."
    if not indexed and looks and survey.kind != "folder":
        intro += f" Motion and sharpness were measured on {len(looks):,} of them."
    return Section("distributions", "Distributions", intro, charts=tuple(charts))


def buckets(survey: Survey, wanted: Wanted) -> Section:
    """What the trainer makes of the pictures: sizes, batches and what is cropped away."""
    groups: dict[tuple[int, int, int], list[Row]] = {}
    for row in used(survey, wanted):
        if row.split != "held_out":
            groups.setdefault(target_of(row, wanted), []).append(row)
    lines: list[tuple[str, ...]] = []
    for (height, width, frames), rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        fits = [fit for row in rows if (fit := scale_and_loss(row, wanted))]
        losses = [loss for _, loss in fits]
        lines.append(
            (
                f"{width}×{height}",
                f"{frames}",
                f"{len(rows):,}",
                f"{len(rows) / sum(map(len, groups.values())):.0%}",
                f"{len(rows) / wanted.batch_size:,.1f}",
                f"{sum(losses) / len(losses):.1%}" if losses else "–",
                f"{max(losses):.1%}" if losses else "–",
                f"{sum(scale > 1.01 for scale, _ in fits):,}" if fits else "–",
            )
        )
    columns = ("Size", "Frames", "Clips", "Share", "Batches an epoch", "Mean crop", "Largest crop", "Enlarged")
    intro = (
        "Each clip is resized until it covers its size, and cropped at the centre. "
        f"A batch takes {wanted.batch_size:,} {'clip' if wanted.batch_size == 1 else 'clips of one size'}."
    )
    table = Table(columns, tuple(lines), frozenset(columns[1:]))
    return Section("buckets", "Sizes and cropping", intro, tables=(table,))


def refusals(survey: Survey) -> Section | None:
    """What no reader takes, and the mend of each."""
    if not survey.refused:
        return None
    lines = tuple((name, error.message, error.hint) for name, error in survey.refused[:MOST_LISTED])
    more = len(survey.refused) - len(lines)
    table = Table(("Clip or file", "What is wrong", "Mend"), lines, note=f"{more:,} more." if more else "")
    return Section("refused", "Cannot be read", f"{len(survey.refused):,} in all.", tables=(table,))


def rejections(survey: Survey) -> Section | None:
    """What prepare left out, and why."""
    if not survey.rejected:
        return None
    rows = [(REASONS.get(str(row.get("reason")), str(row.get("reason"))), row) for row in survey.rejected]
    chart = tally("Reasons", [reason.replace("(s)", "s") for reason, _ in rows], most=12)
    lines = [
        (reason.replace("(s)", ""), str(row.get("source", "")), _span(row), _numbers(row))
        for reason, row in rows[:MOST_LISTED]
    ]
    more = len(rows) - len(lines)
    note = f"{more:,} more stand in rejected.jsonl." if more else "The same rows stand in rejected.jsonl."
    table = Table(("Reason", "Source", "Seconds", "What was found"), tuple(lines), frozenset({"Seconds"}), note)
    intro = f"What is in no shard: {len(rows):,} in all."
    if survey.kind == "folder":
        intro, table = (
            "What prepare would not open, by name and kind alone.",
            replace(table, note=f"{more:,} more." if more else ""),
        )
    return Section("rejected", "Set aside", intro, charts=(chart,), tables=(table,))


def extremes(looks: dict[str, Look], chosen: dict[str, tuple[list[str], list[str]]]) -> Section | None:
    """For each score, the clips with the lowest and with the highest."""
    sheets: list[Sheet] = []
    for score, (lowest, highest) in chosen.items():
        name, unit = NAMES[score]
        for side, keys in (("lowest", lowest), ("highest", highest)):
            strips = tuple(_strip(looks[key], score) for key in keys if key in looks)
            if strips:
                sheets.append(Sheet(f"{name}, {side}", strips, unit))
    intro = "First, middle and last frame. What stands out here is what a bound of prepare would take away."
    return Section("extremes", "Lowest and highest", intro, sheets=tuple(sheets)) if sheets else None


def choose_extremes(rows: Sequence[Row], looks: Sequence[Look]) -> dict[str, tuple[list[str], list[str]]]:
    """{score: (keys with the lowest, keys with the highest)} of scores that differ, from the index where it has them."""
    scored = [(row.key, row.scores) for row in rows if row.scores] or [(look.row.key, look.scores) for look in looks]
    chosen: dict[str, tuple[list[str], list[str]]] = {}
    for score in NAMES:
        values = sorted((scores[score], key) for key, scores in scored if score in scores)
        if len(values) > 1 and values[0][0] < values[-1][0]:
            count = min(EXTREMES, len(values) // 2)
            lowest, highest = values[:count], values[: -count - 1 : -1]
            chosen[score] = ([key for _, key in lowest], [key for _, key in highest])
    return chosen


def samples(looks: Sequence[Look], *, folder: bool) -> Section | None:
    """Clips spread over the dataset, with their captions."""
    if not looks:
        return None
    strips = tuple(_strip(look) for look in looks)
    if folder:
        return Section(
            "samples", "A look inside", "The first frame of files all over the folder.", sheets=(Sheet("", strips),)
        )
    intro = "First, middle and last frame of clips all over the dataset."
    return Section("samples", "A look inside", intro, sheets=(Sheet("", strips),))


def duplicates(survey: Survey, looks: dict[str, Look], near: Sequence[Sequence[str]], compared: int) -> Section:
    """Groups of clips that are equal or look the same, and what prepare took out as such."""
    equal = equal_clips(survey.rows)
    split = {row.key: row.split for row in survey.rows}
    lines: list[tuple[str, ...]] = []
    for what, groups in (("equal bytes", equal), ("look alike", near)):
        for group in groups[:MOST_LISTED]:
            where = " and ".join(sorted({(split.get(key) or "").replace("_", " ") for key in group}, reverse=True))
            lines.append((what, f"{len(group):,}", where, ", ".join(group[:6]) + (", …" if len(group) > 6 else "")))
    tables = (Table(("Kind", "Clips", "Split", "Keys"), tuple(lines), frozenset({"Clips"})),) if lines else ()
    seen = [group for group in (*near, *equal) if any(key in looks for key in group)][:MOST_GROUPS]
    sheets = tuple(
        Sheet(f"Group {place}", tuple(_strip(looks[key]) for key in group[:EXTREMES] if key in looks))
        for place, group in enumerate(seen, 1)
    )
    removed = sum(row.get("reason") == "duplicate" for row in survey.rejected)
    intro = f"{counted(len(equal), 'group')} of equal clips; {counted(len(near), 'group')} that look alike among {compared:,}."
    if removed:
        intro += f" prepare had taken out {counted(removed, 'duplicate')} before."
    return Section("duplicates", "Duplicates", intro, tables=tables, sheets=sheets)


def _strip(look: Look, first: str = "") -> Strip:
    """`first`: the score that is told before the others."""
    row = look.row
    facts = [f"{row.size[1]}×{row.size[0]}" if row.size else ""]
    if first:
        facts.insert(0, f"{NAMES[first][0].lower()} {number(look.scores[first])}")
    if row.still:
        facts.append("still")
    elif row.frames and row.fps:
        facts += [f"{row.frames} frames", f"{number(round(row.fps, 2))} fps"]
    if "motion" in look.scores and first != "motion":
        facts.append(f"motion {number(look.scores['motion'])}")
    if row.split == "held_out":
        facts.append("held out")
    return strip(look.frames_THWC, row.key, tuple(filter(None, facts)), row.caption or "", height=96)


def _span(row: dict[str, Any]) -> str:
    start, end = row.get("start"), row.get("end")
    if not isinstance(start, int | float):
        return "all"
    return f"{start:.2f} – {end:.2f}" if isinstance(end, int | float) else f"{start:.2f}"


def _numbers(row: dict[str, Any]) -> str:
    known = {key: value for key, value in row.items() if key not in ("source", "start", "end", "reason", "detail")}
    words = [f"{key.replace('_', ' ')} {_value(value)}" for key, value in known.items() if value is not None]
    detail = row.get("detail")
    return "; ".join([*([str(detail)] if detail else []), *words[:6]])


def _value(value: object) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return number(value)
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        value /= 1000
    return f"{value:,.2f} TB"
