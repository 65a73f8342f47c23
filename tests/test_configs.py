"""Every shipped config: recipes and models compose in any pairing, say what they are for, and hide no key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from svdtrain.config import catalogue, compose, overrides
from svdtrain.config.command import Command
from svdtrain.config.commands import COMMANDS
from svdtrain.config.schema import FitConfig
from svdtrain.config.sweeping import SweepConfig
from svdtrain.foundation.files import packaged

CONFIGS = packaged("configs")
RECIPES = sorted(file.stem for file in (CONFIGS / "config").glob("*.yaml"))
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
GOALS = ("style", "subject", "motion", "camera")


def checked(*arguments: str) -> FitConfig:
    [config] = compose.check(overrides.parse(list(arguments), "fit"), FitConfig)
    return config


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_needs_no_edit_for_a_model(recipe: str, model: str) -> None:
    config = checked(f"config={recipe}", f"model={model}", "data.source=shards")
    shipped = config.model
    assert (config.name, shipped.name, config.data.source) == (recipe, model, "shards")
    assert config.data.fps == shipped.data_fps
    if recipe != "nano_pretrain":
        assert config.data.motion_bucket == (127 if shipped.family == "svd" and shipped.id else "clip")
        assert config.optimizer.learning_rate == shipped.learning_rate
        longer = 1.5 if recipe in ("motion_lora", "camera_lora") else 1
        assert config.trainer.max_steps == longer * shipped.max_steps
        assert config.data.batch_size == shipped.batch_size
        assert config.validation.every == config.trainer.save_every == shipped.validate_every


@pytest.mark.parametrize(
    ("words", "mean"),
    [
        ([], 1.0),
        (["model.height=320", "model.width=512"], 0.7),
        (["model.height=1024", "model.width=576"], 1.0),
        (["model.height=320", "model.noise_levels.mean=0.9"], 0.9),
    ],
)
def test_small_clips_of_svd_are_trained_at_lower_noise(words: list[str], mean: float) -> None:
    assert checked("config=style_lora", "model=svd_xt", "data.source=shards", *words).model.noise_levels.mean == mean


@pytest.mark.parametrize("goal", GOALS)
def test_a_goals_recipe_starts_on_the_packaged_model_and_set(goal: str) -> None:
    config = checked(f"config={goal}_lora")
    assert (config.model.name, config.data.source, config.data.motion_bucket) == ("nano", f"demo:{goal}", "clip")
    assert config.adapter.targets == ("temporal" if goal == "motion" else "both")
    assert not config.data.horizontal_flip


@pytest.mark.parametrize(
    ("group", "option"),
    [(file.parent.name, file.stem) for file in sorted(CONFIGS.glob("*/*.yaml")) if file.parent.name != "hydra"],
)
def test_each_option_composes(group: str, option: str) -> None:
    name, schema = ("sweep", SweepConfig) if group == "space" else ("fit", FitConfig)
    words = ["config=style_lora", f"{group}={option}", "data.source=shards"]
    assert compose.check(overrides.parse(words, name), schema)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_yaml_and_schema_hold_the_same_keys(command: Command, model: str) -> None:
    has_models = "model" in catalogue.groups([CONFIGS], command.config_name)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = OmegaConf.to_container(hydra_compose(command.config_name, [f"model={model}"] if has_models else []))
    names = {other: key for key, other in overrides.NAMESAKES.items()}
    in_yaml = [names.get(key, key) for key in flat(composed) if not key.startswith("space.")]
    assert sorted(in_yaml) == sorted(catalogue.keys(command.settings()))


def flat(node: object, prefix: str = "") -> list[str]:
    items = node.items() if isinstance(node, dict) else ()
    return [name for key, value in items for name in (f"{prefix}{key}", *flat(value, f"{prefix}{key}."))]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_what_it_does(recipe: str) -> None:
    text = (CONFIGS / f"config/{recipe}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    assert "\n# Machine: " in text
    assert "\n# Result: " in text
    assert 20 < len(catalogue.first_comment(CONFIGS / f"config/{recipe}.yaml")) <= 100


@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_the_hub_is_pinned(model: str) -> None:
    config = checked("config=style_lora", f"model={model}").model
    if config.id is not None:
        assert re.fullmatch(r"[0-9a-f]{40}", config.revision or "")
    assert config.licence


def test_later_entries_win_in_the_right_order() -> None:
    entries = yaml.safe_load((CONFIGS / "fit.yaml").read_text())["defaults"]
    order = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    assert order.index("_self_") < order.index("config") < order.index("optional local") < order.index("debug")


def test_no_config_names_code() -> None:
    assert not [file for file in Path(CONFIGS).rglob("*.yaml") if "_target_" in file.read_text()]
