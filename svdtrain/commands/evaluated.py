"""What `evaluate` is given: runs and files, the run's own settings where it has any, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from svdtrain.adapters.container import Container
from svdtrain.adapters.files import adapter_path
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.config.schema import DataConfig, FitConfig
from svdtrain.config.strengths import even
from svdtrain.evaluation.work import BASE, Arm
from svdtrain.foundation.errors import UsageError, shown
from svdtrain.foundation.files import sha256_of
from svdtrain.reporting.run_record import RunRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svdtrain.config.evaluation import EvaluateConfig
    from svdtrain.config.schema import ModelConfig


@dataclass
class Evaluated:
    """One adapter and the run that it is of."""

    place: str
    file: Path
    info: AdapterInfo
    run_dir: Path | None = None
    fit: FitConfig | None = None
    state: str = "done"
    """Of the run."""
    damage: str = ""
    """Of its folder: what cannot be read."""

    def marks(self) -> list[str]:
        """What the reader of the result should know."""
        found = [f"{self.place}: damaged, {self.damage}"] if self.damage else []
        if self.state != "done":
            step = self.info.steps or "one that it does not tell"
            found.append(f"{self.place}: unfinished ({shown(self.state)}); its adapter's step: {step}")
        return found

    @property
    def earlier(self) -> list[Path]:
        """Adapters of earlier saves, where the run itself was named and kept them."""
        if self.run_dir is None or self.file != self.run_dir / "adapter" / self.file.name:
            return []
        return sorted(self.run_dir.glob(f"adapters/step-*/{self.file.name}"))


def evaluated(place: str) -> Evaluated:
    """Read what there is. Raises ModelError where there is no adapter; of a damaged run the adapter is taken."""
    file = adapter_path(place)
    found = Evaluated(place, file, AdapterInfo.from_header(Container(file).metadata))
    found.run_dir = next((one for one in list(file.parents)[1:3] if (one / "run.json").is_file()), None)
    if found.run_dir is None:
        found.damage = "run.json is missing" if file.parent.name == "adapter" and Path(place).is_dir() else ""
        return found
    try:
        record = RunRecord.reopen(found.run_dir, writes=False)
        found.state = record.fields["state"]
        found.fit = FitConfig.model_validate(record.config())
    except UsageError as error:
        found.damage = shown(error.message.partition(": ")[2], 120)
    except ValidationError:
        found.damage = "config.yaml has not the settings of a fit"
    return found


def model_of(config: EvaluateConfig, overrides: Sequence[str], first: Evaluated) -> ModelConfig:
    """The run's own, as it was trained; where the command line changes it, that of the command line."""
    named = [word for word in overrides if word.startswith("model.") and not word.startswith("model.source=")]
    if first.fit is None or named or config.model.name != first.fit.model.name:
        return config.model
    return first.fit.model.model_copy(update={"source": config.model.source or first.fit.model.source})


def data_of(config: EvaluateConfig, model: ModelConfig, first: Evaluated, source: str | None) -> DataConfig:
    """How clips are read: as in the run. source: where from, instead. Raises UsageError where nothing says it."""
    told = first.fit.data if first.fit else None
    where = source or config.data or (told.source if told else first.info.data_source) or None
    if where is None:
        raise UsageError(f"data: is not set, and {first.place} does not say", "data=FOLDER or data=demo:NAME")
    if told is None:
        plain: dict[str, object] = {"fps": model.data_fps, "motion_bucket": model.data_motion_bucket}
        read = {"source": where, "batch_size": 1, "workers": 0, "cache": "none", "horizontal_flip": False}
        told = DataConfig.model_validate(read | plain)
    return told.model_copy(
        update={"source": where, "order": "exact", "buckets": False, "stills": False, "windows": None}
    )


def arms_of(config: EvaluateConfig, found: Sequence[Evaluated]) -> list[Arm]:
    """The base first, then each adapter at each strength, then what its run kept of earlier steps."""
    arms: list[Arm] = []
    for one in found:
        name, sha256, step = _name(one, len(found)), sha256_of(one.file), step_of(one.info)
        if not arms:
            arms.append(base_of(one))
        whole = ""
        for strength in config.strengths:
            label = name if strength == even(1) else f"{name}@{strength}"
            label = label if label not in {arm.label for arm in arms} else f"{label}-{len(arms)}"
            arms.append(Arm(label, one.file, sha256, strength, step))
            whole = label if strength == even(1) else whole
        arms += earlier_of(one, sha256, whole) if whole else []
    return arms


def base_of(one: Evaluated) -> Arm:
    """The base, whose adapter is switched off."""
    return Arm(BASE, one.file, "", even(0))


def earlier_of(one: Evaluated, sha256: str, label: str) -> list[Arm]:
    """What a run kept of earlier steps than its last, which is labelled so."""
    found = [(file, sha256_of(file)) for file in one.earlier]
    return [
        Arm(f"{label}/{file.parent.name}", file, mark, even(1), int(file.parent.name.rpartition("-")[2]), of=label)
        for file, mark in found
        if mark != sha256
    ]


def _name(one: Evaluated, count: int) -> str:
    if count == 1:
        return "adapter"
    if one.run_dir and one.file.parent.name == "adapter":
        return one.run_dir.name
    return one.file.parent.name if one.file.name == "adapter_model.safetensors" else one.file.stem


def step_of(info: AdapterInfo) -> int:
    """The step that a header tells; 0 where it tells none."""
    return int(info.steps) if info.steps.isascii() and info.steps.isdigit() and len(info.steps) < 12 else 0
