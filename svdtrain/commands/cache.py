"""`python -m svdtrain cache`: the frozen encoders' work, done once ahead of training."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from svdtrain.config.fields import every_nth
from svdtrain.data.bad_samples import FEWEST_COUNTED
from svdtrain.data.latent_cache import LatentCache
from svdtrain.families.build import build_family, refuse_sizes
from svdtrain.foundation.errors import DataError, SystemFault
from svdtrain.foundation.hardware import choose_device
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.foundation.space import refuse_unwritable
from svdtrain.training import build
from svdtrain.training.encoding_ahead import fill_shard, jobs_by_shard
from svdtrain.training.latents import cache_folder, recipe_of

if TYPE_CHECKING:
    from svdtrain.config.schema import CacheConfig
    from svdtrain.training.encoding_ahead import Job

PLAIN_EVERY = 30.0


def run(config: CacheConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Encode what is not there yet, and say what became of every clip."""
    quiet_packages()
    console, mine = Console(), every_nth(config.part)
    data = build.build_data(config)
    data.setup("fit")
    family = build_family(config.model)
    refuse_sizes(family, data.sizes)
    device = choose_device(config.trainer.device)
    recipe = recipe_of(config, family)
    refuse_unwritable(folder := cache_folder(config))
    cache = LatentCache(folder, recipe)
    shards = list(jobs_by_shard(data.stream, recipe))[mine]
    family.encoders_to(device)
    with _Count(console, sum(len(shard.jobs) for shard in shards)) as count:
        for shard in shards:
            if all(job.entry in cache for job in shard.jobs):
                count.skip(len(shard.jobs))
                continue
            try:
                fill_shard(
                    cache, family, shard, data.stream, workers=config.data.workers, device=device, note=count.note
                )
            except OSError as error:
                free = shutil.disk_usage(folder).free
                message = f"the cache {folder} cannot be written: {error.strerror}; {free / 1e9:.1f} GB are free"
                raise SystemFault(message, "data.cache_dir=FOLDER on a larger disk, or data.windows=4") from error
    tried, policy = count.made + count.bad.total(), data.bad_samples.policy
    if count.bad.total() >= FEWEST_COUNTED and count.bad.total() > policy.most * tried:
        message = f"{count.bad.total():,} of {tried:,} clips could not be used"
        raise DataError(message, f"data.max_bad_fraction={policy.most:g} is what is allowed")
    size = sum(file.stat().st_size for file in folder.glob("[!.]*.latents.tar"))
    bad = "".join(f", {number} {reason.replace('_', ' ')}" for reason, number in count.bad.most_common())
    line = f"{count.made:,} clips encoded, {count.here:,} were here{bad}; {size / 1e6:,.1f} MB in {folder}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Count:
    """A bar with the time left; now and then a plain line when the output is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.made = self.here = 0
        self.bad: Counter[str] = Counter()
        self.last_line = time.monotonic()
        columns = (TextColumn("cache"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("cache", total=total)

    def __enter__(self) -> _Count:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def skip(self, entries: int) -> None:
        """These were made before."""
        self.here += entries
        self.bar.advance(self.task, entries)

    def note(self, job: Job, bad: DataError | None) -> None:
        """One more; bad: why there is no entry."""
        if bad:
            self.bad[bad.reason] += 1
            self.console.print(f"left out: {bad.message}", highlight=False, markup=False, soft_wrap=True)
        else:
            self.made += 1
        self.bar.advance(self.task)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > PLAIN_EVERY:
            self.last_line = now
            done = self.made + self.here + self.bad.total()
            self.console.print(
                f"{done:,} of {self.total:,} clips, now in {job.clip.shard}", highlight=False, markup=False
            )
