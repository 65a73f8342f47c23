"""The command table, --help, and how every error ends: two lines on stderr and an exit code.

Nothing heavy is imported before a command is called with a config that stands.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from svdtrain.foundation.errors import SvdtrainError, SystemFault, UsageError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from svdtrain.config.overrides import Request


@dataclass(frozen=True)
class Command:
    """A row of the command table."""

    name: str
    module: str
    """Holds `run(config, overrides) -> exit code or None`."""
    config_name: str
    """The primary file under configs/."""
    schema: str
    """A class of svdtrain.config.schema."""
    summary: str
    examples: tuple[str, ...]


COMMANDS = (
    Command(
        "fit",
        "svdtrain.commands.fit",
        "fit",
        "FitConfig",
        "train an adapter on clips, with a before/after video at the end",
        (
            "config=style_lora",
            "config=motion_lora model=svd_xt data.source=shards/ logger=wandb",
            "config=style_lora adapter.rank=32 optimizer.learning_rate=5e-4 name=rank32",
            "-m config=style_lora adapter.rank=4,16,64",
            "config=my_recipe --config-dir my_configs     # reads my_configs/config/my_recipe.yaml",
        ),
    ),
    Command(
        "generate",
        "svdtrain.commands.generate",
        "generate",
        "GenerateConfig",
        "make videos from pictures, with an adapter or with the base alone",
        (
            "adapter=runs/style_lora/TIME image=a.png out=b.mp4",
            "adapter=RUN image=pictures/ out=videos/ seed=[1,2,3]",
            "adapter=RUN image=a.png out=b.mp4 strength=0.5",
            "adapter=[RUN1,RUN2] strength=[1.0,0.7] image=a.png out=b.mp4",
            "base_only=true image=a.png out=base.mp4 motion_bucket_id=200",
        ),
    ),
    Command(
        "prepare",
        "svdtrain.commands.prepare",
        "prepare",
        "PrepareConfig",
        "make shards of a folder of videos and stills",
        (
            "source=videos/ out=shards/",
            "source=videos/ out=shards/ fps=10 short_side=320 seconds=3",
            "source=videos/ out=shards/ buckets=[[576,1024,25],[1024,576,25]] fps=7",
            "source=videos/ out=shards/ part=3/16     # one job of an array",
        ),
    ),
    Command(
        "cache",
        "svdtrain.commands.cache",
        "cache",
        "CacheConfig",
        "encode every clip once, so that fit trains without its frozen encoders",
        (
            "config=style_lora data.source=shards/ model=svd_xt     # then fit, with the same words",
            "config=style_lora data.source=shards/ data.windows=4 part=2/8",
        ),
    ),
    Command(
        "inspect",
        "svdtrain.commands.inspect",
        "inspect",
        "InspectConfig",
        "make a page that shows what is in a dataset, what is wrong with it and how to mend it",
        (
            "source=demo:style",
            "source=shards/ out=page.html model=svd_xt data.fps=7",
            "source=videos/     # before they are prepared",
        ),
    ),
)

FLAGS = """\
  --cfg job              show the composed config instead of running; with --resolve, references filled in
  --info [defaults]      show how the config is composed
  -m, --multirun         one run for each combination of values: KEY=A,B
  --config-dir FOLDER    also look for groups and recipes in FOLDER
  --debug                show the whole traceback of an error
  --hydra-help           Hydra's own help
