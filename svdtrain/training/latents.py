"""Which latent cache belongs to a config, and whether a run can train from it."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.config.schema import SourceConfig
from svdtrain.data.latent_cache import RECIPE, CacheRecipe, LatentCache
from svdtrain.foundation.errors import DataError
from svdtrain.training.encoding_ahead import hash_weights, jobs_by_shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.config.schema import FitConfig
    from svdtrain.data.stream import ClipStream
    from svdtrain.families.protocol import ModelFamily

HINT = "python -m svdtrain cache, with the same settings, completes it"

log = logging.getLogger(__name__)


def cache_folder(config: FitConfig) -> Path:
    """data.cache_dir, or a folder of the user's cache that the model and data.source name."""
    if config.data.cache_dir:
        return Path(config.data.cache_dir).expanduser()
    here = [str(Path(one).resolve()) if Path(one).exists() else one for one in _addresses(config.data.source or [])]
    last = re.sub(r"[^A-Za-z0-9_.-]+", "-", here[-1].rstrip("/").rpartition("/")[2])
    mark = hashlib.sha256(repr((config.model.source, here)).encode()).hexdigest()[:8]
    return Path("~/.cache/svdtrain/latents").expanduser() / f"{config.model.name}-{last}-{mark}"


def recipe_of(config: FitConfig, family: ModelFamily) -> CacheRecipe:
    """What decides the entries of this config's cache."""
    data, model = config.data, config.model
    return CacheRecipe(
        model=model.name,
        encoders=hash_weights(family.encoders()),
        frames=model.frames,
        height=model.height,
        width=model.width,
        buckets=data.buckets,
        fps=data.fps,
        windows=data.windows,
        flip=data.horizontal_flip,
        captions=family.spec.needs_text,
        trigger=data.trigger if family.spec.needs_text else "",
        dtype=data.cache_dtype,
    )


def find_latents(config: FitConfig, family: ModelFamily, stream: ClipStream) -> LatentCache | None:
    """The cache on disk to train from. None: there is none, or (data.cache=auto) it is another's or not complete.

    With data.cache=disk DataError says instead what is wrong with it.
    """
    folder = cache_folder(config)
    if config.data.cache not in ("auto", "disk") or config.data.order == "stream":
        return None
    try:
        if not (folder / RECIPE).is_file():
            raise DataError(f"data.cache=disk: there is no cache in {folder}", "python -m svdtrain cache makes it")
        cache = LatentCache(folder, recipe_of(config, family))
        wanted = [job.entry for shard in jobs_by_shard(stream, cache.recipe) for job in shard.jobs]
        missing = sum(entry not in cache for entry in wanted)
        if missing:
            message = f"the cache {folder} lacks {missing:,} of {len(wanted):,} entries"
            raise DataError(message, HINT)
    except DataError as error:
        if config.data.cache == "disk":
            raise
        if (folder / RECIPE).is_file():
            log.warning("not used: %s", error.message)
        return None
    return cache


def _addresses(source: str | SourceConfig | Sequence[str | SourceConfig]) -> list[str]:
    if isinstance(source, str):
        return [source]
    return (
        _addresses(source.source)
        if isinstance(source, SourceConfig)
        else [a for one in source for a in _addresses(one)]
    )
