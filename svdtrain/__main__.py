"""python -m svdtrain."""

from __future__ import annotations

from svdtrain.cli import entry

if __name__ == "__main__":
    entry()
