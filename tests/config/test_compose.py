"""Command lines through the real configs: what wins, what is refused and in which words, what a sweep starts."""

from __future__ import annotations

import json
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from svdtrain.cli import main
from svdtrain.config import compose, overrides
from svdtrain.config.generation import GenerateConfig
from svdtrain.config.schema import FitConfig
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

RECIPE = "config=style_lora"
SHARDED = ["memory.shard_base=true", "trainer.devices=2"]
LEVELS = "wanted a whole number from 1 to 1024"


def composed(*arguments: str, command: str = "fit") -> Any:  # noqa: ANN401
    """The one checked config that a command line stands for."""
    schema: type[BaseModel] = {"fit": FitConfig, "generate": GenerateConfig}[command]
    [config] = compose.check(compose.with_adapter_model(overrides.parse(list(arguments), command)), schema)
    return config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([RECIPE, "model=svd_x"], "model=svd_x: no such option of model; did you mean 'svd_xt'?"),
        (["config=stle_lora"], "config=stle_lora: no such recipe; did you mean 'style_lora'?"),
        (["style_lora"], "style_lora: not of the form KEY=VALUE; did you mean 'config=style_lora'?"),
        ([RECIPE, "trainer.max_stepss=3"], "trainer.max_stepss: no such key; did you mean 'trainer.max_steps'?"),
        ([RECIPE, "max_steps=3"], "max_steps: no such key; did you mean 'trainer.max_steps'?"),
        ([RECIPE, "lr=1"], "lr: no such key; did you mean 'optimizer.learning_rate'?"),
        ([RECIPE, "logger.zzz=1"], "logger.zzz: no such key; known: logger.kind, logger.project"),
        ([RECIPE, "trainer=fast"], "trainer=fast: no such option of trainer; did you mean 'default'?"),
        (
            [RECIPE, "model=null"],
            "model=null: no such option of model; known: animatediff, cogvideox",
        ),
        ([RECIPE, "+seed=1"], "+seed=1: keys cannot be added"),
        ([RECIPE, "++trainer.max_steps=1"], "++trainer.max_steps=1: keys cannot be added"),
        ([RECIPE, "~trainer.max_steps"], "trainer.max_steps: is missing; wanted a whole number at least 1"),
        ([RECIPE, "data.source=[/a(b"], "data.source=[/a(b: cannot be read as KEY=VALUE"),
        ([RECIPE, "seed=~1"], "seed: '~1' is not allowed"),
        ([RECIPE, "adapter.rank=8,16"], "adapter.rank=8,16: several values for one run"),
        ([RECIPE, "adapter.rank=0"], f"adapter.rank: 0 is not allowed; {LEVELS} (and 4 more)"),
        ([RECIPE, "adapter.spatial.rank=1.5"], f"adapter.spatial.rank: 1.5 is not allowed; {LEVELS}"),
        ([RECIPE, "model.frames=1"], "model.frames: 1 is not allowed; wanted a whole number from 2 to 512"),
        (
            [RECIPE, "optimizer.learning_rate=-1"],
            "optimizer.learning_rate: -1 is not allowed; wanted a number above 0 and at most 1 (and 2 more)",
        ),
        (
            [RECIPE, "optimizer.learning_rate=nan"],
            "optimizer.learning_rate: nan is not allowed; wanted a number above 0 and at most 1 (and 2 more)",
        ),
        (
            [RECIPE, "trainer.precision=fp16"],
            "trainer.precision: 'fp16' is not allowed; wanted 'auto' or '32' or 'bf16-mixed' or '16-mixed'",
        ),
        (
            [RECIPE, "data.motion_bucket=lots"],
            "data.motion_bucket: 'lots' is not allowed; wanted 'clip' or a whole number from 0 to 255",
        ),
        (
            [RECIPE, "optimizer.betas=[0.9]"],
            "optimizer.betas: [0.9] is not allowed; wanted a list of 2, each a number at least 0 and below 1",
        ),
        (
            [RECIPE, "validation.sigmas=[]"],
            "validation.sigmas: [] is not allowed; wanted a filled list, each a number above 0",
        ),
        (
            [RECIPE, "data.horizontal_flip=maybe"],
            "data.horizontal_flip: 'maybe' is not allowed; wanted true or false",
        ),
        ([RECIPE, "trainer.nodes=2", "privacy=airgapped"], "trainer.nodes: ranks of several machines meet"),
        ([RECIPE, "memory.shard_base=true"], "memory.shard_base: a machine's only GPU keeps all of it"),
        ([RECIPE, *SHARDED, "adapter.kind=full"], "memory.shard_base: nothing is frozen where adapter.kind is full"),
        ([RECIPE, *SHARDED, "speed=compile"], "memory.shard_base: blocks in parts are not for speed=compile"),
        ([RECIPE, "memory.budget=24"], "memory.budget: 24 is not allowed; wanted something like 24GiB or null"),
        ([RECIPE, "name=../x"], "name: '../x' is not allowed; wanted text that matches ^[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
        ([RECIPE, "model.fps=${modle.fps}"], "model.fps: Interpolation key 'modle.fps' not found"),
        ([RECIPE, "seed=" + "9" * 5000], "seed=" + "9" * 54 + "…: cannot be read as KEY=VALUE"),
        ([RECIPE, "data.source=" + "[" * 500], "cannot be read as KEY=VALUE"),
        ([RECIPE, "data.source=[choice(a,b)]"], "data.source=[choice(a,b)]: a sweep within a value"),
        (["-m", RECIPE, "seed=range(0,1000000000)"], "seed: a range of too many values"),
        (["-m", RECIPE, "seed=range(0,1,1e-9)"], "seed: a range of too many values"),
        ([RECIPE, "hydra.verbose=3"], "hydra.verbose: Hydra cannot use it: AssertionError"),
        ([RECIPE, "~hydra/launcher=3"], "hydra/launcher: Hydra cannot use it: ValueError"),
        ([RECIPE, "model=[svd,nano]"], "model=['svd', 'nano']: no such option of model; known: "),
        ([RECIPE, "+hydra/launcher=${name}"], "+hydra/launcher=${name}: the name of an option is wanted"),
        ([RECIPE, "~model=-1"], "~model=-1: no option of model is called so"),
        ([RECIPE, "--cfg", "job", "-p", "hydra.run"], "--package hydra.run: --cfg job has no such part"),
        ([RECIPE, "--cfg", "all", "-p", "nothing"], "--package nothing: --cfg all has no such part"),
        ([RECIPE, "--resolve"], "--resolve: has no effect by itself"),
        ([RECIPE, "--cfg", "job", "-m"], "two of them are given"),
        ([RECIPE, "--shell-completion"], "--shell-completion: what is to be done?"),
        ([RECIPE, "--config-dir", "x" * 300], "too long for the name of a file"),
        ([], "data.source: is not set"),
        (["config=nano_pretrain"], "data.source: is not set"),
        ([RECIPE, "model._target_=os.system"], "model._target_=os.system: _target_ is refused, it can run any code"),
        ([RECIPE, "hydra.callbacks={x:{_target_:a}}"], "_target_ is refused, it can run any code"),
        ([RECIPE, "--bogus"], "unrecognized arguments: --bogus"),
        ([RECIPE, "--config-dir", "/nowhere"], "/nowhere: no such config folder"),
        ([RECIPE, "--config-name", "fitt"], "fitt: no such primary config; did you mean 'fit'?"),
        ([RECIPE, "--experimental-rerun", "x"], "--experimental-rerun: refused"),
        (["-m", "config=style_lora,motoin_lora"], "config=motoin_lora: no such recipe; did you mean 'motion_lora'?"),
        (["-m", RECIPE, "adapter.rank=4,0"], "adapter.rank: 0 is not allowed"),
        (["-m", RECIPE, "seed=1,2", "run_dir=x"], "run_dir: every job of the sweep would write to x"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *arguments]) == 2
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert first.startswith("error: ")
    assert expected in first
    assert all(line.startswith("hint: ") for line in others)
    assert len(others) <= 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_fault_inside_a_list_is_told_by_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "check", "x", "for=${${a"]) == 2
    assert capsys.readouterr().err.startswith("error: for[0]: no viable alternative")


