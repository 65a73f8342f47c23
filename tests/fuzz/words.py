"""Bad command lines: every command of the table up to the moment that it would begin, and recipes in folders of one's own."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from random import Random
from unittest.mock import patch

from svdtrain import cli
from svdtrain.config import catalogue
from svdtrain.config.command import Command
from svdtrain.config.commands import COMMANDS
from tests.fuzz.mutations import NUMBERS, TEXTS, damaged
from tests.fuzz.place import Answer, Place, commanded

PLAIN = r"""
[ ] [] [[]] {} {a:1} {a:{b:[1,2]}} [1, {a ' " '' 'a a'b a,b 1,2,3 , = == [1],[2] a=b \ \' % # @ !x & * | ~ a:b a@b $ é 💥
nan -inf inf 1e999 -1 0 0.5 1e-400 true null ??? None off 1.2.3 0x1F 1_0 +3 1e5 -0 .5 5. 007 ٣
range(1,5) range(0,1000000000) range(1,2,0) range(1,9,1e-9) interval(0,1) glob(*) choice(1,2) choice( shuffle(1,2)
sort(3,2,1) shuffle(range(0,1000000000))
int(3.7) float('x') str([1]) json_str(1) bool(2) extend_list(1) tag(a,1) int( f(1)
int(int(int('1')))
${seed} ${trainer.max_steps} ${nothing} ${a ${oc.env:HOME} ${oc.env:PATH} ${oc.create:{a:1}} ${now:%Y} ${times:2,3} ${times:a,b}
${times:} ${hydra:job.name} ${hydra:} ${hydra:a} ${python_version:} ${.} ${..} ${data} ${oc.select:seed} ${oc.dict.keys:data}
${oc.dict.values:data} ${${seed}} ${name} ${adapter} ${data.source} ${oc.select:data}
"""
LONG = (
    *("[" * 500, "{a:" * 200, "(" * 300, "${" * 200, "9" * 5000, "-" + "9" * 400, "a" * 5000, "1," * 300),
    *("[" + "1," * 900 + "1]", " ", "\t", "\n", "a b", "\u202e", "\x1b[31m", "\udcff"),
)
VALUES = (*PLAIN.split(), *LONG)
FLAGS = """
--cfg job|--cfg hydra|--cfg all|--cfg|--cfg x|--resolve|--cfg job --resolve|--info|--info defaults|-m|--multirun|--package a|-h
-p data --cfg job|-p x --cfg all|-p hydra.run --cfg hydra|-p [ --cfg job
--help|--hydra-help|--version|--config-name x|-cn generate|--config-path /|-cp nowhere|--config-dir .
-cd /proc|--run|--experimental-rerun x|--fast|-|--|-x|--cfg=job|--info x|-sc x|-sc query=x|--cfg job -m
"""
RECIPE: str = """\
# A recipe.
# @package _global_
defaults:
  - override /model: nano
adapter:
  rank: 4
data:
  source: [a, b]
trainer: {max_steps: 5}
optimizer:
  learning_rate: ${times:2,3}
"""
LINES = (
    *r"""a: &a [*a]|{|- x|seed: !!python/name:os.system|? a|seed: 1~seed: 2|'|seed: ${seed}|data: 1|data: null
_target_: os.system|defaults: x|defaults: [{x: y}]|defaults: [_self_, _self_]|hydra: 1
hydra: {run: {dir: x}}|defaults: [{/config: evil}]|seed: !!binary '@'|seed: 2020-99-99|seed: 1e400
optional: 1|defaults: [{optional model: x}]|adapter: {pattern: '(('}|model: [1]|data: {source: {source: a}}
1: 2|null: 1|true: 1|? [1, 2]~: 3|a.b: 1|<<: *a|--- ~---|seed: &x~data: *x|%YAML 3.0~---|seed: [[[1]]]
name: "\0"|name: "\ud800"|trainer: {max_steps: 1:99}|x: ${times:}|adapter: ${data}|name: ${oc.env:PATH}
trainer: {max_steps: ${adapter.rank}}|adapter: {rank: [1}
""".replace("\n", "|").split("|"),
    *("\t", "name: " + "a" * 3000, "x: " + "[" * 2000, "x: " + "{a: " * 300),
    "~".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
)
"""~ stands for a line break."""


def run(config: object, overrides: list[str]) -> None:
    """The command that is called in every command's place: all before it is svdtrain's own."""


@cache
def _keys(command: Command) -> tuple[str, ...]:
    return tuple(catalogue.keys(command.settings()))


def attempt(draw: Random, place: Place) -> Answer:
    """One bad command line."""
    command = draw.choice((COMMANDS[0], COMMANDS[0], *COMMANDS))
    name = command.name.split() if draw.random() < 0.98 else [draw.choice(TEXTS)]
    words = draw.choice(command.examples).partition("#")[0].split() if draw.random() < 0.6 else []
    words += [_word(draw, command) for _ in range(draw.choice((1, 1, 2, 4)))]
    if command.name == "fit" and draw.random() < 0.2:
        _recipe(draw, place)
        words = ["config=evil", "--config-dir", str(place.folder), *words[-draw.randrange(2) :]]
    if draw.random() < 0.25:
        words += draw.choice(FLAGS.strip().replace("\n", "|").split("|")).split()
    draw.shuffle(words)
    words = [os.fsdecode(word.replace("\0", "").encode("utf-8", "replace")) for word in words]  # what a shell can say
    heads = [" ".join(word.partition("=")[0].split()) for word in words]
    place.names += [*_keys(command), *filter(None, heads), *words, *name, "evil", "hydra", "--", "''"]
    with patch.object(cli, "COMMANDS", tuple(replace(command, module=__name__) for command in COMMANDS)):
        return commanded([*name, *words])


def _word(draw: Random, command: Command) -> str:
    keys = (
        *_keys(command),
        *_keys(command),
        "model",
        "config",
        "data",
        "adapter",
        "trainer",
        "optimizer",
        "debug",
        "hydra.run.dir",
    )
    key = draw.choice(
        (*keys, "hydra/launcher", "hydra.verbose", "hydra.job.name", "hydra.sweep.dir", "hydra.sweeper.params")
    )
    if draw.random() < 0.2:
        key = draw.choice(
            (
                damaged(draw, key.encode()).decode("latin-1"),
                key.upper(),
                f"{key}.x",
                f"{key}@x",
                key[1:],
                draw.choice(TEXTS),
            )
        )
    value = draw.choice((*VALUES, *VALUES, *map(str, NUMBERS), *TEXTS))
    if draw.random() < 0.1:
        value = f"[{value},{draw.choice(VALUES)}]"
    before = draw.choice(("", "", "", "", "", "", "+", "++", "~"))
    return draw.choice((f"{before}{key}={value}",) * 12 + (key, value, f"~{key}", f"{key}==", f"={value}"))


def _recipe(draw: Random, place: Place) -> None:
    text = RECIPE
    if draw.random() < 0.6:
        lines = text.splitlines()
        lines[draw.randrange(len(lines))] = draw.choice(LINES)
        text = "\n".join(lines).replace("~", "\n")
    content = text.encode()
    place.write("config/evil.yaml", damaged(draw, content) if draw.random() < 0.5 else content)
