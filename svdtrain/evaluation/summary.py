"""From results to evaluation.json: estimates with intervals over clips, each arm against the base, and what it all says.

docs/reference/evaluation.md describes the file.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from svdtrain.evaluation.embeddings import cmmd
from svdtrain.evaluation.intervals import Estimate, interval, mean_of, ratio_of
from svdtrain.evaluation.metrics import CMMD, metric
from svdtrain.evaluation.verdict import FEWEST, NOTABLE, LossHistory, findings, judged
from svdtrain.evaluation.work import BASE, CLIP, loss_name, video_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from svdtrain.evaluation.results import Results
    from svdtrain.evaluation.work import Arm, Plan

GROUPS = ("held_out", "training", "generic")
Table = dict[str, np.ndarray]
"""Arm -> numbers, the same clips in each."""


class Found:
    """The results that stand, and why others do not."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.missing = plan, dict[str, str]()
        self.waits = False
        """Some were never tried: another process is at work on them, or was killed."""
        self.losses = {
            (arm.label, one.group, one.number): told
            for arm in plan.arms
            for one in plan.loss_clips
            if (told := self._read(results, loss_name(arm, one), plan.loss_key(arm, one)))
        }
        self.videos: dict[tuple[str, str], dict[str, Any]] = {}
        for one in plan.inputs:
            if told := self._read(results, video_name(None, one), plan.video_key(None, one)):
                self.videos[CLIP, one.name] = told
            for arm in plan.video_arms:
                if told := self._read(results, video_name(arm, one), plan.video_key(arm, one)):
                    self.videos[arm.label, one.name] = told

    def _read(self, results: Results, name: str, key: str) -> dict[str, Any] | None:
        told = results.find(name, key)
        if told is None:
            self.waits = True
            self.missing[name] = "not there yet"
        elif "failed" in told:
            self.missing[name] = told["failed"]
            return None
        elif "embeddings_KD" in told:
            told["embeddings_KD"] = np.array(told["embeddings_KD"], np.float32)
        return told

    def loss_table(self, group: str) -> tuple[list[str], Table]:
        """Keys of the clips that every arm has, and losses [N, S] of each arm."""
        arms = [arm.label for arm in self.plan.arms]
        numbers = [one.number for one in self.plan.loss_clips if one.group == group]
        whole = [number for number in numbers if all((arm, group, number) in self.losses for arm in arms)]
        keys = [str(self.losses[BASE, group, number]["clip"]) for number in whole]
        table = {arm: np.array([self.losses[arm, group, n]["losses"] for n in whole], np.float64) for arm in arms}
        return keys, table

    def whole_inputs(self) -> dict[int, list[str]]:
        """Number of each input -> names of its videos that every arm has."""
        arms = [CLIP, *(arm.label for arm in self.plan.video_arms)]
        found: dict[int, list[str]] = {}
        for one in self.plan.inputs:
            if all((arm, one.name) in self.videos for arm in arms):
                found.setdefault(one.number, []).append(one.name)
        return found

    def values(self, name: str) -> Table:
        """A metric's numbers by arm, a clip each (the mean over seeds), of clips where it says something of every arm."""
        arms = [CLIP, *(arm.label for arm in self.plan.video_arms)]
        if not metric(name).of_clips:
            arms.remove(CLIP)
        columns: dict[str, list[float]] = {arm: [] for arm in arms}
        for names in self.whole_inputs().values():
            rows = {arm: [self.videos[arm, one]["values"].get(name) for one in names] for arm in arms}
            if all(number is not None for row in rows.values() for number in row):
                for arm, row in rows.items():
                    columns[arm].append(float(np.mean(row)))
        return {arm: np.array(column) for arm, column in columns.items()}

    def embeddings(self) -> Table:
        """[N, frames, D] by arm; seeds are more frames."""
        arms = [CLIP, *(arm.label for arm in self.plan.video_arms)]
        inputs = self.whole_inputs().values()
        return {
            arm: np.array(
                [np.concatenate([self.videos[arm, one]["embeddings_KD"] for one in names]) for names in inputs]
            )
            for arm in arms
        }


def losses_told(found: Found, group: str) -> dict[str, Any] | None:
    """A group's part of the file; None where it has no clips."""
    keys, table = found.loss_table(group)
    if not keys:
        return None
    base_NS, arms = table[BASE], dict[str, Any]()
    for arm in found.plan.arms:
        mine_NS = table[arm.label]
        arms[arm.label] = {"step": arm.step, "of": arm.of, "losses": mine_NS.tolist()}
        if arm.label != BASE:
            by_sigma = [ratio_of(mine_NS[:, [s]], base_NS[:, [s]]) for s in range(mine_NS.shape[1])]
            arms[arm.label]["ratio"] = asdict(ratio_of(mine_NS, base_NS))
            arms[arm.label]["ratio_by_sigma"] = [asdict(one) for one in by_sigma]
    return {"clips": keys, "arms": arms}