@pytest.mark.parametrize("content", [b"a: \xff", b"a: \0", b"a: [", b"- " * 3000], ids=count())
def test_a_primary_config_that_is_none_is_named(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert main(["fit", "--config-dir", str(tmp_path), "--config-name", "mine"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'mine.yaml'}")


def test_generate_does_not_take_fits_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", RECIPE]) == 2
    assert "config: no such key" in capsys.readouterr().err


def test_debug_beats_recipe_beats_groups_and_the_command_line_beats_all() -> None:
    assert composed(f"{RECIPE}").trainer.max_steps == composed(RECIPE).model.max_steps
    assert composed(RECIPE, "data.horizontal_flip=true").data.horizontal_flip
    assert not composed(RECIPE, "debug=overfit").data.horizontal_flip
    assert composed("debug=quick", RECIPE).trainer.max_steps == 2
    assert composed(RECIPE, "debug=quick", "trainer.max_steps=5").trainer.max_steps == 5
    assert composed("model=svd_xt", RECIPE).model.name == "svd_xt"
    assert composed("adapter=lora", "config=nano_pretrain", "data.source=x").adapter.kind == "lora"


def test_rates_and_ranks_follow_their_source() -> None:
    adapter = composed(RECIPE, "optimizer.learning_rate=1e-2", "adapter.rank=8", "adapter.spatial.rank=4").adapter
    assert adapter.spatial.learning_rate == pytest.approx(1e-2)
    assert adapter.temporal.learning_rate == pytest.approx(2e-3)
    assert (adapter.spatial.rank, adapter.spatial.alpha) == (4, 4)
    assert (adapter.temporal.rank, adapter.temporal.alpha) == (8, 8)


@pytest.mark.parametrize(
    "source",
    ["demo:style", "/my clips/a-1.tar", "../shards", "C:\\clips", "/clips ünï", "a (1)", "ds [final]", "~/clips"],
)
def test_a_path_needs_no_quotes(source: str) -> None:
    assert composed(RECIPE, f"data.source={source}").data.source == source


def test_flags_may_stand_anywhere_and_cfg_shows_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", RECIPE, "--cfg", "job", "trainer.max_steps=7", "--resolve"]) == 0
    shown = capsys.readouterr().out
    assert "max_steps: 7" in shown
    assert "learning_rate: 0.0006" in shown


def test_a_users_recipe_and_model_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("config", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config/mine.yaml").write_text("# @package _global_\nname: mine\ndata: {source: demo:style}\n")
    (tmp_path / "model/tiny.yaml").write_text("defaults: [nano, _self_]\nname: tiny\nframes: 4\n")
    mine = ["--config-dir", str(tmp_path), "config=mine"]
    config = composed(*mine, "model=tiny")
    assert (config.name, config.model.name, config.model.frames) == ("mine", "tiny", 4)

    cases = {
        "typo": ("# @package _global_\ntrainr: {max_steps: 3}\n", "trainr: no such key; did you mean 'trainer'?"),
        "bare": ("name: bare\n", "config: a file under config/ needs '# @package _global_' as its first line"),
        "runs": ("# @package _global_\ndata: {_target_: os.system}\n", "data._target_: os.system is refused"),
        "hook": ("# @package _global_\nhydra: {callbacks: {a: {_target_: os.system}}}\n", "os.system is refused"),
        "torn": ("# @package _global_\nname: [a\n", "torn.yaml, line 3: not YAML"),
        "lost": ("# @package _global_\ndefaults:\n  - override /model: svdd\n", "model/svdd: no such config"),
    }
    for name, (text, expected) in cases.items():
        (tmp_path / f"config/{name}.yaml").write_text(text)
        assert main(["fit", f"config={name}", "--config-dir", str(tmp_path)]) == 2
        assert expected in capsys.readouterr().err.splitlines()[0]


def test_a_users_model_with_open_values(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shipped = (packaged("configs") / "model/nano.yaml").read_text()
    (tmp_path / "model/open.yaml").write_text(shipped.replace("frames: 8", "frames: ???"))
    with pytest.raises(UsageError, match=r"^model\.frames: must be given"):
        composed(RECIPE, "model=open", "--config-dir", str(tmp_path))
    assert composed(RECIPE, "model=open", "model.frames=5", "--config-dir", str(tmp_path)).model.frames == 5


def test_a_sweep_runs_each_job_and_writes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = overrides.parse(["-m", "config=style_lora,motion_lora", "adapter.rank=8,16"], "fit")
    assert len(compose.check(request, FitConfig)) == 2
    seen: list[tuple[str, int]] = []
    compose.run(request, FitConfig, lambda: lambda config, _: seen.append((config.name, config.adapter.spatial.rank)))
    assert seen == [("style_lora", 8), ("style_lora", 16), ("motion_lora", 8), ("motion_lora", 16)]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["multirun.yaml"]


def test_a_failing_job_of_a_sweep_is_named_and_raised_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request, seen = overrides.parse(["-m", RECIPE, "seed=1,2,3"], "fit"), []

    def command(config: FitConfig, _: list[str]) -> None:
        seen.append(config.seed)
        if config.seed == 2:
            raise UsageError("seed two")

    with pytest.raises(UsageError, match="seed two"):
        compose.run(request, FitConfig, lambda: command)
    assert seen == [1, 2, 3]
    assert "['config=style_lora', 'seed=2']" in capsys.readouterr().err


def test_a_single_run_makes_no_file_and_keeps_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["svdtrain", "fit", RECIPE])
    seen: list[tuple[list[str], list[str]]] = []

    def command(_: FitConfig, given: list[str]) -> None:
        seen.append((given, list(sys.argv)))

    compose.run(overrides.parse([RECIPE], "fit"), FitConfig, lambda: command)
    assert seen == [([RECIPE], ["svdtrain", "fit", RECIPE])]
    assert not list(tmp_path.iterdir())


def write_adapter(file: Path, metadata: dict[str, str]) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(header).to_bytes(8, "little") + header)


def test_generate_takes_the_model_the_adapter_was_made_for(tmp_path: Path) -> None:
    base = "/bases/it's (one)"
    run = tmp_path / "run"
    write_adapter(run / "adapter/adapter_model.safetensors", {"svdtrain.model": "svd", "svdtrain.source": base})
    given = [f"adapter={run}", "image=a.png"]
    config = composed(*given, command="generate")
    assert (config.model.name, config.model.source, config.adapter) == ("svd", base, str(run))
    assert composed(*given, "model=svd_xt", command="generate").model.name == "svd_xt"
    assert composed(*given, "model.source=/other", command="generate").model.source == "/other"
    assert composed(f"adapter=[{run},{run}]", "image=a.png", command="generate").model.name == "svd"
    assert composed("adapter=/no/such/run", "image=a.png", command="generate").model.name == "nano"

    write_adapter(tmp_path / "odd.safetensors", {"svdtrain.model": "odd"})
    with pytest.raises(UsageError, match="made for model 'odd', which is no model here"):
        composed(f"adapter={tmp_path / 'odd.safetensors'}", "image=a.png", command="generate")
