"""Where videos, drawn first frames and the contact sheet are written. Nothing is overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.space import refuse_unwritable

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


@dataclass(frozen=True)
class Outputs:
    """Files to be; those of a video and of its first frame stand at the same place."""

    videos: list[Path]
    first_frames: list[Path]
    """Beside the videos. Empty where none are drawn."""
    sheet: Path


def outputs_of(out: Path, names: Collection[str], *, drawn: bool) -> Outputs:
    """out itself for one video, else OUT/NAME.mp4.

    Raises UsageError for a file that exists, and for a wrong kind of out; SystemFault where nothing can be written.
    """
    if len(names) == 1:
        videos, sheet = [out], out.with_suffix(".png")
        if out.suffix.lower() != ".mp4":
            raise UsageError(f"out={out}: one video is written to an mp4 file", "out=NAME.mp4")
    else:
        videos, sheet = [out / f"{name}.mp4" for name in names], out / "contact_sheet.png"
        if out.suffix:
            raise UsageError(f"out={out}: {len(videos)} videos need a folder", "out=FOLDER")
    first_frames = [video.with_suffix(".first.png") for video in videos] if drawn else []
    taken = next((file for file in [*videos, *first_frames, sheet] if file.exists()), None)
    if taken:
        raise UsageError(f"out={out}: {taken} exists already", "choose another name; nothing is overwritten")
    refuse_unwritable(sheet.parent)
    return Outputs(videos, first_frames, sheet)
