"""`python -m svdtrain adapter extract`: the LoRA between a full fine-tune and its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from svdtrain.adapters.algebra import Cut, extracted
from svdtrain.adapters.files import AdapterFile
from svdtrain.adapters.fingerprint import fingerprint_on_disk
from svdtrain.adapters.formats import DIFFUSERS
from svdtrain.adapters.layout import BaseWeights, base_folder
from svdtrain.adapters.spec import AdapterInfo
from svdtrain.commands.adapter.opening import expression, say, target, write
from svdtrain.commands.adapter.resize import described
from svdtrain.foundation.errors import ModelError, UsageError

if TYPE_CHECKING:
    from svdtrain.config.toolbox import ExtractConfig


RANK = 32
"""Where neither rank nor keep is asked for."""


def run(config: ExtractConfig, overrides: list[str]) -> None:  # noqa: ARG001
    """W_tuned - W_base, module by module, cut to a rank."""
    if config.base is None:
        raise UsageError("base: is not set", "base=FOLDER of the model that was tuned")
    base = BaseWeights.of_pipeline(base_folder(config.base))
    run_result = Path(config.tuned) / "denoiser"
    try:
        tuned = BaseWeights.of_pipeline(run_result if run_result.is_dir() else base_folder(config.tuned))
    except ModelError as error:
        raise ModelError(
            error.message.replace("base=", "tuned=", 1), "a run of adapter=full, or a diffusers folder"
        ) from error
    if config.rank is None and config.keep is None:
        config = config.model_copy(update={"rank": RANK})
    if tuned.layout.shapes != base.layout.shapes:
        odd = sorted(set(tuned.layout.shapes.items()) ^ set(base.layout.shapes.items()))
        raise ModelError(f"tuned={config.tuned}: '{odd[0][0]}' is not as in {config.base}", "the base that was tuned")
    pattern = expression(config.pattern)
    chosen = [module for module in base.layout.shapes if pattern.fullmatch(module)]
    target(config.out, config.to or DIFFUSERS)
    pairs = ((module, tuned.weight(module), base.weight(module)) for module in chosen)
    layers, loss = extracted(pairs, Cut(config.rank, config.keep))
    if not layers:
        raise ModelError(
            f"tuned={config.tuned}: none of its {len(chosen)} modules differs from the base", "is it tuned?"
        )
    info = AdapterInfo(base_fingerprint=fingerprint_on_disk(base))
    like = AdapterFile(base.folder, {}, info, format=DIFFUSERS, layout=base.layout)
    write(config, layers, like, f"extract {described(config.rank, config.keep)}", computed=True)
    say(f"left out: {loss.share:.2%} of the change of these modules (Frobenius)")
