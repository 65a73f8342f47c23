"""What a config may not do, wherever it says it: run code, read the environment, set variables, choose where Hydra writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hydra.core.utils import setup_globals
from omegaconf.basecontainer import BaseContainer

from svdtrain.cli import main
from svdtrain.config import resolvers

if TYPE_CHECKING:
    from pathlib import Path

CODE = "_target_: os.system, command: touch {marker}"
ALIASES = "\n".join([f"a{n}: &a{n} [{','.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(12)])
"""9 ** 11 values."""
IN_A_FILE = {  # name -> (text of a recipe, fragment of the error)
    "in a list": (f"validation: {{sigmas: [{{{CODE}}}]}}", "validation.sigmas.0._target_"),
    "deep": (f"adapter: {{spatial: {{rank: {{{CODE}}}}}}}", "adapter.spatial.rank._target_"),
    "interpolated": ("name: {_target_: '${seed}'}", "name._target_: ${seed} is refused"),
    "a target of two parts": ("name: {_target_: {a: b}}", "name._target_"),
    "made of text": ("hydra: {callbacks: {a: \"${oc.create:'{_target_: os.system}'}\"}}", "callbacks run code"),
    "oc.create": ("name: ${oc.create:{_target_:os.system}}", "name: ${oc.create:…} is refused"),
    "values of a config that holds them": ("data: {cache: '${oc.dict.values:data}'}", "${oc.dict.values:…} is refused"),
    "aliases of aliases": (ALIASES, "evil.yaml, line 5: not YAML: more than 20 aliases"),
    "an alias of itself": ("a: &a [*a]", "evil.yaml, line 2: not YAML: an alias of what it stands in"),
    "a deep list": ("a: " + "[" * 2000, "line 2: not YAML: more than 40 lists and tables within each other"),
    "no text": ("name: a\0b", "evil.yaml, byte 27: not YAML: special characters are not allowed"),
    "a tag that lies": ("seed: !!int ''", "line 2: not YAML: a value is not what its tag says"),
    "oc.decode": ("name: '${oc.decode:\"${oc.env:SECRET_CANARY}\"}'", "name: "),
    "Hydra's own function": (
        "hydra: {launcher: {_target_: hydra.utils.get_class}}",
        "hydra.launcher._target_",
    ),
    "a callback": ("hydra: {callbacks: {a: {_target_: hydra.experimental.callback.Callback}}}", "_target_"),
    "a log handler": ("hydra: {job_logging: {handlers: {a: {'()': os.system}}}}", "logging can call any code"),
    "a log class": ("hydra: {hydra_logging: {handlers: {a: {class: subprocess.Popen}}}}", "logging can call any code"),
    "a log object": (
        "hydra: {job_logging: {handlers: {a: {stream: 'ext://os.environ'}}}}",
        "logging can call any code",
    ),
    "a variable": ("hydra: {job: {env_set: {PYTHONPATH: /tmp}}}", "hydra.job.env_set.PYTHONPATH"),
    "a copied variable": ("hydra: {job: {env_copy: [SECRET_CANARY]}}", "hydra.job.env_set.SECRET_CANARY: is refused"),
    "a sweep over Hydra": ("hydra: {sweeper: {params: {hydra.job.env_set.A: 1}}}", "hydra.sweeper.params.hydra.job"),
    "a place": ("hydra: {run: {dir: /tmp/elsewhere}}", "hydra.run.dir: /tmp/elsewhere is refused in a file"),
    "a folder": ("hydra: {output_subdir: .ssh}", "hydra.output_subdir: .ssh is refused in a file"),
    "another place": ("hydra: {sweep: {dir: /tmp/elsewhere}}", "hydra.sweep.dir"),
    "the environment": ("name: ${oc.env:SECRET_CANARY}", "name: ${oc.env:SECRET_CANARY} is refused"),
    "with a default": ("name: '${oc.env:SECRET_CANARY,x}'", "name: ${oc.env:SECRET_CANARY} is refused"),
    "a secret of ours": ("name: ${oc.env:SVDTRAIN_TOKEN}", "name: ${oc.env:SVDTRAIN_TOKEN} is refused"),
    "in a name": (
        "name: '${oc.env:${logger.project}}'\nlogger: {project: SECRET_CANARY}",
        "name: ${oc.env:SECRET_CANARY}",
    ),
    "no such variable": (
        "name: ${oc.env:SVDTRAIN_NOWHERE}",
        "name: ${oc.env:SVDTRAIN_NOWHERE}: the environment has no",
    ),
    "an old resolver": ("name: ${env:SECRET_CANARY}", "Unsupported interpolation type env"),
}
ON_THE_COMMAND_LINE = {
    "name=${oc.env:SECRET_CANARY}": "name: ${oc.env:SECRET_CANARY} is refused",
    "hydra.searchpath=[pkg://antigravity]": "hydra.searchpath: pkg://antigravity is refused, it names no folder",
    "+hydra.job.env_set.LD_PRELOAD=a.so": "hydra.job.env_set.LD_PRELOAD: is refused, it sets variables",
    "hydra.job_logging={version:1,root:{'()':os.system}}": "cannot be read",
    "hydra.launcher._target_=os.system": "_target_ is refused",
    "hydra/launcher=nothing": "no such config",
}


@pytest.fixture(autouse=True)
def _canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_CANARY", "canary-in-the-environment")
    monkeypatch.setenv("SVDTRAIN_TOKEN", "canary-in-the-environment")
    monkeypatch.delenv("SVDTRAIN_NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", IN_A_FILE)
def test_a_recipe_is_refused_by_its_key(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = IN_A_FILE[name]
    (tmp_path / "config").mkdir()
    marker = tmp_path / "marker"
    (tmp_path / "config/evil.yaml").write_text(f"# @package _global_\n{text.replace('{marker}', str(marker))}\n")
    assert main(["fit", "config=evil", "data.source=demo:style", "--config-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert expected in err.splitlines()[0]
    assert "canary-in" not in out + err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config"]


@pytest.mark.parametrize("word", ON_THE_COMMAND_LINE)
def test_a_word_is_refused(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "config=style_lora", word]) == 2
    out, err = capsys.readouterr()
    assert ON_THE_COMMAND_LINE[word] in err.splitlines()[0]
    assert "canary-in" not in out + err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["pkg://planted", "planted", "${oc.env:HOME}"])
def test_a_primary_config_has_no_package_searched(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra would import it."""
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    (tmp_path / "evil.yaml").write_text(f"defaults: [fit, _self_]\nhydra: {{searchpath: ['{place}']}}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["fit", "config=style_lora", "--config-dir", str(tmp_path), "--config-name", "evil"]) == 2
    assert f"hydra.searchpath: {place} is refused" in capsys.readouterr().err
    assert main(["fit", "config=style_lora", f"hydra.searchpath=['{place}']"]) == 2
    assert not (tmp_path / "marker").exists()


def test_places_and_job_numbers_are_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    words = [
        "seed=${oc.env:SLURM_ARRAY_TASK_ID}",
        "run_dir=${oc.env:SVDTRAIN_NOWHERE,null}",
        "logger.project=${oc.env:HOME}",
    ]
    assert main(["fit", "config=style_lora", *words, "--cfg", "job", "--resolve"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 7" in shown or "seed: '7'" in shown


def test_there_are_no_other_resolvers() -> None:
    """A new one of OmegaConf or Hydra is looked at before it is let in: does it read files, the environment, or run code?"""
    setup_globals()
    harmless = {"oc.select", "now", "hydra", "python_version"}
    assert set(BaseContainer._resolvers) == harmless | {"times", "below", "oc.env", *resolvers.REFUSED}
