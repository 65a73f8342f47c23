"""The child process of a payload test: one command line after the other, and what each came to, as a line of JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from svdtrain.cli import main


def run(name: str, words: list[str]) -> dict[str, object]:
    """One command, in the folder of results."""
    with Path(os.environ["AUDIT_LOG"]).open("a") as log:
        log.write(f"== {name}\n")
    said = io.StringIO()
    sys.argv = ["svdtrain", *words]
    os.environ.pop("SVDTRAIN_RUN_DIR", None)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    return {"name": name, "code": code, "said": said.getvalue()[-2000:]}


if __name__ == "__main__":
    for name, words in json.loads(Path(sys.argv[1]).read_text()):
        result = json.dumps(run(name, words))
        sys.__stdout__.write(result + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
