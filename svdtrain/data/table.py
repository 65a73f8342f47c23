"""A list of clips in columns: about 200 bytes a clip, so that a million of them start in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from svdtrain.data.clip import Clip, Place, Shard
from svdtrain.data.index import HINT, LARGEST_VIDEO, STILL_EXTENSIONS, explain, medium
from svdtrain.foundation.errors import DataError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from svdtrain.data.index import Row

UNKNOWN = bytes(32)
NUMBERS = {
    "offset": np.int64,
    "size": np.int64,
    "text_offset": np.int64,
    "text_size": np.int64,
    "fps": np.float64,
    "frames": np.int32,
    "height": np.int32,
    "width": np.int32,
    "motion": np.float32,
    "bucket": np.int32,
    "still": np.bool_,
    "verified": np.bool_,
}


class Strings(Sequence[str]):
    """Many strings in one blob of bytes."""

    def __init__(self, strings: Sequence[str]) -> None:
        whole = "".join(strings)
        pieces = strings if whole.isascii() else [string.encode("utf-8", "surrogateescape") for string in strings]
        self.blob = whole.encode("utf-8", "surrogateescape")
        self.ends_N = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))

    @classmethod
    def joined(cls, parts: Sequence[Strings]) -> Strings:
        """One after the other."""
        whole = cls(())
        whole.blob = b"".join(part.blob for part in parts)
        starts = np.cumsum([0, *(len(part.blob) for part in parts)])
        ends = [part.ends_N + start for part, start in zip(parts, starts, strict=False)]
        whole.ends_N = np.concatenate(ends) if ends else whole.ends_N
        return whole

    def __len__(self) -> int:
        return len(self.ends_N)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        start = int(self.ends_N[index - 1]) if index else 0
        return self.blob[start : int(self.ends_N[index])].decode("utf-8", "surrogateescape")


@dataclass(frozen=True, eq=False)
class Columns:
    """What all tables of a dataset share. A number that is not known is 0 (frames, sizes), -1 (bucket) or nan."""

    shards: tuple[Shard, ...]
    buckets: tuple[tuple[int, int, int], ...]
    shard_N: np.ndarray
    source_N: np.ndarray
    """Which entry of data.source it came by."""
    numbers: dict[str, np.ndarray]
    sha256_N: np.ndarray
    """uint8 [N, 32], all zero where it is not known."""
    keys: Strings
    sources: Strings
    captions: Strings


class ClipTable(Sequence[Clip]):
    """Some clips of the columns, in an order."""

    def __init__(self, columns: Columns, rows_N: np.ndarray) -> None:
        self.columns, self.rows_N = columns, rows_N

    def __len__(self) -> int:
        return len(self.rows_N)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> ClipTable: ...
    def __getitem__(self, index: int | slice) -> Clip | ClipTable:
        """A Clip, made now; or a table of some rows."""
        if isinstance(index, slice):
            return ClipTable(self.columns, self.rows_N[index])
        columns, row = self.columns, int(self.rows_N[index])
        number = {name: column[row].item() for name, column in columns.numbers.items()}
        text = Place(number["text_offset"], number["text_size"])
        digest = columns.sha256_N[row].tobytes()
        return Clip(
            key=columns.keys[row],
            shard=columns.shards[columns.shard_N[row]],
            offset=number["offset"],
            size=number["size"],
            source=columns.sources[row],
            fps=None if np.isnan(number["fps"]) else number["fps"],
            frames=number["frames"] or None,
            picture=(number["height"], number["width"]) if number["height"] and number["width"] else None,
            motion_bucket_id=None if np.isnan(number["motion"]) else number["motion"],
            still=number["still"],
            verified=number["verified"],
            bucket=None if number["bucket"] < 0 else columns.buckets[number["bucket"]],
            sha256=None if digest == UNKNOWN else digest.hex(),
            caption=columns.captions[row] or None,
            text=text if text.offset else None,
        )

    def where(self, chosen_N: np.ndarray) -> ClipTable:
        """The rows for which a boolean is true."""
        return ClipTable(self.columns, self.rows_N[chosen_N])

    def number(self, name: str) -> np.ndarray:
        """A column of numbers, by a name of NUMBERS."""
        return self.columns.numbers[name][self.rows_N]

    @property
    def shard_N(self) -> np.ndarray:
        """Each clip's shard, as a place in `columns.shards`."""
        return self.columns.shard_N[self.rows_N]

    @property
    def source_N(self) -> np.ndarray:
        """Each clip's entry of data.source."""
        return self.columns.source_N[self.rows_N]

    def every_key(self) -> Iterator[str]:
        """Each clip's key."""
        return (self.columns.keys[row] for row in self.rows_N)

    def every_source(self) -> Iterator[str]:
        """Each clip's source video."""
        return (self.columns.sources[row] for row in self.rows_N)


