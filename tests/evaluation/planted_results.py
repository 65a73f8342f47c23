"""A folder of results as an evaluation leaves them, planted in a moment: losses and videos' numbers of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from svdtrain.config.strengths import Strength, even
from svdtrain.data.buckets import Sampling
from svdtrain.data.clip import Clip, Shard
from svdtrain.evaluation.results import Results
from svdtrain.evaluation.summary import Found
from svdtrain.evaluation.work import BASE, Arm, Input, LossClip, Plan, loss_name, video_name

SAMPLING = Sampling(8, 64, 64, None, None)


@dataclass
class Shown:
    """What is found of an arm, as ratios: of losses to the base's, of the rest to the held-out clips'."""

    loss: float = 1.0
    motion: float = 1.0
    copies: float = 1.0
    generic: float = 1.0
    noise: float = 0.002
    """Of the losses' ratios, from clip to clip."""
    strength: Strength = field(default_factory=lambda: even(1))
    step: int = 0


def found(folder: Path, shown: Mapping[str, Shown], *, clips: int = 8, inputs: int = 6) -> tuple[Found, Sequence[Arm]]:
    """What stands in the folder, of the base and these arms; and the arms."""
    table = {BASE: Shown(strength=even(0)), **shown}
    arms = [Arm(name, Path("x"), name * (name != BASE), one.strength, one.step) for name, one in table.items()]
    held = [_clip(place) for place in range(clips)]
    groups = ("held_out", "generic")
    plan = Plan(
        arms=arms,
        loss_clips=[LossClip(g, place, clip, SAMPLING) for g in groups for place, clip in enumerate(held)],
        sigmas=[0.5, 5.0],
        inputs=[Input(place, clip, SAMPLING, 0) for place, clip in enumerate(held[:inputs])],
        metrics=["motion", "nearest_training_frame"],
        motion_buckets=[],
        training=[],
        decides={"base": "base"},
    )
    results, base_NS = Results(folder), np.random.default_rng(0).lognormal(-2, 1, (clips, 2))
    for number, arm in enumerate(arms):
        one, random = table[arm.label], np.random.default_rng(number)
        for each in plan.loss_clips:
            ratio = (one.loss if each.group == "held_out" else one.generic) * random.normal(1, one.noise, 2)
            losses = base_NS[each.number] * (ratio if arm.label != BASE else 1)
            told = {"clip": each.clip.key, "losses": losses.tolist()}
            results.keep(loss_name(arm, each), plan.loss_key(arm, each), told)
    for each in plan.inputs:
        for arm in (None, *arms):
            one = table[arm.label] if arm else Shown()
            values = {
                "motion": one.motion * (5 + each.number),
                "nearest_training_frame": one.copies * (8 + each.number),
            }
            told = {"clip": each.clip.key, "values": values, "embeddings_KD": []}
            results.keep(video_name(arm, each), plan.video_key(arm, each), told)
    return Found(plan, results), arms


def _clip(place: int) -> Clip:
    return Clip(f"clip-{place}", Shard(Path("a.tar")), 0, 100, f"video-{place}")
