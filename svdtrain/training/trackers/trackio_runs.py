"""Trackio, by its own library: a SQLite file on this machine that `trackio show` makes a page of. It reaches nobody."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svdtrain.adapters.files import CONFIG, WEIGHTS, write_public
from svdtrain.training.trackers.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from svdtrain.training.trackers.tracker import Look, SavedAdapter


class TrackioTracker(Tracker):
    """Runs of one name share a folder beside theirs, so that they can be compared; TRACKIO_DIR names another."""

    kind = "trackio"

    def __init__(self, project: str, name: str, identity: str, run_dir: Path) -> None:
        """Raises ModuleNotFoundError where trackio is not installed."""
        os.environ.setdefault("TRACKIO_DIR", str(run_dir.resolve().parent / "trackio"))
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        import trackio  # type: ignore[import-not-found]  (in no other extra)

        # What it says of itself stands in the documents; its thread shall not write between the lines of a fit.
        for module in (trackio, trackio.run):
            module.print = lambda *_, **__: None  # type: ignore[attr-defined]
        self.trackio: Any = trackio
        self.project, self.name, self.identity, self.step = project, f"{name}-{identity}", identity, 0

    def start(self, settings: Mapping[str, Any]) -> None:
        """A new run, or the one of that name."""
        self.run = self.trackio.init(
            self.project,
            self.name,
            config=dict(settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, row: Mapping[str, float], step: int) -> None:
        """Of a step."""
        self.step = step
        self.run.log(dict(row), step=step)

    def dataset(self, about: Mapping[str, Any]) -> None:
        """An artifact of fingerprint and counts, which the run uses."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "dataset.json"
            file.write_text(json.dumps(dict(about), indent=2))
            made = self.trackio.Artifact(f"dataset-{about['fingerprint'][:12]}", "dataset", metadata=dict(about))
            made.add_file(file)
            self.run.use_artifact(self.run.log_artifact(made))

    def look(self, look: Look) -> None:
        """Of each input, the base's video and the adapter's."""
        for one in look.inputs:
            titled = {"held-out": one.truth, "base": one.base, "with-adapter": one.adapter}
            found = {title: path for title, path in titled.items() if path and path.exists()}
            row = {f"samples/{one.name}/{title}": self.trackio.Video(str(path)) for title, path in found.items()}
            self.run.log(row, step=look.step)

    def saved(self, adapter: SavedAdapter) -> None:
        """A version of the model artifact, without what is private in its header."""
        made = self.trackio.Artifact(f"adapter-{self.identity}", "model", metadata=dict(adapter.about))
        write_public(adapter.folder / WEIGHTS, adapter.folder / "public.safetensors")
        made.add_file(adapter.folder / "public.safetensors", name=WEIGHTS)
        made.add_file(adapter.folder / CONFIG, name=CONFIG)
        self.run.log_artifact(made, aliases=[f"step-{adapter.step}", *["best"] * adapter.is_best])

    def alert(self, title: str, text: str) -> None:
        """In its list of alerts."""
        levels = self.trackio.AlertLevel
        self.run.alert(title, text, level={"end": levels.INFO, "spike": levels.WARN}.get(title, levels.ERROR))

    def end(self, state: str, looks: Sequence[Look]) -> None:  # noqa: ARG002 (its page compares them by itself)
        """Write what is left."""
        self.run.finish()
