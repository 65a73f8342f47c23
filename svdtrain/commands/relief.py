"""What would need less memory, asked of a process of its own: where memory ran out, none is left to find it out with.

`python -m svdtrain.commands.relief` reads a fit's settings as one line of JSON, and answers in lines as it gets to know.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import SystemFault
from svdtrain.foundation.hardware import choose_device, choose_precision
from svdtrain.planning.relief import Foretold, Mend, foretell

if TYPE_CHECKING:
    from svdtrain.config.schema import FitConfig
    from svdtrain.planning.training_step import Sizes

PATIENCE = 60.0
"""Seconds; what is known by then counts."""


def ask(config: FitConfig, *, sizes: Sizes = (), encoded_ahead: bool = False) -> Foretold:
    """As planning.relief foretells. Raises SystemFault where there is no answer, OSError where no process can be started."""
    precision = choose_precision(config.trainer.precision, choose_device(config.trainer.device))
    trainer = config.trainer.model_copy(update={"precision": precision})  # so that the child need not ask the GPU
    settings = config.model_copy(update={"trainer": trainer}).model_dump(mode="json")
    asked = json.dumps({"config": settings, "sizes": list(sizes), "encoded_ahead": encoded_ahead})
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", __name__], input=asked, capture_output=True, text=True, timeout=PATIENCE
        )
        said, why = answer.stdout, (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
    except subprocess.TimeoutExpired as over:
        said, why = (over.stdout or b"").decode(), f"no answer in {PATIENCE:g} s"
    lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        raise SystemFault(why)
    return Foretold(lines[0], tuple(Mend(*line) for line in lines[1:]))


def main() -> None:
    """The child."""
    from svdtrain.config.schema import FitConfig
    from svdtrain.foundation.quiet import quiet_packages
    from svdtrain.training.build import build_module

    quiet_packages()
    asked = json.load(sys.stdin)
    config, sizes = FitConfig.model_validate(asked["config"]), [tuple(size) for size in asked["sizes"]]
    for found in foretell(config, build_module, sizes=sizes, encoded_ahead=asked["encoded_ahead"]):
        sys.stdout.write(json.dumps([found.words, found.peak] if isinstance(found, Mend) else found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
