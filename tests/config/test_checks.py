"""Settings that contradict each other are refused; settings that cannot take effect are told."""

from __future__ import annotations

import pytest

from svdtrain.config import compose, overrides
from svdtrain.config.generation import GenerateConfig
from svdtrain.config.schema import FitConfig
from svdtrain.foundation.errors import UsageError

PICTURE = ["adapter=x", "image=a.png"]
DRAWN = ["adapter=x", "prompt=a fox", "text_to_image=folder"]


def warnings(command: str, *arguments: str) -> list[str]:
    schema = {"fit": FitConfig, "generate": GenerateConfig}[command]
    request = overrides.parse(list(arguments), command)
    return compose.warnings(request, compose.check(request, schema))


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        (
            "fit",
            ["optimizer.warmup_steps=300"],
            r"optimizer\.warmup_steps: 300 leaves no step .*max_steps=",
        ),
        ("fit", ["model=svd_xt", "model.height=500"], r"model\.height: 500 is not a multiple of 64"),
        ("fit", ["model.width=72"], r"model\.width: 72 is not a multiple of 16"),
        ("fit", ["model.noise_levels.minimum=700"], r"model\.noise_levels\.minimum: 700 is not below"),
        ("fit", ["data.source=null"], r"data\.source: is not set"),
        ("generate", ["image=a.png"], "adapter: is not set"),
        ("generate", ["adapter=x"], "image: is not set"),
        ("generate", [*PICTURE, "strength=[1,2]"], "strength: 2 numbers for 1 adapters"),
        ("generate", [*DRAWN, "image=a.png"], "text_to_image: image is given, too"),
        ("generate", ["adapter=x", "text_to_image=a"], "prompt: is not set, and text_to_image draws what it says"),
        (
            "generate",
            [*DRAWN, "image_adapter=[a,b]", "image_adapter_strength=[1,2,3]"],
            "image_adapter_strength: 3 numbers for 2 adapters",
        ),
    ],
)
def test_contradictions_are_refused(command: str, arguments: list[str], expected: str) -> None:
    first = ["config=style_lora"] if command == "fit" else []
    with pytest.raises(UsageError, match=expected):
        warnings(command, *first, *arguments)


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        ("fit", ["config=motion_lora", "adapter.spatial.rank=4"], ["adapter.spatial.rank"]),
        ("fit", ["config=motion_lora", "adapter.temporal.rank=4"], []),
        ("fit", ["config=style_lora", "adapter=full", "adapter.rank=4"], ["adapter.rank"]),
        ("fit", ["config=style_lora", "adapter.pattern=.*", "adapter.targets=both"], ["adapter.targets"]),
        ("fit", ["config=style_lora", "memory=blocks", "memory.budget=9GiB"], ["memory.budget"]),
        ("fit", ["config=style_lora", "memory.budget=9GiB"], []),
        ("fit", ["config=style_lora", "logger.project=a"], ["logger.project"]),
        ("fit", ["config=style_lora", "logger=wandb", "logger.project=a"], []),
        ("fit", ["config=style_lora", "model=svd", "model.source=/a", "model.revision=b"], ["model.revision"]),
        ("fit", ["config=style_lora", "validation.every=9999"], []),
        ("generate", [*PICTURE, "base_only=true"], ["adapter"]),
        ("generate", [*PICTURE, "strength=0.5"], []),
        (
            "generate",
            [*PICTURE, "image_adapter=a", "text_to_image_steps=3"],
            ["text_to_image_steps", "image_adapter"],
        ),
        ("generate", [*DRAWN, "image_adapter_strength=0.5"], ["image_adapter_strength"]),
        ("generate", [*DRAWN, "image_adapter=a", "image_adapter_strength=0.5", "text_to_image_guidance=2"], []),
    ],
)
def test_idle_settings_are_told(command: str, arguments: list[str], expected: list[str]) -> None:
    assert [line.partition(" has no effect")[0] for line in warnings(command, *arguments)] == expected
