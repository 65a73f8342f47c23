"""Encodings of clips on disk: tars of safetensors, one per data shard, beside the recipe that made them.

A clip is encoded once for all of its windows: where frames are encoded each by itself, windows share their rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from svdtrain.data.clip import begun_with
from svdtrain.foundation.errors import DataError, SystemFault, shown
from svdtrain.foundation.files import replacing, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from svdtrain.data.clip import Clip

RECIPE, INDEX = "recipe.json", "{}.latents.idx.jsonl"
ENCODED = ("mean_RCHW", "logvar_RCHW", "embeddings_KLD")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CacheRecipe:
    """Everything that decides what an entry holds, besides the clip itself."""

    model: str
    encoders: str
    """Fingerprint of the frozen encoders' weights."""
    frames: int
    height: int
    width: int
    buckets: bool
    """Clips at the sizes that preparation assigned, instead of these."""
    fps: float | None
    windows: int | None
    """Places in a clip where a training window may start; None: wherever it fits."""
    flip: bool
    """Mirrored clips are encoded as well: a mirrored latent is not the latent of the mirrored clip."""
    captions: bool
    dtype: str
    trigger: str = ""
    """Before every caption."""
    format: int = 1

    def entry_id(self, clip: Clip, *, flip: bool) -> str:
        """sha256 over this recipe and the clip: by its own sha256, or else its place in a shard as it was last changed."""
        content = clip.sha256 or [clip.shard.label, clip.shard.changed(), clip.key, clip.offset, clip.size]
        bucket = clip.bucket if self.buckets else None
        caption = begun_with(self.trigger, clip.read_caption()) if self.captions else ""
        what = [asdict(self), content, bucket, caption, flip]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


class CachedWindow(NamedTuple):
    """One training window of a clip; encodings in fp32."""

    start: float
    """Seconds from the clip's first frame."""
    fps: float
    image_CHW: Tensor
    """uint8, the first frame."""
    mean_TCHW: Tensor
    logvar_TCHW: Tensor
    embedding_LD: Tensor


@dataclass(frozen=True)
class LatentEntry:
    """One clip (or its mirror image) as the frozen encoders see it."""

    mean_RCHW: Tensor
    """Of the VAE's posterior, in its own scale: R latent frames."""
    logvar_RCHW: Tensor
    rows_KT: Tensor
    """int64, the latent frames of each window."""
    starts_K: Tensor
    """float64 seconds at which windows begin, ascending."""
    fps: Tensor
    """float64 [1], the rate at which frames are taken."""
    images_KCHW: Tensor
    """uint8 first frames of the windows: the noise-augmented condition is encoded afresh at every step."""
    embeddings_KLD: Tensor
    """Of those frames, by the condition encoder."""

    def fault(self) -> str:
        """Empty, or which of its tensors does not go with the others."""
        rows, windows = len(self.mean_RCHW), len(self.starts_K) if self.starts_K.ndim == 1 else 0
        right = {
            "mean_RCHW": self.mean_RCHW.ndim == 4 and self.mean_RCHW.is_floating_point(),
            "logvar_RCHW": self.logvar_RCHW.shape == self.mean_RCHW.shape and self.logvar_RCHW.is_floating_point(),
            "starts_K": windows > 0 and self.starts_K.dtype == torch.float64,
            "rows_KT": self.rows_KT.ndim == 2 and self.rows_KT.dtype == torch.int64 and len(self.rows_KT) == windows,
            "fps": self.fps.shape == (1,) and bool(self.fps > 0),
            "images_KCHW": self.images_KCHW.ndim == 4 and len(self.images_KCHW) == windows,
            "embeddings_KLD": self.embeddings_KLD.ndim == 3 and len(self.embeddings_KLD) == windows,
        }
        wrong = next((name for name, is_right in right.items() if not is_right), "")
        return wrong or ("" if bool(((self.rows_KT >= 0) & (self.rows_KT < rows)).all()) else "rows_KT")

    def window(self, place: float) -> CachedWindow:
        """The window that `place` in [0, 1] leads to: the very one that choose_times answers with."""
        k = min(int(place * len(self.starts_K)), len(self.starts_K) - 1)
        rows_T = self.rows_KT[k]
        parts = self.mean_RCHW[rows_T], self.logvar_RCHW[rows_T], self.embeddings_KLD[k]
        mean_TCHW, logvar_TCHW, embedding_LD = (part.float() for part in parts)
        return CachedWindow(
            float(self.starts_K[k]), float(self.fps), self.images_KCHW[k], mean_TCHW, logvar_TCHW, embedding_LD
        )


@dataclass
class _Place:
    """A line of an index: where an entry stands."""

    key: str
    offset: Annotated[int, Field(ge=0, lt=2**62)]
    size: Annotated[int, Field(ge=0, lt=2**62)]
    sha256: str


@dataclass
class _Refused:
    """Or why there is none."""

    key: str
    reason: str
    refused: str
    """The message."""


_ROW = TypeAdapter[_Place | _Refused](_Place | _Refused)


