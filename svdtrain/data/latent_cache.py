"""Encodings of clips on disk: tars of safetensors, one per data shard, beside the recipe that made them.

A clip is encoded once for all of its windows: rows are frames, and a window takes the rows of its frames.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.files import replacing, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

RECIPE, INDEX = "recipe.json", "{}.latents.idx.jsonl"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CacheRecipe:
    """Everything that decides what an entry holds, besides the clip itself."""

    model: str
    encoders: str
    """Hash of the frozen encoders' weights."""
    dataset: str
    """Fingerprint of the manifest."""
    frames: int
    height: int
    width: int
    fps: float | None
    windows: int
    """Places in a clip where a training window may start."""
    flip: bool
    """Mirrored clips are encoded as well: a mirrored latent is not the latent of the mirrored clip."""
    dtype: str
    format: int = 1


@dataclass(frozen=True)
class LatentEntry:
    """One clip (or its mirror image) as the frozen encoders see it."""

    frames_F: Tensor
    """int64, the clip's frames that any window takes, ascending."""
    mean_FCHW: Tensor
    """Of the VAE's posterior, in its own scale."""
    logvar_FCHW: Tensor
    starts_K: Tensor
    """int64, the frames that windows begin with."""
    images_KCHW: Tensor
    """uint8 pixels of those frames: the noise-augmented condition is encoded afresh at every step."""
    embeddings_KLD: Tensor
    """Of those frames, by the condition encoder."""

    def window(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(mean [T, C, H, W], logvar, first frame uint8 [3, H, W], embedding [L, D]) of a window, in fp32."""
        rows_T = torch.searchsorted(self.frames_F, torch.tensor(indices))
        assert torch.equal(self.frames_F[rows_T.clamp(max=len(self.frames_F) - 1)], torch.tensor(indices)), indices
        [[start]] = (self.starts_K == indices[0]).nonzero().tolist()
        parts = self.mean_FCHW[rows_T], self.logvar_FCHW[rows_T], self.embeddings_KLD[start]
        mean_TCHW, logvar_TCHW, embedding_LD = (part.float() for part in parts)
        return mean_TCHW, logvar_TCHW, self.images_KCHW[start], embedding_LD


class LatentCache:
    """A folder of cached entries, opened only by the recipe that made it. Holds no open file: may cross into workers."""

    def __init__(self, folder: Path, recipe: CacheRecipe) -> None:
        """Make the folder or open it. DataError says field by field how another recipe's cache differs."""
        self.folder, self.recipe = folder, recipe
        self.places: dict[str, tuple[str, int, int, str]] = {}
        file = folder / RECIPE
        if not file.exists():
            write_atomic(file, json.dumps(asdict(recipe), indent=2) + "\n")
            return
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {error}", "delete the folder, and it is made again") from error
        wanted = asdict(recipe)
        changes = [f"{k} was {found.get(k)!r}, now {v!r}" for k, v in wanted.items() if found.get(k) != v]
        if changes:
            raise DataError(
                f"the cache {folder} is stale: {'; '.join(changes)}",
                "delete it to make it again, or name another folder with data.cache_dir=",
            )
        for index in sorted(folder.glob(INDEX.format("*"))):
            self._read_index(index)

    def __contains__(self, key: str) -> bool:
        """Whether an entry is here."""
        return key in self.places

    def done(self, shard: str) -> bool:
        """Whether a data shard's entries are all here: its index is written last."""
        return (self.folder / INDEX.format(shard)).exists()

    def write_shard(self, shard: str, entries: Iterable[tuple[str, LatentEntry]]) -> int:
        """All entries of one data shard; returns how many. Appears whole or not at all, the same bytes each time."""
        tar_path, rows = self.folder / f"{shard}.latents.tar", list[str]()
        with replacing(tar_path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (key, entry) in enumerate(entries):
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
        """An entry, checked. DataError names the file when it is damaged or holds what no encoder gives."""
        file, offset, size, digest = self.places[key]
        path = self.folder / file
        try:
            with path.open("rb") as tar:
                tar.seek(offset)
                content = tar.read(size)
        except OSError as error:
            raise DataError(
                f"{path}: the entry '{key}' cannot be read: {error.strerror}", "is it still there?"
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{path} is damaged: the entry '{key}' has changed", f"delete {path}, and it is made again")
        entry = LatentEntry(**load_tensors(content))
        for name in ("mean_FCHW", "logvar_FCHW", "embeddings_KLD"):
            if not bool(torch.isfinite(getattr(entry, name)).all()):
                raise DataError(f"{path}: {name} of '{key}' is not finite", f"delete {path}; data.cache_dtype=float32")
        return entry

    def _read_index(self, index: Path) -> None:
        tar = index.name.removesuffix(".idx.jsonl") + ".tar"
        try:
            rows = [json.loads(line) for line in index.read_text().splitlines()]
            self.places |= {row["key"]: (tar, row["offset"], row["size"], row["sha256"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{index} cannot be read: {error}", f"delete {index}, and it is made again") from error


def _to_bytes(entry: LatentEntry, dtype: torch.dtype) -> bytes:
    tensors: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in vars(entry).items()}
    for name in ("mean_FCHW", "logvar_FCHW", "embeddings_KLD"):
        tensors[name] = tensors[name].to(dtype)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise SystemFault(f"{name} is not finite as {dtype}", "data.cache_dtype=float32")
    return save_tensors(tensors)
