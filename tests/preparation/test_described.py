"""Captions on their way into a dataset: a model's where the folder has none, edited, and asked for once only."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.preparation import vlm
from tests.preparation.folders import index_rows, save_folder, words
from tests.preparation.test_vlm import save_tiny_vlm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_folder(tmp_path_factory.mktemp("described") / "in", videos=2)
    (folder / "wave 0.txt").write_text("a blue wave")
    return folder


def captions(out: Path) -> dict[str, str]:
    return {row["source"]: row["caption"] for row in index_rows(out).values()}


def test_trigger_find_and_replace(folder: Path, tmp_path: Path) -> None:
    assert main(words(folder, tmp_path / "out", "trigger=sks", "find=blue", "replace=red")) == 0
    assert captions(tmp_path / "out") == {"wave 0.mp4": "sks a red wave", "wave 1.mp4": "sks", "still.png": "sks"}


def test_a_model_describes_what_has_no_caption_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    save_tiny_vlm(model)
    asking = ["captions=vlm", f"model={model}", "prompt='say what'"]
    full, asked = vlm.caption_clips, list[str]()

    def breaks_after_one(*given: object, **options: object) -> object:
        for key, caption in full(*given, **options):  # type: ignore[arg-type]
            asked.append(key)
            yield key, caption
            raise KeyboardInterrupt

    monkeypatch.setattr(vlm, "caption_clips", breaks_after_one)
    assert main(words(folder, out, *asking)) == 130
    assert len(asked) == 1
    assert main(words(folder, out, *asking)) == 130
    assert len(set(asked)) == 2, "what was answered is not asked again"
    monkeypatch.undo()
    assert main(words(folder, out, *asking)) == 0
    found = captions(out)
    assert found["wave 0.mp4"] == "a blue wave"
    assert found["wave 1.mp4"]
    assert found["still.png"]
    capsys.readouterr()
    assert main(words(folder, tmp_path / "other", "captions=vlm", f"model={tmp_path}/nothing")) == 4
    assert "cannot be loaded" in capsys.readouterr().err
    assert main(words(folder, tmp_path / "other", "captions=vlm")) == 2
    assert "model: is not set" in capsys.readouterr().err
