"""A file in fresh stock pipelines: each program reads it by its own rules, and the samples are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from svdtrain.adapters.layout import base_folder
from svdtrain.adapters.pipelines import load_adapter
from svdtrain.adapters.programs import read_as
from svdtrain.commands.adapter.opening import say
from svdtrain.families.build import family_of_folder
from svdtrain.foundation.errors import ModelError
from svdtrain.foundation.hardware import choose_device
from svdtrain.foundation.quiet import quiet_packages
from svdtrain.generation.proof import proof, request_of, sampled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from svdtrain.adapters.layout import Layout
    from svdtrain.families.protocol import ModelFamily


def compare_in_pipelines(path: Path, base: str, programs: Sequence[str], layout: Layout) -> list[str]:
    """Print a line a program; return what went wrong. Both sides read the same file, so only rounding may differ."""
    quiet_packages()
    device = choose_device("auto")

    def fresh() -> ModelFamily:
        family = family_of_folder(base_folder(base))
        family.to(device, torch.float32)
        return family

    family = fresh()
    request = request_of(family, 64, 64, 4, 7, 127, 3)
    before = sampled(family, request)
    load_adapter(family.denoiser, path, check_base=False)
    memory = sampled(family, request)
    problems: list[str] = []
    for program in programs:
        try:
            other = fresh()
            read_as(program, other.denoiser, path, layout)
            found = proof(memory, before, sampled(other, request))
        except ModelError as error:
            problems.append(error.message)
            continue
        say(f"{program:<14} {found}")
        if not found.holds("fp32"):
            problems.append(f"in {program} {found}")
    return problems
