"""README's table of models, from the registry and configs/model: `PYTHONPATH=. python scripts/model_table.py` writes it."""

from __future__ import annotations

from pathlib import Path

from scripts.marked import with_part
from svdtrain.config import compose, overrides
from svdtrain.config.schema import FitConfig
from svdtrain.families.registry import FAMILIES, spec_of
from svdtrain.foundation.files import packaged

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: scripts/model_table.py -->\n", "<!-- end of models -->\n"
PAGE = "https://huggingface.co/"


def table() -> str:
    """A row for each file of configs/model, in the order of the families."""
    names = sorted(file.stem for file in (packaged("configs") / "model").glob("*.yaml"))
    configs = [
        compose.check(overrides.parse([f"model={name}", "data.source=x"], "fit"), FitConfig)[0] for name in names
    ]
    configs.sort(key=lambda config: list(FAMILIES).index(config.model.family))
    rows = [
        "| `model=` | family | told | frames | size | weights (pinned) | licence |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in (config.model for config in configs):
        spec = spec_of(model.family)
        told = " and ".join(["a picture"] * spec.needs_image + ["a text"] * spec.needs_text)
        weights = (
            f"[{model.id}]({PAGE}{model.id})"
            if model.id
            else f"[in the package](svdtrain/assets/{model.name}/README.md)"
        )
        if model.motion_adapter:
            adapter = model.motion_adapter.partition("@")[0]
            weights += f", [{adapter}]({PAGE}{adapter})"
        cells = (
            f"`{model.name}`",
            model.family,
            told,
            model.frames,
            f"{model.height} x {model.width}",
            weights,
            model.licence,
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The text with its table made anew."""
    return with_part(text, BEGIN, END, table())


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
