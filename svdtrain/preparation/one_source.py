"""The work on one source, in whatever process: a pure function of its bytes and the settings, kept in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
from av.error import FFmpegError

from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.preparation.clips import video_clips
from svdtrain.preparation.journal import ROOM
from svdtrain.preparation.records import REASONS, Rejection, Source, SourceResult
from svdtrain.preparation.stills import still_clip

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.config.preparation import PrepareConfig
    from svdtrain.preparation.journal import Journal


def prepare_source(
    source: Source, alive: Callable[[], None], *, config: PrepareConfig, journal: Journal
) -> SourceResult:
    """What becomes of a source: from the journal where it is done already, else made and written there.

    A source that cannot be used is a result too. SystemFault when nothing can be written.
    """
    cv2.setNumThreads(1)
    digest = source.hash()
    alive()
    if (done := journal.read(source.kind, digest)) and not done.passing:
        return done
    folder = journal.clips(source.kind, digest)
    try:
        if source.kind == "video":
            clips, rejected = video_clips(source, config, folder, alive)
        else:
            clips, rejected = still_clip(source, config, folder)
        result = SourceResult(digest, tuple(clips), tuple(rejected))
    except DataError as error:
        reason = error.reason if error.reason in REASONS else "damaged"
        result = refused(digest, reason, error.message, **getattr(error, "numbers", {}))
    except FFmpegError as error:  # the encoder's; the readers have their own words
        result = refused(digest, "damaged", f"it cannot be encoded: {error.strerror}")
    except OSError as error:  # the source's own are said already
        raise SystemFault(f"{folder} cannot be written: {error.strerror or error}", ROOM) from error
    journal.write(source.kind, result)
    return result


def refused(digest: str, reason: str, detail: str, **numbers: float) -> SourceResult:
    """A source of which nothing is used."""
    return SourceResult(digest, (), (Rejection(reason, numbers={"detail": detail, **numbers}),))
