"""The whole of preparation: list, work through, assemble; again on a finished dataset, nothing."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.config.fields import every_nth
from svdtrain.foundation.errors import UsageError
from svdtrain.preparation.assembly import assemble, last_line, sources_digest
from svdtrain.preparation.discovery import Listing, list_sources
from svdtrain.preparation.journal import Journal, locked, settings_of
from svdtrain.preparation.one_source import prepare_source, refused
from svdtrain.preparation.pool import Failure, run_all
from svdtrain.preparation.progress import SourceProgress
from svdtrain.preparation.ray_pool import run_all_on_ray
from svdtrain.preparation.records import Source, SourceResult

if TYPE_CHECKING:
    from rich.console import Console

    from svdtrain.config.preparation import PrepareConfig


def prepare(config: PrepareConfig, console: Console) -> str:
    """Make the dataset `config.out`, or this part of it; the last line to say.

    UsageError when `out` holds something else, DataError when the sources give no dataset, SystemFault when files
    cannot be written.
    """
    folder, out = Path(config.source).expanduser().resolve(), Path(config.out).expanduser().resolve()
    if finished := _manifest(folder):
        return f"{config.source} is a prepared dataset already ({_clips(finished)} clips): data.source={config.source}"
    _check_out(folder, out)
    listing = list_sources(folder)
    share = every_nth(config.part)
    journal = Journal.open(out / "work", config)
    with locked(out, part=config.part):
        hashes = _known_hashes(listing, journal)
        if manifest := _manifest(out):
            return _again(manifest, listing, hashes, config, journal)
        mine = listing.sources[share]
        with SourceProgress(console, len(mine), sum(source.size for source in mine)) as progress:
            hashes |= _work_through(mine, hashes, config, journal, progress)
    return _end(listing, hashes, config, journal, out)


def _check_out(folder: Path, out: Path) -> None:
    if out == folder or folder in out.parents:
        raise UsageError(f"out={out} lies in source={folder}", "name a folder beside it")
    foreign = [path.name for path in out.iterdir() if path.name != "work"] if out.is_dir() else []
    if out.exists() and not (out / "work").is_dir() and (foreign or not out.is_dir()):
        raise UsageError(f"out={out}: taken, it holds {foreign[0] if foreign else 'a file'}", "name a new folder")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that was prepared; None: it was not, or not to its end."""
    try:
        values = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    ours = isinstance(values, dict) and str(values.get("created_by", "")).startswith("svdtrain ")
    return values if ours and (folder / "shards").is_dir() else None


def _clips(manifest: dict[str, Any]) -> int:
    return manifest["counts"]["train"] + manifest["counts"]["held_out"]


def _known_hashes(listing: Listing, journal: Journal) -> dict[str, str]:
    """{name: sha256} of the sources that were hashed before and have not changed since."""
    seen = journal.seen()
    marks = {source.name: (source.name, source.size, source.changed) for source in listing.sources}
    return {name: seen[mark] for name, mark in marks.items() if mark in seen}


def _again(
    manifest: dict[str, Any], listing: Listing, hashes: dict[str, str], config: PrepareConfig, journal: Journal
) -> str:
    """The last line of a finished dataset. UsageError when it was made from something else."""
    before, now = manifest["settings"], settings_of(config)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            seen = f"{config.out} was prepared with {name}={before.get(name)}, now it is {now.get(name)}"
            raise UsageError(seen, "the same settings, or a new out=FOLDER")
    for source in listing.sources:
        if source.name not in hashes:
            hashes[source.name] = source.hash()
            journal.note(source, hashes[source.name])
    if sources_digest(listing.sources, hashes) != manifest["sources"]:
        raise UsageError(f"{config.out} was prepared from other files than {config.source} holds", "a new out=FOLDER")
    journal.clear()
    return last_line(manifest["counts"])


def _work_through(
    sources: tuple[Source, ...],
    hashes: dict[str, str],
    config: PrepareConfig,
    journal: Journal,
    progress: SourceProgress,
) -> dict[str, str]:
    """Do what is not done; {name: sha256} of it."""
    waiting: list[Source] = []
    for source in sources:
        known = hashes.get(source.name)
        if known and (done := journal.read(source.kind, known)) and not done.passing:
            progress.advance(source.size, len(done.clips), worked=False)
        else:
            waiting.append(source)
    # Long ones first, so that no process is left alone with one at the end.
    waiting.sort(key=lambda source: (-source.size, source.name))
    workers = min(config.workers or os.cpu_count() or 1, max(1, len(waiting)))
    work = partial(prepare_source, config=config, journal=journal)
    run = partial(run_all_on_ray, address=config.ray_address) if config.executor == "ray" and waiting else run_all
    fresh: dict[str, str] = {}
    for source, answer in run(work, waiting, workers=workers, deadline=config.deadline):
        result = answer
        if isinstance(result, Failure):
            result = refused(source.hash(), result.reason, result.detail)
            journal.write(source.kind, result)
        fresh[source.name] = result.sha256
        if not result.passing:
            journal.note(source, result.sha256)
        progress.advance(source.size, len(result.clips))
    return fresh


def _end(listing: Listing, hashes: dict[str, str], config: PrepareConfig, journal: Journal, out: Path) -> str:
    """Assemble, unless other parts are still to be done; then the last of them does."""
    with locked(out, part=config.part, alone=True) as mine:
        if not mine:
            return f"part {config.part}: done ({len(hashes):,} sources), other parts are at work"
        if manifest := _manifest(out):  # another part was quicker
            return last_line(manifest["counts"])
        hashes = hashes | _known_hashes(listing, journal)
        results: dict[str, SourceResult] = {}
        for source in listing.sources:
            known = hashes.get(source.name) or (None if os.access(source.path, os.R_OK) else source.hash())
            if known and (done := journal.read(source.kind, known)):
                results[source.name] = done
        if missing := len(listing.sources) - len(results):
            clips = sum(len(result.clips) for result in results.values())
            return f"part {config.part}: {len(results):,} sources done ({clips:,} clips), {missing:,} are to do by other parts"
        manifest = assemble(listing.sources, results, listing.rejected, config, journal, out)
        journal.clear()
        return last_line(manifest["counts"])