class LatentCache:
    """A folder of cached entries, opened only by the recipe that made it. Holds no open file: may cross into workers."""

    def __init__(self, folder: Path, recipe: CacheRecipe) -> None:
        """Make the folder or open it. DataError says field by field how another recipe's cache differs."""
        self.folder, self.recipe = folder, recipe
        self.places: dict[str, tuple[str, int, int, str]] = {}
        """Entry id -> (tar, offset, size, sha256)."""
        self.refused: dict[str, tuple[str, str]] = {}
        """Entry id -> (reason, message) of a clip that could not be used."""
        file = folder / RECIPE
        if not file.exists():
            write_atomic(file, json.dumps(asdict(recipe), indent=2) + "\n")
            return
        try:
            found = dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{file} cannot be read: {shown(str(error))}", "delete the folder, and it is made again"
            ) from error
        wanted = asdict(recipe)
        changes = [f"{k} was {shown(repr(found.get(k)))}, now {v!r}" for k, v in wanted.items() if found.get(k) != v]
        if changes:
            raise DataError(
                f"the cache {folder} is stale: {shown('; '.join(changes), 150)}",
                "delete it to make it again, or name another folder with data.cache_dir=",
            )
        for index in sorted(folder.glob(INDEX.format("*"))):
            if not index.name.startswith("."):  # another process writes it, or was killed before it had
                self._read_index(index)

    def __contains__(self, key: str) -> bool:
        """Whether an entry is here, or it is known that there is none."""
        return key in self.places or key in self.refused

    def write_shard(self, shard: str, entries: Iterable[tuple[str, LatentEntry | DataError]]) -> int:
        """All entries of one data shard; returns how many. Appears whole or not at all, the same bytes each time.

        Instead of an entry: why there is none.
        """
        tar_path, rows = self.folder / f"{shard}.latents.tar", list[str]()
        with replacing(tar_path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (key, entry) in enumerate(entries):
                if isinstance(entry, DataError):
                    rows.append(json.dumps({"key": key, "reason": entry.reason, "refused": entry.message}))
                    continue
                content = _to_bytes(entry, DTYPES[self.recipe.dtype])
                member = tarfile.TarInfo(f"{number:06d}.latent.safetensors")
                member.size = len(content)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(member, io.BytesIO(content))
                digest = hashlib.sha256(content).hexdigest()
                rows.append(json.dumps({"key": key, "offset": offset, "sha256": digest, "size": len(content)}))
        index = self.folder / INDEX.format(shard)
        write_atomic(index, "".join(f"{row}\n" for row in rows))
        self._read_index(index)
        return len(rows)

    def read(self, key: str) -> LatentEntry:
        """An entry, checked. DataError names the file when it is damaged or holds what no encoder gives.

        Also for a clip that could not be used, and for one that is not here.
        """
        if key in self.refused:
            reason, message = self.refused[key]
            raise DataError(shown(message, 200), "remove the clip, or data.on_bad_sample=skip", reason)
        if key not in self.places:
            raise DataError(f"the cache {self.folder} has no entry '{key}'", "python -m svdtrain cache makes it")
        file, offset, size, digest = self.places[key]
        path = self.folder / file
        try:
            with path.open("rb") as tar:
                tar.seek(offset)
                content = tar.read(size)
        except OSError as error:
            raise DataError(
                f"{path}: the entry '{shown(key)}' cannot be read: {error.strerror}", "is it still there?"
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(
                f"{path} is damaged: the entry '{shown(key)}' has changed", f"delete {path}, and it is made again"
            )
        try:
            entry = LatentEntry(**load_tensors(content))
            fault = entry.fault()
        except (SafetensorError, TypeError) as error:
            entry, fault = None, str(error)
        if entry is None or fault:
            message = f"{path}: the entry '{shown(key)}' is none: {shown(fault)}"
            raise DataError(message, f"delete {path}, and it is made again")
        for name in ENCODED:
            if not bool(torch.isfinite(getattr(entry, name)).all()):
                raise DataError(f"{path}: {name} of '{key}' is not finite", f"delete {path}; data.cache_dtype=float32")
        return entry

    def _read_index(self, index: Path) -> None:
        tar = index.name.removesuffix(".idx.jsonl") + ".tar"
        try:
            rows = [_ROW.validate_json(line) for line in index.read_bytes().splitlines()]
            ends = [row.offset + row.size for row in rows if isinstance(row, _Place)]
            if not (self.folder / tar).is_file() or (self.folder / tar).stat().st_size < max(ends, default=0):
                return  # removed, or not all copied: it is to be made again
            self.refused |= {row.key: (row.reason, row.refused) for row in rows if isinstance(row, _Refused)}
            kept = [row for row in rows if isinstance(row, _Place)]
            self.places |= {row.key: (tar, row.offset, row.size, row.sha256) for row in kept}
        except (OSError, ValueError) as error:
            message = f"{index} cannot be read: {shown(' '.join(str(error).split()))}"
            raise DataError(message, f"delete {index}, and it is made again") from error


def _to_bytes(entry: LatentEntry, dtype: torch.dtype) -> bytes:
    tensors: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in vars(entry).items()}
    for name in ENCODED:
        tensors[name] = tensors[name].to(dtype)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise SystemFault(f"{name} is not finite as {dtype}", "data.cache_dtype=float32")
    return save_tensors(tensors)
