"""The schemas of `evaluate` and `choose`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from svdtrain.config.fields import Level, Positive, Private
from svdtrain.config.schema import ModelConfig
from svdtrain.config.strengths import StrengthSetting
from svdtrain.config.toolbox import Told

Count = Annotated[int, Field(ge=0)]


class Compared(Told, Private):
    """What adapters are compared on."""

    model: ModelConfig
    """Of a run: the run's own, unless the command line names another."""
    data: str | None
    """A dataset, a shard or demo:NAME, whose held-out clips are used; null: what the adapter was trained on."""
    generic: str | None
    """Another dataset, of anything: a loss that rises there is forgetting."""
    clips: Positive
    """Held-out clips whose loss is taken."""
    generic_clips: Positive
    """Clips of generic, likewise."""
    sigmas: list[Level] | None
    """Noise levels; null: quantiles of those that the model is trained on."""
    inputs: Count
    """Held-out first frames and captions that videos are made of; 0: losses only."""
    seeds: Annotated[list[int], Field(min_length=1)]
    """Videos for each of them."""
    steps: Positive | None
    """Of the sampler; null: what the model's previews take."""
    copies_of: Count
    """Training clips whose frames are compared with, to find copies."""
    strengths: Annotated[list[StrengthSetting], Field(min_length=1)]
    """Each adapter is tried with all of these; 0.8/0.5: spatial and temporal half."""
    device: Literal["auto", "cpu", "cuda"]


class EvaluateConfig(Compared):
    """`python -m svdtrain evaluate`."""

    comma_lists: ClassVar = ("adapters", "strengths", "seeds", "sigmas", "metrics", "motion_buckets")
    texts: ClassVar = ("adapter", "data", "generic", "out")

    adapter: str | None
    """A run folder or an adapter file."""
    adapters: list[str]
    """Instead: several, which are compared with the base and with each other."""
    out: str | None
    """A folder; null: RUN/evaluation. A second run into it does what is missing."""
    training_clips: Count
    """Training clips whose loss is taken, too: one that falls there alone is over-fitting."""
    metrics: list[str] | None
    """By name; null: all that can be measured."""
    motion_buckets: list[Annotated[int, Field(ge=0, le=255)]]
    """Motion bucket ids that each input is also sampled with, for motion_response: [60, 127, 200]."""
    shard: Annotated[str, Field(pattern=r"^\d+/[1-9]\d*$")] | None
    """i/n with i from 0: this process does every n-th clip and video from the i-th on; null: RANK of WORLD_SIZE. The last one
    to finish, or the same command again, puts all together."""


class ChooseConfig(Compared):
    """`python -m svdtrain choose`."""

    comma_lists: ClassVar = ("strengths", "seeds", "sigmas")
    texts: ClassVar = ("run", "data", "generic")

    run: str
    """A run folder; trainer.keep_adapters=true keeps steps to choose from."""
    strengths: Annotated[list[StrengthSetting], Field(min_length=1)]
    """That the chosen step is tried with, rising."""
    halves: bool
    """Also try other strengths of the spatial and of the temporal half, around the one that is best for both."""

    def evaluation(self) -> EvaluateConfig:
        """The settings by which `evaluate` would find the same."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in Compared.model_fields}
        own = {"adapter": self.run, "adapters": [], "out": None, "training_clips": 0, "metrics": None}
        return EvaluateConfig.model_validate({**shared, **own, "motion_buckets": [], "shard": None})
