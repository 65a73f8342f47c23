"""Which videos a config asks for, and what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from svdtrain.config import compose, overrides
from svdtrain.config.generation import GenerateConfig
from svdtrain.families.registry import spec_of
from svdtrain.foundation.errors import UsageError
from svdtrain.generation import requests
from tests.tiny_runs import save_picture


def names(*words: str) -> list[str]:
    request = overrides.parse(["base_only=true", *words], "generate")
    [config] = compose.check(request, GenerateConfig)
    return [f"{name} {asked.prompt}".strip() for name, asked in requests.requests_of(config).items()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("x", "y"):
        save_picture(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def reads_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model wants a picture and a prompt."""
    spec = replace(spec_of("svd"), needs_text=True)
    monkeypatch.setattr(requests, "spec_of", lambda _: spec)


def test_pictures_times_seeds(pictures: Path) -> None:
    assert names(f"image={pictures}", "seed=[1,2]") == ["x-1", "x-2", "y-1", "y-2"]


@pytest.mark.usefixtures("reads_text")
def test_a_model_that_reads_text_is_told_the_prompt_of_its_picture(pictures: Path) -> None:
    assert names(f"image={pictures}", "prompt=a fox") == ["x-0 a fox", "y-0 a fox"]
    assert names(f"image={pictures}/x.png", "prompt=[a fox,a cat]") == ["x-1-a-fox-0 a fox", "x-2-a-cat-0 a cat"]
    assert names("text_to_image=folder", "prompt=[a fox,a cat]") == ["1-a-fox-0 a fox", "2-a-cat-0 a cat"]
    with pytest.raises(UsageError, match="prompt: is not set, and nano is told"):
        names(f"image={pictures}")
    with pytest.raises(UsageError, match="image: is not set") as raised:
        names("prompt=a fox")
    assert "text_to_image=FOLDER" in raised.value.hint


def test_two_videos_of_one_name_are_refused(pictures: Path) -> None:
    save_picture(pictures / "x.jpg")
    with pytest.raises(UsageError, match="two videos would be called 'x-0'"):
        names(f"image={pictures}")
