"""What is wrong with a dataset for the training it is meant for, and the setting that mends it."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from svdtrain.preparation.survey import equal_clips
from svdtrain.reporting.charts import counted, number
from svdtrain.reporting.page import Advice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from svdtrain.foundation.errors import DataError
    from svdtrain.preparation.survey import Row, Survey

FEW_CLIPS = 20
MUCH = 0.25
SLACK = 1.02
"""How much slower than asked a clip may be: as the stream has it."""


@dataclass(frozen=True)
class Wanted:
    """What training will ask of every clip."""

    frames: int
    height: int
    width: int
    fps: float | None
    """None: each clip's own."""
    motion_bucket: float | None
    """None: what each clip's metadata says."""
    batch_size: int
    buckets: bool = False
    """Each clip at the size that preparation assigned."""
    stills: bool = False
    """Pictures are trained on, too."""


def target_of(row: Row, wanted: Wanted) -> tuple[int, int, int]:
    """(height, width, frames) that the trainer makes of a clip: its bucket's, or the model's."""
    target = row.bucket if row.bucket and wanted.buckets else (wanted.height, wanted.width, wanted.frames)
    return (*target[:2], 1) if row.still else target


def used(survey: Survey, wanted: Wanted) -> list[Row]:
    """The clips that training takes, held-out ones too."""
    return [row for row in survey.rows if wanted.stills or not row.still]


def scale_and_loss(row: Row, wanted: Wanted) -> tuple[float, float] | None:
    """How much a clip is scaled to cover its target, and the share of its picture that is then cropped away."""
    if row.size is None:
        return None
    height, width, _ = target_of(row, wanted)
    scale = max(height / row.size[0], width / row.size[1])
    return scale, 1 - height * width / (row.size[0] * row.size[1] * scale**2)


def advise(
    survey: Survey, wanted: Wanted, near: Sequence[Sequence[str]], refusal: DataError | None
) -> tuple[Advice, ...]:
    """Faults first. `near`: groups of near duplicates; `refusal`: why the stream gave no batch."""
    found = [*_of_reading(survey, refusal), *_of_captions(survey)]
    if survey.kind == "folder":
        found += _of_folder(survey)
    else:
        found += [*_of_counts(survey, wanted), *_of_duplicates(survey, near)]
    found += [*_of_rates(survey, wanted), *_of_sizes(used(survey, wanted), wanted), *_of_motion(survey, wanted)]
    return tuple(sorted(found, key=lambda advice: not advice.serious))


def _of_reading(survey: Survey, refusal: DataError | None) -> Iterator[Advice]:
    if refusal:
        yield Advice(True, f"Training would stop: {refusal.message}", refusal.hint)
    if survey.refused:
        what, mend = ("clip", "Listed below, each with its mend.")
        if survey.kind == "folder":
            what, mend = ("file", "Take them out, or leave it to prepare, which sets them aside. Listed below.")
        fault = f"{counted(len(survey.refused), what)} cannot be read. {survey.refused[0][1].message}"
        yield Advice(True, fault, mend)
    unverified = sum(not row.verified for row in survey.rows)
    if survey.kind != "folder" and unverified:
        share = f"{unverified:,} of {len(survey.rows):,}"
        mend = "python -m svdtrain prepare source=FOLDER out=DATASET re-encodes them and reads every frame back."
        yield Advice(False, f"{share} clips are not verified: each is examined again whenever it is read", mend)


def _of_captions(survey: Survey) -> Iterator[Advice]:
    captioned = sum(bool(row.caption) for row in survey.rows)
    if 0 < captioned < len(survey.rows):
        missing = len(survey.rows) - captioned
        first = next(row.key for row in survey.rows if not row.caption)
        mend = "Write theirs, or take all away; a model without text input does not need any."
        yield Advice(False, f"{missing:,} of {len(survey.rows):,} have no caption, the first is {first}", mend)


def _of_folder(survey: Survey) -> Iterator[Advice]:
    doubts = Counter(row.doubt for row in survey.rows if row.doubt)
    if doubts:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in doubts.most_common(4))
        mend = "Nothing is to be done: prepare decodes them exactly and re-encodes them."
        yield Advice(
            False, f"{counted(doubts.total(), 'video')} of a kind that fast readers get wrong ({reasons})", mend
        )
    yield Advice(
        False,
        "These are plain files: clips are not cut, measured or checked yet",
        f"python -m svdtrain prepare {shlex.quote(f'source={survey.source}')} out=DATASET, then inspect DATASET.",
    )


