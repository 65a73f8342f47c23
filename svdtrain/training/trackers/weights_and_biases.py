"""W&B, by its own library: everything in one run, offline where there is no key, and nothing that would be asked for."""

from __future__ import annotations

import json
import netrc
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from svdtrain.adapters.files import CONFIG, WEIGHTS, write_public
from svdtrain.training.trackers.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wandb import Artifact, Run, Video

    from svdtrain.training.trackers.tracker import Look, LookedInput, SavedAdapter

STEP = "trainer/global_step"
PLACES = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
SERVER = "https://api.wandb.ai"
LEVELS = {"end": "INFO", "spike": "WARN"}


class WandbTracker(Tracker):
    """Its files stand in the run folder."""

    kind = "wandb"

    def __init__(
        self, project: str, name: str, identity: str, run_dir: Path, patience: float, *, all_media: bool
    ) -> None:
        """identity: of W&B's run, which goes on wherever it is the same."""
        self.project, self.name, self.identity, self.run_dir = project, name, identity, run_dir
        self.patience, self.all_media = patience, all_media
        self.places = [one for one in PLACES if one not in os.environ]
        self.offline = is_offline()

    def start(self, settings: Mapping[str, Any]) -> None:
        """Raises what W&B raises where it cannot be reached within half a minute."""
        os.environ |= dict.fromkeys(self.places, str(self.run_dir))
        if not os.environ.get("WANDB_MODE"):  # empty, it would be refused
            os.environ.pop("WANDB_MODE", None)
        import wandb

        quiet = wandb.Settings(
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            silent=True,
            init_timeout=30,
            finish_timeout=self.patience,
        )
        mode = "offline" if self.offline else None
        self.run: Run = wandb.init(
            project=self.project,
            name=self.name,
            id=self.identity,
            resume="allow",
            dir=self.run_dir,
            mode=mode,
            settings=quiet,
        )
        self.run.config.update(dict(settings), allow_val_change=True)
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP, step_sync=True)

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        """Over the optimizer's steps."""
        self.run.log({**row, STEP: step})

    def dataset(self, about: Mapping[str, Any]) -> None:
        """An artifact of fingerprint and counts, which the run uses: no clip, no name and no caption is in it."""
        made = self._artifact(f"dataset-{about['fingerprint'][:12]}", "dataset", about)
        with made.new_file("dataset.json") as file:
            file.write(json.dumps(dict(about), indent=2))
        if not self.offline:
            self.run.use_artifact(made)
            return
        # use_artifact asks the server; offline, the record that it would write says the same to `wandb sync`.
        self.run._log_artifact(made, is_user_created=True, use_after_commit=True)

    def look(self, look: Look) -> None:
        """Of each input, the base's video beside the adapter's."""
        row = {f"samples/{one.name}": self._videos(one, look.step) for one in look.inputs}
        self.run.log({**row, STEP: look.step})

    def saved(self, adapter: SavedAdapter) -> None:
        """A version of the run's model artifact, without what is private in its header."""
        made = self._artifact(f"adapter-{self.identity}", "model", adapter.about)
        write_public(adapter.folder / WEIGHTS, adapter.folder / "public.safetensors")
        made.add_file(str(adapter.folder / "public.safetensors"), name=WEIGHTS)
        made.add_file(str(adapter.folder / CONFIG), name=CONFIG)
        aliases = ["latest", f"step-{adapter.step}", *["best"] * adapter.is_best]
        self.run.log_artifact(made, aliases=aliases)

    def alert(self, title: str, text: str) -> None:
        """At most one of a kind in a minute."""
        self.run.alert(title, text, level=LEVELS.get(title, "ERROR"))

    def end(self, state: str, looks: Sequence[Look]) -> None:
        """The table of all looks, then the end."""
        if looks:
            self._table(looks)
        self.run.finish(exit_code=int(state == "failed"))
        self._leave()

    def abandon(self) -> None:
        """Its service may be gone: at the end of the process nobody shall ask for it."""
        import wandb

        self._leave()
        wandb.teardown()

    def _leave(self) -> None:
        """The next run of this process has a folder of its own."""
        for one in self.places:
            os.environ.pop(one, None)

    def _table(self, looks: Sequence[Look]) -> None:
        import wandb

        of_data = ["held-out clip", "caption"] if self.all_media else []
        table = wandb.Table(columns=["step", "input", "base", "with adapter", "held-out ratio", *of_data])
        for look in looks:
            for one in look.inputs:
                data = [_video(one.truth), one.caption] if self.all_media else []
                table.add_data(look.step, one.name, _video(one.base), _video(one.adapter), look.ratio, *data)
        self.run.log({"samples/table": table, STEP: looks[-1].step})

    @staticmethod
    def _videos(one: LookedInput, step: int) -> list[Video]:
        titled = {"held-out clip": one.truth, "base": one.base, f"with adapter, step {step}": one.adapter}
        return [video for title, path in titled.items() if (video := _video(path, title))]

    @staticmethod
    def _artifact(name: str, kind: str, about: Mapping[str, Any]) -> Artifact:
        import wandb

        return wandb.Artifact(name, kind, metadata=dict(about))


def _video(path: Path | None, title: str | None = None) -> Video | None:
    import wandb

    return wandb.Video(str(path), caption=title, format="mp4") if path and path.exists() else None


def is_offline() -> bool:
    """Whether the run is kept here: as told, or for want of a key. W&B is never let ask for one."""
    return os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not _has_key()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or SERVER).hostname
        return netrc.netrc().authenticators(str(host)) is not None
    except (OSError, netrc.NetrcParseError):
        return False
