"""Filling a latent cache: every training clip through the frozen encoders once, shard by shard."""

from __future__ import annotations

import hashlib
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import DataLoader

from svdtrain.data.latent_cache import LatentEntry
from svdtrain.data.loading import ended, ignore_signals
from svdtrain.data.transforms import to_unit
from svdtrain.data.whole_clips import WholeClip, WholeClips
from svdtrain.foundation.errors import DataError
from svdtrain.types import ClipBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from svdtrain.data.buckets import Sampling
    from svdtrain.data.clip import Clip
    from svdtrain.data.latent_cache import CacheRecipe, LatentCache
    from svdtrain.data.stream import ClipStream
    from svdtrain.families.protocol import ModelFamily

AT_ONCE = 64
"""Windows whose first frames are encoded together."""
LASTING = {"damaged", "too_short", "low_fps", "no_media", "too_large", "no_caption"}
"""Reasons that say something of the clip, and not of the moment (a server, a disk, a machine under load)."""


class Job(NamedTuple):
    """One entry to be."""

    entry: str
    clip: Clip
    sampling: Sampling
    flip: bool


class ShardJobs(NamedTuple):
    """The entries of one data shard, and what the cache calls it."""

    name: str
    jobs: tuple[Job, ...]


def jobs_by_shard(stream: ClipStream, recipe: CacheRecipe) -> Iterator[ShardJobs]:
    """Every entry that training on `stream` may ask for, in the order of its shards."""
    places = range(len(stream.clips))
    numbers_N = stream.clips.shard_N.tolist()
    for number, members in groupby(sorted(places, key=numbers_N.__getitem__), key=numbers_N.__getitem__):
        jobs: list[Job] = []
        for place in members:
            clip, sampling = stream.clips[place], stream.lanes.samplings[stream.lanes.lane_N[place]]
            for flip in (False, True) if recipe.flip else (False,):
                jobs.append(Job(recipe.entry_id(clip, flip=flip), clip, sampling, flip))
        shard = stream.clips.columns.shards[number]
        mark = hashlib.sha256(repr((str(shard), [job.entry for job in jobs])).encode()).hexdigest()[:8]
        yield ShardJobs(f"{shard.label.rpartition('/')[2]}-{mark}", tuple(jobs))


def fill_shard(
    cache: LatentCache,
    family: ModelFamily,
    shard: ShardJobs,
    stream: ClipStream,
    *,
    workers: int,
    device: str,
    note: Callable[[Job, DataError | None], None],
) -> None:
    """Encode one shard's clips; it appears in the cache whole or not at all. note: called after each entry."""
    clips = WholeClips([(job.clip, job.sampling, job.flip) for job in shard.jobs], stream.child)
    loader = DataLoader(clips, batch_size=None, num_workers=workers, worker_init_fn=ignore_signals)

    def entries() -> Iterator[tuple[str, LatentEntry | DataError]]:
        with ended(batches := iter(loader)):
            for job, whole in zip(shard.jobs, batches, strict=True):
                if isinstance(whole, WholeClip):
                    bad, entry = None, encode_whole(family, whole, device)
                elif isinstance(whole, DataError) and whole.reason in LASTING and stream.skip:
                    bad = entry = whole
                else:
                    raise whole
                yield job.entry, entry
                note(job, bad)
        if stream.child:
            stream.child.close()

    cache.write_shard(shard.name, entries())


def encode_whole(family: ModelFamily, whole: WholeClip, device: str) -> LatentEntry:
    """A clip's entry, in fp32 on the CPU."""
    pixels_FCHW = to_unit(whole.frames_FCHW.to(device))
    firsts_K = whole.rows_KT[:, 0]
    if family.spec.frames_alone:
        parts = [_encoded(family, pixels_FCHW[rows][:, None], whole) for rows in firsts_K.split(AT_ONCE)]
        embeddings_KLD = torch.cat([embedding for _, _, embedding in parts])
        others = torch.tensor(sorted(set(range(len(pixels_FCHW))) - set(firsts_K.tolist())), dtype=torch.int64)
        if len(others):
            parts.append(_encoded(family, pixels_FCHW[others][None], whole))
        order_R = torch.cat([firsts_K, others]).argsort()
        means, logvars = ([part[axis].flatten(0, 1) for part in parts] for axis in (0, 1))
        mean_RCHW, logvar_RCHW = torch.cat(means)[order_R], torch.cat(logvars)[order_R]
        rows_KT = whole.rows_KT
    else:
        parts = [_encoded(family, pixels_FCHW[rows][None], whole) for rows in whole.rows_KT]
        mean_KTCHW, logvar_KTCHW, embeddings_KLD = (torch.cat(column) for column in zip(*parts, strict=True))
        rows_KT = torch.arange(mean_KTCHW[:, :, 0, 0, 0].numel()).view(mean_KTCHW.shape[:2])
        mean_RCHW, logvar_RCHW = mean_KTCHW.flatten(0, 1), logvar_KTCHW.flatten(0, 1)
    return LatentEntry(
        mean_RCHW=mean_RCHW,
        logvar_RCHW=logvar_RCHW,
        rows_KT=rows_KT,
        starts_K=whole.starts_K,
        fps=torch.tensor([whole.fps], dtype=torch.float64),
        images_KCHW=whole.frames_FCHW[firsts_K],
        embeddings_KLD=embeddings_KLD,
    )


def hash_weights(parts: Mapping[str, nn.Module]) -> str:
    """sha256 over every weight's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for part, module in parts.items():
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _encoded(family: ModelFamily, pixels_BTCHW: Tensor, whole: WholeClip) -> Sequence[Tensor]:
    """(mean, logvar, embeddings) on the CPU."""
    count = len(pixels_BTCHW)
    batch = ClipBatch(
        pixels_BTCHW=pixels_BTCHW,
        fps_B=torch.full((count,), whole.fps),
        motion_bucket_B=torch.zeros(count),
        keys_B=("",) * count,
        positions_B=(0,) * count,
        captions_B=(whole.caption,) * count,
    )
    encoded = family.encode_clips(batch)
    return encoded.mean_BTCHW.cpu(), encoded.logvar_BTCHW.cpu(), encoded.embeddings_BLD.cpu()