def _of_counts(survey: Survey, wanted: Wanted) -> Iterator[Advice]:
    train = [row for row in used(survey, wanted) if row.split == "train"]
    if left_out := len(survey.rows) - len(used(survey, wanted)):
        yield Advice(
            False, f"{counted(left_out, 'still')} not trained on", "data.stills=true takes them as clips of one frame."
        )
    if len(train) < FEW_CLIPS:
        mend = (
            f"{FEW_CLIPS} to 200 clips are usual for an adapter: add videos, or shorten the clips (prepare seconds=2)."
        )
        yield Advice(False, f"Only {counted(len(train), 'clip')} to train on", mend)
    sizes = Counter(target_of(row, wanted) for row in train)
    if not wanted.buckets and len({row.bucket for row in train}) > 1:
        fault = f"The dataset was prepared for buckets, and all clips are made {wanted.width}×{wanted.height}"
        yield Advice(False, fault, "data.buckets=true takes each clip at the size that it was prepared for.")
    for (height, width, frames), count in sorted(sizes.items()):
        if count < wanted.batch_size:
            yield Advice(
                False,
                f"Only {counted(count, 'clip')} of {width}×{height}×{frames}, a batch takes {wanted.batch_size:,}: "
                "some epochs have no batch of them",
                f"data.batch_size={count}, or more clips of this size, or prepare again without it.",
            )
    if len({row.source for row in survey.rows}) == 1:
        mend = "Add a second video: held-out loss then says something about videos that were not trained on."
        yield Advice(False, "All clips come from one video, the held-out ones too", mend)


def _of_duplicates(survey: Survey, near: Sequence[Sequence[str]]) -> Iterator[Advice]:
    split = {row.key: row.split for row in survey.rows}
    for what, groups in (("equal", equal_clips(survey.rows)), ("near duplicates", near)):
        across = [group for group in groups if len({split.get(key) for key in group}) > 1]
        if across:
            fault = f"{counted(len(across), 'group')} of clips that are {what}, on both sides of the held-out split"
            mend = f"Held-out loss is too good to be true: keep one of each, for example of {', '.join(across[0][:3])}."
            yield Advice(True, fault, mend)
        elif groups:
            fault = f"{counted(len(groups), 'group')} of clips that are {what}: they count several times"
            yield Advice(False, fault, "prepare with duplicate_bits=4 keeps one of each.")


def _of_rates(survey: Survey, wanted: Wanted) -> Iterator[Advice]:
    """A folder's videos are still to be cut, so that what prepare sets aside is no fault of theirs."""
    prepared = survey.kind != "folder"
    videos = [row for row in survey.rows if row.fps and not row.still]
    rates = sorted({round(row.fps or 0, 2) for row in videos})
    if not rates:
        return
    if wanted.fps is None and rates[-1] > rates[0] * SLACK:
        span = f"{number(rates[0])} to {number(rates[-1])} fps"
        mend = "Right where they show things at their true speed. "
        if any(_is_short(row, replace(wanted, fps=rates[0])) for row in videos):
            mend += "One rate for all (data.fps) would need longer clips."
        else:
            mend += f"data.fps={number(rates[0])} takes the frames of all at one rate."
        yield Advice(False, f"Clips have {len(rates)} frame rates, {span}; the model is told each clip's own", mend)
    slow = [row for row in videos if wanted.fps and wanted.fps > (row.fps or 0) * SLACK]
    if slow:
        fault = f"{counted(len(slow), 'clip')} of fewer fps than the {number(wanted.fps or 0)} asked for: {slow[0].key}"
        mend = f"data.fps={number(rates[0])}, or take them out."
        yield Advice(prepared, fault + (" …" if len(slow) > 1 else ""), mend)
    too_slow = {row.key for row in slow}
    short = [row for row in videos if _is_short(row, wanted) and row.key not in too_slow]
    if short:
        rate = f" at {number(wanted.fps)} fps" if wanted.fps else ""
        fault = f"{counted(len(short), 'clip')} shorter than {wanted.frames} frames{rate}: {short[0].key}"
        fault += " …" if len(short) > 1 else ""
        mend = "Fewer frames (model.frames), a higher rate (data.fps), or leave them out (prepare least_seconds=…)."
        yield Advice(prepared, fault, mend)


def _is_short(row: Row, wanted: Wanted) -> bool:
    if not row.frames or not row.fps:
        return False
    rate = wanted.fps or row.fps
    return row.frames < wanted.frames or (row.frames - 0.75) / row.fps < (wanted.frames - 1) / rate


def _of_sizes(rows: Sequence[Row], wanted: Wanted) -> Iterator[Advice]:
    known = [(row, fit) for row in rows if (fit := scale_and_loss(row, wanted))]
    enlarged = [row for row, (scale, _) in known if scale > 1.01]
    if enlarged:
        largest = max(scale for _, (scale, _) in known)
        fault = (
            f"{len(enlarged):,} of {len(known):,} are smaller than the model's pictures, by up to {largest:.1f} times"
        )
        yield Advice(False, fault, "The model learns their softness: use larger originals, or a smaller model.height.")
    cropped = [row for row, (_, loss) in known if loss > MUCH]
    if cropped:
        fault = f"{len(cropped):,} of {len(known):,} lose more than {MUCH:.0%} of their picture to cropping"
        mend = "prepare buckets=[[H,W,FRAMES],…] with a bucket of their shape, or another model.height and model.width."
        yield Advice(False, fault, mend)


def _of_motion(survey: Survey, wanted: Wanted) -> Iterator[Advice]:
    silent = sum(row.motion_bucket_id is None and not row.still for row in survey.rows)
    if survey.kind != "folder" and wanted.motion_bucket is None and silent:
        fault = f"{silent:,} of {len(survey.rows):,} clips have no motion bucket id: 127 is taken"
        yield Advice(False, fault, "prepare measures it; or say so: data.motion_bucket=127.")