class TableBuilder:
    """Collects the rows of shards."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        self.buckets: dict[tuple[int, int, int], int] = {}
        self._arrays: dict[str, list[np.ndarray]] = {
            name: [] for name in ("shard", "source", "sha256", "hash", *NUMBERS)
        }
        self._strings: dict[str, list[Strings]] = {name: [] for name in ("key", "source", "caption")}

    def add(
        self, shard: Shard, rows: Sequence[Row], *, source: int = 0, size: int | None = None, stills: bool = True
    ) -> int:
        """The clips of one shard, which has `size` bytes; how many pictures were left out, for stills were not asked for.

        DataError for a row that is not as IndexRow states it, or points out of the shard.
        """
        try:
            media = [medium(row["members"]) for row in rows]
            left_out = 0 if stills else sum(extension in STILL_EXTENSIONS for extension in media)
            if left_out:
                media = [None if extension in STILL_EXTENSIONS else extension for extension in media]
            clips = [row for row, extension in zip(rows, media, strict=True) if extension]
            arrays, strings = self._columns(clips, [extension for extension in media if extension])
            wrong = _out_of_range(arrays)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            explain(rows, shard)
            raise
        if wrong:
            explain(rows, shard)
        _check_places(shard, clips, arrays["offset"], arrays["size"], size)
        arrays["shard"] = np.full(len(clips), len(self.shards), np.int32)
        arrays["source"] = np.full(len(clips), source, np.int16)
        for name, array in arrays.items():
            self._arrays[name].append(array)
        for name, column in strings.items():
            self._strings[name].append(column)
        self.shards.append(shard)
        return left_out

    def table(self) -> ClipTable:
        """All clips. Keys that several shards use are told apart by folder and shard."""
        # Column by column, so that no more than one of them is in memory twice.
        arrays = {name: np.concatenate(self._arrays.pop(name)) for name in list(self._arrays)}
        strings = {name: Strings.joined(self._strings.pop(name)) for name in list(self._strings)}
        shard_N = arrays["shard"]
        columns = Columns(
            tuple(self.shards),
            tuple(self.buckets),
            shard_N,
            arrays["source"],
            {name: arrays[name] for name in NUMBERS},
            arrays["sha256"],
            _unique(strings["key"], arrays["hash"], lambda row: self.shards[shard_N[row]]),
            strings["source"],
            strings["caption"],
        )
        return ClipTable(columns, np.arange(len(shard_N), dtype=np.int32))

    def _columns(self, rows: list[Row], media: list[str]) -> tuple[dict[str, np.ndarray], dict[str, Strings]]:
        def column(name: str, missing: float) -> np.ndarray:
            """Of what the rows call otherwise: motion_bucket_id."""
            found = [missing if (value := row.get(name)) is None else value for row in rows]
            return np.array(found, NUMBERS["motion" if name == "motion_bucket_id" else name])

        places = np.array([row["members"][extension] for row, extension in zip(rows, media, strict=True)], np.int64)
        texts = np.array([row["members"].get("txt", (0, 0)) for row in rows], np.int64)
        (offset, size), (text_offset, text_size) = places.reshape(-1, 2).T, texts.reshape(-1, 2).T
        digests = bytes.fromhex("".join([row.get("sha256") or UNKNOWN.hex() for row in rows]))
        arrays = {
            "offset": offset,
            "size": size,
            "text_offset": text_offset,
            "text_size": text_size,
            "fps": column("fps", float("nan")),
            "frames": column("frames", 0),
            "height": column("height", 0),
            "width": column("width", 0),
            "motion": column("motion_bucket_id", float("nan")),
            "bucket": np.array([-1 if (b := row.get("bucket")) is None else self._bucket(b) for row in rows], np.int32),
            "still": np.array([extension in STILL_EXTENSIONS for extension in media], np.bool_),
            "verified": np.array([row.get("verified") is True for row in rows], np.bool_),
            "sha256": np.frombuffer(digests, np.uint8).reshape(len(rows), 32),
            "hash": np.array([hash(row["key"]) for row in rows], np.int64),
        }
        strings = {
            "key": Strings([row["key"] for row in rows]),
            "source": Strings([row.get("source") or row["key"] for row in rows]),
            "caption": Strings([row.get("caption") or "" for row in rows]),
        }
        return arrays, strings

    def _bucket(self, bucket: Sequence[Any]) -> int:
        height, width, frames = bucket
        if not all(isinstance(side, int) and 0 < side <= 1 << 16 for side in bucket):
            raise ValueError(bucket)
        return self.buckets.setdefault((height, width, frames), len(self.buckets))


def _out_of_range(arrays: dict[str, np.ndarray]) -> bool:
    """Whether any number is one that `explain` refuses."""
    fps_N, motion_N = arrays["fps"], arrays["motion"]
    places = np.concatenate([arrays[name] for name in ("offset", "size", "text_offset", "text_size", "frames")])
    return bool(
        (places < 0).any()
        or (fps_N <= 0).any()
        or (fps_N > 1e5).any()
        or (motion_N < 0).any()
        or (motion_N > 255).any()
    )


def _check_places(
    shard: Shard, rows: Sequence[Row], offset_N: np.ndarray, size_N: np.ndarray, shard_size: int | None
) -> None:
    wrong_N = (size_N < 1) | (size_N > LARGEST_VIDEO)
    if wrong_N.any():
        row = int(wrong_N.argmax())
        message = f"clip '{shown(rows[row]['key'])}' in {shard} has {size_N[row]:,} bytes"
        raise DataError(message, f"a clip has between 1 and {LARGEST_VIDEO:,} bytes: cut it")
    if shard_size is not None and (beyond_N := offset_N + size_N > shard_size).any():
        key = rows[int(beyond_N.argmax())]["key"]
        raise DataError(f"the index of {shard} puts clip '{shown(key)}' behind its end at byte {shard_size:,}", HINT)


def _unique(keys: Strings, hashes_N: np.ndarray, shard_of: Callable[[int], Shard]) -> Strings:
    """The keys, with the shard's name (its whole path where that is not enough) before those that are used twice."""
    order_N = np.argsort(hashes_N, kind="stable")
    again_N = hashes_N[order_N[1:]] == hashes_N[order_N[:-1]]
    alike = np.union1d(order_N[1:][again_N], order_N[:-1][again_N]).tolist()
    counts = Counter(keys[row] for row in alike)
    rows = [row for row in alike if counts[keys[row]] > 1]
    named = {row: f"{shard_of(row).label}/{keys[row]}" for row in rows}
    if len(set(named.values())) < len(rows):
        named = {row: f"{shard_of(row)}/{keys[row]}" for row in rows}
    for name, count in Counter(named.values()).items():
        if count > 1:
            raise DataError(f"clip '{shown(name)}' is listed twice", HINT)
    return Strings([named.get(row, key) for row, key in enumerate(keys)]) if rows else keys
