"""`python -m svdtrain push`: an exported folder goes to the Hub, once every file that leaves has been named."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from svdtrain.adapters.spec import AdapterInfo
from svdtrain.foundation import hub
from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.reporting.charts import counted
from svdtrain.reporting.publication import Outgoing, outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.config.publishing import PushConfig

log = logging.getLogger(__name__)
CARD = "README.md"


def run(config: PushConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """Say what leaves and where it goes, then send it as one commit."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    quiet_packages()
    hub.check_name(config.repo)
    private = [f"svdtrain.{one.name}" for one in fields(AdapterInfo) if one.metadata.get("private")]
    try:
        files = outgoing(Path(config.folder).expanduser(), private, private_metadata=config.private_metadata)
    except OSError as error:
        raise SystemFault(f"{error.filename}: cannot be read: {error.strerror}", "choose another folder") from error
    for line in _announcement(files, config):
        console.print(line)
    _advise(files, public=not config.private)
    if config.dry_run:
        console.print("dry_run=true: nothing was sent")
        return
    to = hub.Destination(config.repo, config.private, config.revision, config.message)
    console.print(f"sent: {hub.upload({file.name: file.path for file in files}, to)}")


def _announcement(files: Sequence[Outgoing], config: PushConfig) -> list[str]:
    width = max(len(_size(file.bytes)) for file in files)
    rows = [f"  {_size(file.bytes):>{width}}  {file.name}" for file in files]
    total = f"{counted(len(files), 'file')}, {_size(sum(file.bytes for file in files))}"
    seen = "private" if config.private else "public"
    branch = f", branch {config.revision}" if config.revision else ""
    return [*rows, f"{total}, to {hub.endpoint()}/{config.repo} ({seen}{branch})"]


def _size(count: int) -> str:
    """In decimal units, as the Hub counts."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def _advise(files: Sequence[Outgoing], *, public: bool) -> None:
    """What a reader of a public page would miss."""
    card = next((file for file in files if file.name == CARD), None)
    if card is None:
        log.warning("there is no %s: the repository's page will say nothing", CARD)
        return
    if not public:
        return
    from svdtrain.reporting.model_card import TO_FILL_IN

    text = card.path.read_text(encoding="utf-8", errors="replace")
    for sentence in TO_FILL_IN:
        if sentence in text:
            log.warning('%s still says "%s"', CARD, sentence)
