"""The command table, --help, and how every error ends: two lines on stderr and an exit code.

Nothing heavy is imported before a command is called with a config that stands.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import sys
import textwrap
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from svdtrain.config.command import Command
from svdtrain.config.commands import COMMANDS
from svdtrain.foundation import airgap
from svdtrain.foundation.errors import SvdtrainError, SystemFault, UsageError, nearest, one_line, shown
from svdtrain.foundation.garbage import uncollected
from svdtrain.foundation.out_of_memory import LESS, is_out_of_memory
from svdtrain.foundation.quiet import redact_logs
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from svdtrain.config.overrides import Request


FLAGS = """\
  --cfg job              show the composed config instead of running; with --resolve, references filled in
  --info [defaults]      show how the config is composed
  -m, --multirun         one run for each combination of values: KEY=A,B
  --config-dir FOLDER    also look for groups and recipes in FOLDER
  --debug                show the whole traceback of an error
  --hydra-help           Hydra's own help
"""
WIDTH = 120
COMPLETION = ("-sc", "--shell-completion")


def entry() -> NoReturn:
    """The console script: `svdtrain` is `python -m svdtrain`."""
    code = main(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # all is said and done: the code stands
        signal.signal(number, signal.SIG_IGN)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """As the interpreter does, and as multiprocessing's children do: it would take a second or two to take torch apart."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:  # None: closed before it began
                stream.flush()
        except OSError:
            code = 120  # Python's own for it
    os._exit(code)


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
            sys.stderr.write(redacted(traceback.format_exc()))
        fault = airgap.refusal() or (error if isinstance(error, SvdtrainError) else _explained(error))
        if fault is not None:
            return _failed(fault.message, fault.hint, fault.exit_code)
        first = (str(error).strip().splitlines() or [""])[0]
        hint = "" if debug else "run again with --debug to see where; likely a fault of svdtrain, please report it"
        return _failed(f"unexpected {type(error).__name__}: {first}", hint, 1)
    return 0


def _dispatch(argv: list[str]) -> None:
    if argv and argv[0] in COMPLETION:
        argv = _completion(argv)
    if argv[:1] == ["--job"]:
        raise SystemExit(_job(Path(argv[1])))
    if not argv or argv[0] in ("-h", "--help"):
        _say(_overview())
        return
    name, *rest = _named(argv)
    if "--version" in argv:
        from svdtrain import __version__

        _say(f"svdtrain {__version__}\n")
        return
    table = {command.name: command for command in COMMANDS}
    if name not in table:
        raise UsageError(f"{shown(name)}: no such command; {nearest(name, table)}")
    command = table[name]
    from svdtrain.config import compose, overrides

    model = command.settings()
    request = overrides.parse(rest, command.config_name, command.bare, model)
    if request.parsed_flags.help:
        _say(_help(command, request))
        return
    request = compose.with_adapter_model(request)
    configs = compose.check(request, model)
    for warning in compose.warnings(request, configs):
        sys.stderr.write(f"warning: {redacted(warning)}\n")
    if any(getattr(config, "privacy", "") == "airgapped" for config in configs):
        airgap.close_network()
    redact_logs()
    if command.light:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    compose.run(request, model, lambda: _imported(command))
    if fault := airgap.refusal():
        raise fault


def _job(file: Path) -> int:
    """One rank of a run that a launcher has composed and checked: its config as it stands."""
    job = json.loads(file.read_text())
    command = next(command for command in COMMANDS if command.name == job["command"])
    config = command.settings().model_validate(job["config"])
    if getattr(config, "privacy", "") == "airgapped":
        airgap.close_network()
    code = _imported(command)(config, job["overrides"])
    if fault := airgap.refusal():
        raise fault
    return code or 0


def _imported(command: Command) -> Callable[[Any, list[str]], int | None]:
    """In the process that runs it: a launcher of Hydra may have another than this one."""
    redact_logs()
    with uncollected(stays=True):
        return import_module(command.module).run


def _named(argv: list[str]) -> list[str]:
    """`adapter info …`: the two words of a tool are one name. Raises UsageError for a tool that does not exist."""
    group, *rest = argv
    tools = {name.partition(" ")[2] for command in COMMANDS if (name := command.name).startswith(f"{group} ")}
    if not tools or "--version" in argv:
        return argv
    verb, *rest = rest or ["--help"]
    if verb in ("-h", "--help"):
        rows = [command for command in COMMANDS if command.name.startswith(f"{group} ")]
        _say(f"usage: svdtrain {group} TOOL …, each with --help\n\n")
        _say("".join(f"  {row.name.partition(' ')[2]:<10} {row.summary}\n" for row in rows))
        raise SystemExit(0)
    if verb not in tools:
        raise UsageError(f"{group} {shown(verb)}: no such tool; {nearest(verb, tools)}")
    return [f"{group} {verb}", *rest]


def _overview() -> str:
    rows = "".join(f"  {command.name:<16} {command.summary}\n" for command in COMMANDS)
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
    lines += _keys(command)
    if any(found.values()):
        lines += ["", "groups (GROUP=OPTION):"]
    for group, options in ((group, options) for group, options in found.items() if options):
        lines += textwrap.wrap(
            f"  {group:<16} {', '.join(sorted(options))}", WIDTH, subsequent_indent=" " * 19, break_on_hyphens=False
        )
    lines += ["", f"every key, with its value: svdtrain {command.name} --cfg job --resolve", "", "flags:", FLAGS]
    return "\n".join(lines)


def _keys(command: Command) -> list[str]:
    """The keys of a schema that tells their meanings, with what each may be."""
    from svdtrain.config.explain import wanted

    schema = command.settings()
    if not schema.model_config.get("use_attribute_docstrings"):
        return []
    lines = ["", "keys (KEY=VALUE):"]
    for name, text in wanted(schema).items():
        lines += textwrap.wrap(f"{name:<9} {text}", WIDTH - 2, initial_indent="  ", subsequent_indent=" " * 12)
    return lines


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


def _explained(error: Exception) -> SvdtrainError | None:
    """What any place may meet: no more memory, or a name for no file."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{shown(str(error.filename))}: too long for the name of a file", "a shorter name or path")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return SystemFault(
            f"{shown(str(error.filename or 'what was written'))}: no space left", "make room, or write elsewhere"
        )
    if not is_out_of_memory(error):
        return None
    first = (str(error).strip().splitlines() or ["no more memory"])[0]
    return SystemFault(f"out of memory: {first}", LESS)


def _failed(message: str, hint: str, exit_code: int) -> int:
    sys.stderr.write(f"error: {one_line(redacted(message))}\n")
    if hint:
        sys.stderr.write(f"hint: {one_line(redacted(hint))}\n")
    return exit_code


def _say(text: str) -> None:
    if sys.stdout is not None:  # closed before it began
        sys.stdout.write(text)