def history_of(found: Found, arm: Arm) -> LossHistory | None:
    """The base, the arm's earlier steps, and the arm; None without held-out clips."""
    looks = [one for one in found.plan.arms if one.label in (BASE, arm.label) or one.of == arm.label]
    looks.sort(key=lambda one: (one.label == arm.label, one.step))
    steps = tuple(0 if one.label == BASE else one.step for one in looks)
    stacks: dict[str, np.ndarray | None] = {}
    for group in GROUPS:
        keys, table = found.loss_table(group)
        stacks[group] = np.stack([table[one.label] for one in looks]) if keys else None
    held_out = stacks["held_out"]
    return None if held_out is None else LossHistory(steps, held_out, stacks["training"], stacks["generic"])


def metric_told(found: Found, name: str) -> dict[str, Any] | None:
    """A metric's part of the file; None where it says nothing of any clip."""
    if name == CMMD:
        return _cmmd_told(found)
    one, table = metric(name), found.values(name)
    if not len(table[BASE]):
        return None
    against: dict[str, Any] = {}
    for arm in (label for label in table if label not in (BASE, CLIP)):
        change_N = table[arm] - table[BASE]
        gain_N = {"more": change_N, "less": -change_N}.get(one.good, change_N)
        if one.good == "as the clips" and CLIP in table:
            gain_N = np.abs(table[BASE] - table[CLIP]) - np.abs(table[arm] - table[CLIP])
        against[arm] = {"change": asdict(mean_of(change_N)), "says": _says(mean_of(gain_N), table[BASE].mean())}
    arms = {arm: asdict(mean_of(values_N)) for arm, values_N in table.items()}
    return {"unit": one.unit, "good": one.good, "arms": arms, "against_base": against}


def _cmmd_told(found: Found) -> dict[str, Any] | None:
    table = found.embeddings()
    n = len(table[CLIP])
    if not n or not table[CLIP].size:
        return None
    distances = {arm: cmmd(videos, table[CLIP]) for arm, videos in table.items() if arm != CLIP}
    against: dict[str, Any] = {}
    for arm, (value, draws_D) in distances.items():
        if arm != BASE:
            change = interval(value - distances[BASE][0], draws_D - distances[BASE][1], n)
            against[arm] = {"change": asdict(change), "says": _says(change, distances[BASE][0], sign=-1)}
    arms = {arm: asdict(interval(*both, n)) for arm, both in distances.items()}
    return {"unit": "1000 MMD^2", "good": "less", "arms": arms, "against_base": against}


def _says(gain: Estimate, base: float, *, sign: int = 1) -> str:
    """better, worse or unsure: what is hardly anything is nothing, however sure it is."""
    notable = NOTABLE * abs(base)
    up, down = gain.surely_above(notable), gain.surely_below(-notable)
    if gain.n < FEWEST or not (up or down):
        return "unsure"
    return "better" if up == (sign > 0) else "worse"


def summarised(found: Found, absent: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole file."""
    plan = found.plan
    metrics = {name: told for name in plan.metrics if (told := metric_told(found, name))}
    silent = {name: "it says nothing of any of these videos" for name in plan.metrics if name not in metrics}
    tables = {name: found.values(name) for name in ("motion", "nearest_training_frame") if name in metrics}
    verdicts: dict[str, Any] = {}
    for arm in plan.video_arms:
        if arm.label == BASE:
            continue
        history = history_of(found, arm)
        said = judged(history) if history else None
        verdicts[arm.label] = {
            "kind": said.kind if said else "unknown",
            "sentence": said.sentence if said else "unknown: there are no held-out clips",
            "best_step": said.best_step if said else arm.step,
            "findings": findings(tables, arm.label, base=BASE, clips=CLIP),
        }
    samples = [{"name": one.name, "clip": one.clip.key, "seed": one.seed} for one in plan.inputs]
    folders = {CLIP: "samples/clips", **{arm.label: f"samples/{arm.slug}" for arm in plan.video_arms}}
    return {
        "format": 1,
        **about,
        "verdicts": verdicts,
        "sigmas": list(plan.sigmas),
        "losses": {group: told for group in GROUPS if (told := losses_told(found, group))},
        "metrics": metrics,
        "absent": {**absent, **(silent if plan.inputs else {})},
        "samples": samples,
        "videos": folders if plan.inputs else {},
        "missing": found.missing,
    }
