"""What stands in a run's folder, as a contract: whoever reads a run, ourselves included, reads this and nothing else.

docs/reference/run-folder.md is written for readers; tests/reporting/test_contract.py holds a real run against both.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from svdtrain.reporting.run_events import Event

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Told(BaseModel):
    """Nothing that is not listed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Plan(_Told):
    """What was foretold of a rung of memory."""

    peak_bytes: Count
    step_seconds: Amount | None
    """Of one batch; null: for an unknown card."""
    table_seconds: Amount | None = None
    """The same before it was mended by earlier runs; null where clips are of several sizes, too."""
    model: str = ""
    """What it was foretold of."""


class Use(_Told):
    """How a diffusers pipeline is asked for a video."""

    pipeline: str
    image: bool
    text: bool


class Speed(_Told):
    """Of the last process that trained."""

    steps: Count
    training_seconds: Amount
    first_batch_seconds: Amount
    peak_bytes: Count | None
    """Of tensors on a GPU, in the first steps; null on a CPU."""
    seconds_per_batch: Amount
    settled_seconds: Amount | None = None
    """Likewise, after the first five steps and without waiting for data; null: there were no more."""
    steps_per_second: Amount
    clips_per_second: Amount
    share_waiting_for_data: float
    share_outside_denoiser: float
    share_beside_training: float
    """Of the whole time: looks at held-out clips, samples, saves."""
    compile_seconds: Amount
    bytes_sent_per_step: Count
    base_bytes_sent_per_step: Count
    energy_joules: Amount | None = None
    """Of the first rank's card (or the CPU's packages), looks and samples included; null: nobody counts it."""


class Verdict(_Told):
    """docs/reference/evaluation.md says when each is said."""

    kind: Literal["improving", "flat", "over-fitting", "forgetting", "worse", "unknown"]
    sentence: str
    best_step: Count


class Dataset(_Told):
    """Null: shards were read as they came, and nobody listed them."""

    train_clips: Count | None
    held_out_clips: Count
    train_sources: Count | None
    held_out_sources: Count
    shards: Count
    bytes: Count | None
    fingerprint: str


class RunJson(_Told):
    """run.json, replaced whole at each change."""

    name: str
    state: Literal["running", "stopped", "failed", "done"]
    """running, with no process that holds .lock: it was killed."""
    started: str
    """ISO 8601."""
    overrides: list[str]
    """The words of the command line, secrets hidden."""
    versions: dict[str, str]
    rung: str | None = None
    """Of memory."""
    plan: Plan | None = None
    tracker_run: str | None = None
    """Its name there, where a tracker is told."""
    hardware: str = ""
    use: Use | None = None
    step: Count | None = None
    """The last; here and below: once it has ended."""
    speed: Speed | None = None
    validation_ratios: dict[str, Amount] | None = None
    """Step -> held-out loss as a ratio to the base's."""
    verdict: Verdict | None = None
    dataset: Dataset | None = None
    bad_samples: dict[str, Count] | None = None
    """Reason -> how many were replaced."""
    skipped_steps: list[Count] | None = None
    loss_spikes: Count | None = None
    best_checkpoint: str | None = None
    best_step: Count | None = None
    """That of adapter_best; 0: no look was better than the base."""
    ended_early: bool | None = None


class MetricsLine(BaseModel):
    """A line of metrics.jsonl, which only grows: of one step that stands twice, the later counts; null: not finite."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | None]  # type: ignore[override]

    step: Count
    time: Amount
    """Seconds since 1970, here and in events."""


class EventLine(BaseModel):
    """A line of events.jsonl: what happened; what else it says depends on that."""

    model_config = ConfigDict(extra="allow", strict=True)

    time: Amount
    event: Event
    step: Count


FILES = {
    "run.json": "state, versions, results",
    "config.yaml": "every setting, resolved, secrets hidden",
    "metrics.jsonl": "what is measured: loss by noise level, held-out losses, learning rates, speed",
    "events.jsonl": "what happens besides steps: samples, saves, spikes, requests, the end",
    "bad_samples.jsonl": "clips that were replaced, and why",
    "samples/step-NNNNNN/": "input-N.mp4 of the base (step 0) and at each look; raw-N.mp4 without averaging; contact_sheet.png",
    "before_after.mp4": "the newest look beside the base",
    "contact_sheet.png": "the same as a picture",
    "checkpoints/step-NNNNNN/": "safetensors and JSON with a manifest of sha256 sums: what `resume` goes on from",
    "adapter/": "the newest adapter, in peft's layout",
    "adapter_best/": "that of the look with the least held-out loss",
    "adapters/step-NNNNNN/": "those of all saves, with trainer.keep_adapters=true",
    "denoiser/": "instead, after adapter.kind=full: the whole denoiser",
    "evaluation/": "what `evaluate` has found",
    "choice.json": "which step and strength `choose` recommends, and why",
    "choice/": "what it has found",
    "best": "a link to the adapter that it chose",
    "wandb/": "what trackers keep, likewise tensorboard/, mlruns/, csv/",
    "report.html": "the page",
    "control/": "requests to a run that trains: sample, save, stop",
}
"""What may stand there, and what it is. A name with a dot in front is not part of it."""
