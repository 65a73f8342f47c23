"""AdamW with one learning rate per half of the network, a warm-up, and a constant or cosine schedule."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_PART = re.compile(r"\.(?:lora|hada|lokr)_")


@dataclass(frozen=True)
class OptimizerSettings:
    """Plain values; learning rates by half."""

    learning_rates: dict[str, float]
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    schedule: str
    max_steps: int
    up_ratio: float = 1.0
    """LoRA+: how many times as fast lora_B learns."""


def schedule_factor(step: int, settings: OptimizerSettings) -> float:
    """The share of the learning rate at an optimizer step: a linear warm-up, then 1, or half a cosine down to 0."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, settings.max_steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def apply_settings(optimizer: torch.optim.Optimizer, scheduler: Any, settings: OptimizerSettings) -> None:  # noqa: ANN401
    """Rates, betas and decay as they are set, over what a checkpoint brought; the same bits where they are the same."""
    rates = _rates(settings)
    for group in optimizer.param_groups:
        group["initial_lr"] = rates[group["name"]]
        group["lr"] = group["initial_lr"] * schedule_factor(scheduler.last_epoch, settings)
        group["betas"], group["weight_decay"] = settings.betas, settings.weight_decay
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]


def half_of_weight(name: str, halves: dict[str, str]) -> str | None:
    """The half that an adapter's weight belongs to; None for others."""
    return halves.get(_PART.split(name)[0])


def _rates(settings: OptimizerSettings) -> dict[str, float]:
    """Of each group of weights."""
    rates = dict(settings.learning_rates)
    if settings.up_ratio != 1:
        rates |= {f"{half} lora_B": rate * settings.up_ratio for half, rate in settings.learning_rates.items()}
    return rates


def group_weights(
    denoiser: nn.Module, halves: dict[str, str], settings: OptimizerSettings
) -> dict[str, list[nn.Parameter]]:
    """What is trained, by learning rate. `halves`: module name -> half; weights of other modules: the first rate."""
    default = next(iter(settings.learning_rates))
    rates = _rates(settings)
    groups: dict[str, list[nn.Parameter]] = {group: [] for group in rates}
    for name, parameter in denoiser.named_parameters():
        if parameter.requires_grad:
            half = half_of_weight(name, halves) or default
            faster = f"{half} lora_B"
            groups[faster if ".lora_B." in name and faster in groups else half].append(parameter)
    return {group: members for group, members in groups.items() if members}


def build_optimizer(
    groups: Mapping[str, nn.Parameter], settings: OptimizerSettings, *, fused: bool = True
) -> dict[str, Any]:
    """Lightning's optimizer and per-step scheduler, over one parameter for each learning rate.

    fused: one kernel a group; not under fp16's loss scaling, where such a kernel unscales by itself and forbids clipping.
    """
    rates = _rates(settings)
    rows = [{"params": [p], "lr": rates[group], "name": group} for group, p in groups.items()]
    optimizer = torch.optim.AdamW(rows, betas=settings.betas, weight_decay=settings.weight_decay, fused=fused)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(step, settings))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