"""
COMPLETION = ("-sc", "--shell-completion")


def entry() -> None:
    """The console script: `svdtrain` is `python -m svdtrain`."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run a command line; the exit code is 0, 130 when interrupted, a SvdtrainError's own (2 to 6), 1 for all else."""
    debug = "--debug" in argv
    try:
        _dispatch([word for word in argv if word != "--debug"])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except KeyboardInterrupt:
        return _failed("interrupted", "", 130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        fault = error if isinstance(error, SvdtrainError) else _out_of_memory(error)
        if fault is not None:
            return _failed(fault.message, fault.hint, fault.exit_code)
        first = (str(error).strip().splitlines() or [""])[0]
        hint = "" if debug else "run again with --debug to see where; likely a fault of svdtrain, please report it"
        return _failed(f"unexpected {type(error).__name__}: {first}", hint, 1)
    return 0


def _dispatch(argv: list[str]) -> None:
    if argv and argv[0] in COMPLETION:
        argv = _completion(argv)
    if not argv or argv[0] in ("-h", "--help"):
        _say(_overview())
        return
    name, *rest = argv
    if "--version" in argv:
        from svdtrain import __version__

        _say(f"svdtrain {__version__}\n")
        return
    table = {command.name: command for command in COMMANDS}
    if name not in table:
        raise UsageError(f"{name}: no such command; {nearest(name, table)}")
    command = table[name]
    from svdtrain.config import compose, overrides, schema

    request = overrides.parse(rest, command.config_name)
    if request.parsed_flags.help:
        _say(_help(command, request))
        return
    model: type[BaseModel] = getattr(schema, command.schema)
    request = compose.with_adapter_model(request)
    for warning in compose.warnings(request, compose.check(request, model)):
        sys.stderr.write(f"warning: {warning}\n")
    compose.run(request, model, lambda: import_module(command.module).run)


def _overview() -> str:
    rows = "".join(f"  {command.name:<10} {command.summary}\n" for command in COMMANDS)
    return (
        "svdtrain: fine-tune image-to-video diffusion models and see what changed.\n\n"
        f"usage: svdtrain COMMAND KEY=VALUE ...   (or python -m svdtrain ...)\n\n{rows}\n"
        "start here:  svdtrain fit config=style_lora\n"
        "more:        svdtrain COMMAND --help   svdtrain --version\n"
    )


def _help(command: Command, request: Request) -> str:
    from svdtrain.config.catalogue import first_comment

    found = dict(request.groups)
    recipes = found.pop("config", {})
    lines = [f"svdtrain {command.name}: {command.summary}", "", "examples:"]
    lines += [f"  svdtrain {command.name} {example}" for example in command.examples]
    if recipes:
        lines += ["", "recipes (config=NAME):"]
        lines += [f"  {name:<16} {first_comment(file)}" for name, file in sorted(recipes.items())]
    lines += ["", "groups (GROUP=OPTION):"]
    lines += [f"  {group:<16} {', '.join(sorted(options))}" for group, options in found.items() if options]
    lines += ["", f"every key, with its value: svdtrain {command.name} --cfg job --resolve", "", "flags:", FLAGS]
    return "\n".join(lines)


def _completion(argv: list[str]) -> list[str]:
    """Hydra's completion knows no sub-commands: name it, and take it out of the line that the shell hands over."""
    names = [command.name for command in COMMANDS]
    program, *words = os.environ.get("COMP_LINE", "").split(" ")
    if words and words[0] in names:
        os.environ["COMP_LINE"] = " ".join([program, *words[1:]])
        return [words[0], *argv]
    if words:
        _say(" ".join(names) + "\n")
        raise SystemExit(0)
    return [names[0], *argv]


def _out_of_memory(error: Exception) -> SystemFault | None:
    """By the class's name, so that torch need not be imported to ask."""
    if not {kind.__name__ for kind in type(error).__mro__} & {"OutOfMemoryError", "MemoryError"}:
        return None
    first = (str(error).strip().splitlines() or ["no more memory"])[0]
    hint = "less at once: data.batch_size=1, trainer.gradient_checkpointing=true, fewer model.frames"
    return SystemFault(f"out of memory: {first}", hint)


def _failed(message: str, hint: str, exit_code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    if hint:
        sys.stderr.write(f"hint: {' '.join(hint.split())}\n")
    return exit_code


def _say(text: str) -> None:
    sys.stdout.write(text)
