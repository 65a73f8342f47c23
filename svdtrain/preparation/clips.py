"""One video to its finished clips: cut, cropped, resized, encoded, measured, read back. Frame by frame."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from svdtrain.data.decoding import VideoInfo, decode_frames, every_frame, probe
from svdtrain.data.encoding import Mp4Writer
from svdtrain.preparation.duplicates import signature
from svdtrain.preparation.journal import read_done, write_done, write_whole
from svdtrain.preparation.motion import SAMPLES_PER_SECOND, WIDTH, motion_score
from svdtrain.preparation.pieces import Piece, plan
from svdtrain.preparation.quality import MOST_SAMPLES, Quality, measure
from svdtrain.preparation.records import FinishedClip, Outcome, Rejection, Source, UnusableSource
from svdtrain.preparation.scenes import ALIVE_EVERY, find_cuts
from svdtrain.preparation.sizes import Bars, Fit, bars_in_pairs, choose_bucket, cropped, resized, stored_size
from svdtrain.preparation.verification import read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from svdtrain.config.preparation import PrepareConfig

NAME = "the video"
"""Details are said of it: equal files give equal rows, whatever they are called."""
NO_BARS: Bars = (0, 0, 0, 0)


def video_clips(source: Source, config: PrepareConfig, folder: Path, alive: Callable[[], None]) -> Outcome:
    """Write the clips of a video to `folder`; `alive` is called after each stage and clip.

    DataError (UnusableSource where the reason is not damage) when nothing of it can be used; SystemFault when its clips
    cannot be written.
    """
    data = source.read()
    info = probe(data, NAME)
    fps = config.fps or info.fps
    if fps > info.fps * 1.02:
        raise UnusableSource("low_fps", f"it has {info.fps:.4g} fps, {fps:.4g} are asked for", fps=round(info.fps, 4))
    alive()
    cuts = _cuts(source, data, folder, alive) if config.scenes and info.frames > 1 else []
    alive()
    bars = _bars(data, info, config)
    alive()
    length, least = max(2, round(config.seconds * fps)), max(2, round(config.least_seconds * fps))
    clips: list[FinishedClip] = []
    rejected: list[Rejection] = []
    frames = _Frames(data, info, alive)
    for number, piece in enumerate(plan(info.times_T, cuts, fps, length)):
        if refused := _refused(piece, fps, least, config.most_repeated):
            rejected.append(refused)
            continue
        path = folder / f"{number:05d}.mp4"
        done = read_done(path)
        if done is None:
            made = _make(piece, frames, bars, fps, config)
            done = made if isinstance(made, Rejection) else _finish(made, path)
            write_done(path, done)
        rejected += [done] if isinstance(done, Rejection) else []
        clips += [done] if isinstance(done, FinishedClip) else []
        alive()
    frames.check_rest()
    return clips, rejected


def _refused(piece: Piece, fps: float, least: int, most_repeated: float) -> Rejection | None:
    """What can be said of a piece before any of it is decoded."""
    numbers: dict[str, Any] = {"frames": len(piece.places), "fps": round(fps, 4)}
    if len(piece.places) < least:
        return Rejection("too_short", piece.start, piece.end, numbers)
    if piece.repeated > most_repeated:
        return Rejection("uneven", piece.start, piece.end, numbers | {"repeated": round(piece.repeated, 4)})
    return None


class _Frames:
    """Every frame of a video once, in order, upright; asked for by ascending places."""

    def __init__(self, data: bytes, info: VideoInfo, alive: Callable[[], None]) -> None:
        self._alive = alive
        self._pictures = iter(every_frame(data, NAME))
        self._frames, self._place = info.frames, -1
        self._picture_HWC = np.empty((0, 0, 3), np.uint8)

    def at(self, place: int) -> np.ndarray:
        while self._place < place:
            self._next()
        return self._picture_HWC

    def check_rest(self) -> None:
        """Damage behind the last clip is damage too."""
        while self._place < self._frames - 1:
            self._next()

    def _next(self) -> None:
        found = next(self._pictures, None)
        if found is None:
            raise UnusableSource("damaged", f"{NAME} is damaged: {self._frames - self._place - 1} frames are missing")
        self._place, self._picture_HWC = self._place + 1, found[1]
        if self._place % ALIVE_EVERY == 0:
            self._alive()


class _Encoded:
    """An encoded clip and what was measured on the way."""

    def __init__(self, mp4: bytes, size: tuple[int, int], piece: Piece, fps: float, fit: Fit | None) -> None:
        self.mp4, self.size, self.piece, self.fps, self.fit = mp4, size, piece, fps, fit
        self.motion = 0.0
        self.signature: tuple[int, ...] = ()
        self.scores: dict[str, Any] = {}


def _make(piece: Piece, frames: _Frames, bars: Bars, fps: float, config: PrepareConfig) -> _Encoded | Rejection:
    """Encode and measure a piece in one pass. A Rejection when it fits no bucket or a measure is out of bounds."""
    count = len(piece.places)
    height, width = cropped(frames.at(piece.places[0]), bars).shape[:2]
    fit = choose_bucket(
        height, width, count, config.buckets, most_upscale=config.most_upscale, most_crop=config.most_crop
    )
    if config.buckets and fit is None:
        numbers = {"height": height, "width": width, "frames": count}
        return Rejection("no_bucket", piece.start, piece.end, numbers)
    size = stored_size(height, width, fit.bucket if fit else None, config.short_side)
    step = max(1, round(fps / SAMPLES_PER_SECOND))
    looks = set(np.unique(np.linspace(0, count - 1, MOST_SAMPLES).round().astype(int)).tolist())
    small, large = list[np.ndarray](), list[np.ndarray]()
    with Mp4Writer(*size, fps, crf=config.crf) as writer:
        for moment, place in enumerate(piece.places):
            picture_HWC = resized(cropped(frames.at(place), bars), *size)
            writer.write(picture_HWC)
            if moment % step == 0 or moment == count - 1:
                small.append(_small(picture_HWC))
            if moment in looks:
                large.append(np.array(picture_HWC))
        made = _Encoded(writer.finish(), size, piece, fps, fit)
    # The last frame stands for the signature; it is no even step from the one before.
    made.motion = motion_score(np.stack(small[: -1 if (count - 1) % step and len(small) > 2 else None]), fps / step)
    made.signature = signature(np.stack(small))
    quality = measure(np.stack(large))
    made.scores = _scores(quality, piece, bars, fit)
    return _out_of_bounds(made, quality, config) or made


def _small(picture_HWC: np.ndarray) -> np.ndarray:
    """As large as motion is measured, so that many may wait in memory."""
    height, width = picture_HWC.shape[:2]
    if width <= WIDTH:
        return np.array(picture_HWC)
    size = WIDTH, max(1, round(height * WIDTH / width))
    return cv2.resize(np.ascontiguousarray(picture_HWC), size, interpolation=cv2.INTER_AREA)


def _scores(quality: Quality, piece: Piece, bars: Bars, fit: Fit | None) -> dict[str, Any]:
    return {
        "blur": quality.blur,
        "exposure_clipped": quality.exposure_clipped,
        "black": quality.black,
        "frozen": quality.frozen,
        "repeated": round(piece.repeated, 4),
        "bars_cropped": list(bars),
        "crop_loss": fit.crop_loss if fit else None,
    }


def _out_of_bounds(made: _Encoded, quality: Quality, config: PrepareConfig) -> Rejection | None:
    """The first measure that rejects the clip."""
    bounds = {
        "black": quality.black > config.most_black,
        "frozen": quality.frozen > config.most_frozen,
        "clipped": quality.exposure_clipped > config.most_clipped,
        "blurred": quality.blur < config.least_sharpness,
        "little_motion": made.motion < config.least_motion,
        "much_motion": config.most_motion is not None and made.motion > config.most_motion,
    }
    reason = next((reason for reason, broken in bounds.items() if broken), None)
    numbers = made.scores | {"motion": made.motion, "frames": len(made.piece.places)}
    return Rejection(reason, made.piece.start, made.piece.end, numbers) if reason else None


def _finish(made: _Encoded, path: Path) -> FinishedClip | Rejection:
    """Read back and keep an encoded clip. A Rejection where the readers disagree."""
    frames = len(made.piece.places)
    try:
        verified = read_back(made.mp4, frames, "the clip")
    except UnusableSource as error:
        return Rejection(error.reason, made.piece.start, made.piece.end, {"detail": error.message})
    write_whole(path, made.mp4)
    return FinishedClip(
        file=path.name,
        bytes=len(made.mp4),
        sha256=hashlib.sha256(made.mp4).hexdigest(),
        height=made.size[0],
        width=made.size[1],
        frames=frames,
        fps=made.fps,
        start=made.piece.start,
        verified=verified,
        motion=made.motion,
        signature=made.signature,
        bucket=made.fit.bucket if made.fit else None,
        scores=made.scores,
    )


def _bars(data: bytes, info: VideoInfo, config: PrepareConfig) -> Bars:
    """The black bars that all the video has on both sides. UnusableSource where they are to be rejected."""
    if config.letterbox == "keep":
        return NO_BARS
    places = np.unique(np.linspace(0, info.frames - 1, MOST_SAMPLES).round().astype(int)).tolist()
    frames_THWC = decode_frames(data, places, NAME, info)
    bars = bars_in_pairs(measure(frames_THWC).letterbox, *frames_THWC.shape[1:3])
    if config.letterbox == "reject" and any(bars):
        top, bottom, left, right = bars
        raise UnusableSource("letterbox", "it has black bars", top=top, bottom=bottom, left=left, right=right)
    return bars


def _cuts(source: Source, data: bytes, folder: Path, alive: Callable[[], None]) -> list[float]:
    with _as_file(source, data, folder) as path:
        return find_cuts(path, NAME, alive)


@contextmanager
def _as_file(source: Source, data: bytes, folder: Path) -> Generator[Path]:
    if source.offset is None:
        yield source.path
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".source-") as file:
            file.write(data)
            file.flush()
            yield Path(file.name)
