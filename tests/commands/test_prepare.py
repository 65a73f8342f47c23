"""The command's words: every mistake is one line, and every key is in the YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from svdtrain.cli import main
from svdtrain.config import catalogue, compose, overrides
from svdtrain.config.preparation import PrepareConfig
from svdtrain.foundation.files import packaged
from tests.preparation.folders import numbered, words

MISTAKES = {
    "no folder": (["source={t}/nothing"], 3, "there is no such folder"),
    "nothing in it": (["source={t}/empty"], 3, "it holds no videos or pictures"),
    "one clip": (["source={t}/one"], 3, "1 clips came out of 1 sources"),
    "out inside": (["out={t}/one/out"], 2, "lies in source"),
    "out taken": (["out={t}/taken"], 2, "taken, it holds mine"),
    "captions torn": (["source={t}/latin"], 3, "metadata.jsonl: byte 3"),
    "no out": (["out=null"], 2, "out: null is not allowed"),
    "part": (["part=0/3"], 2, "part: '0/3' is not allowed"),
    "fps": (["fps=0"], 2, "fps: 0 is not allowed"),
    "least": (["least_seconds=3"], 2, "least_seconds: 3 is more than seconds=1"),
    "bucket": (["buckets=[[64,64]]"], 2, "buckets: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("empty", "one", "taken", "latin"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a.mp4").write_bytes(numbered(20))
    (tmp_path / "latin" / "a.mp4").write_bytes(numbered(20))
    (tmp_path / "latin" / "metadata.jsonl").write_bytes(b"caf\xe9")
    (tmp_path / "taken" / "mine").write_text("")
    wrong, code, said = MISTAKES[case]
    given = [word.format(t=tmp_path) for word in wrong]
    assert main(words(tmp_path / "one", tmp_path / "out", *given)) == code
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0]
    assert len(lines) <= 2


def test_yaml_and_schema_hold_the_same_keys() -> None:
    with initialize_config_dir(str(packaged("configs")), version_base="1.3"):
        composed = hydra_compose("prepare")
    assert sorted(overrides.typed(str(key)) for key in composed) == sorted(catalogue.keys(PrepareConfig))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("most_crop=0.1", "most_crop has no effect: there are no buckets"),
        ("prompt=what", "prompt has no effect: captions is files"),
        ("replace=b", "replace has no effect: find is empty"),
    ],
)
def test_a_setting_without_effect_is_told(word: str, said: str) -> None:
    request = overrides.parse(["source=a", "out=b", word], "prepare")
    assert compose.warnings(request, compose.check(request, PrepareConfig)) == [said]
