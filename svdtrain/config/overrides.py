"""A command line as Hydra reads it, overrides and flags, and the mistakes that show before anything is composed."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Sweep, ValueType

from svdtrain.config import catalogue
from svdtrain.config.explain import COMPOSITION_ERRORS, composition_error
from svdtrain.foundation.errors import UsageError, nearest, shown
from svdtrain.foundation.files import packaged

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import BaseModel

MOST_JOBS = 1000
"""Of one key's sweep."""
OPTIONAL_GROUPS = ("config", "debug", "local")
OF_AN_ADAPTER = ("generate", "export", "evaluate", "push")
"""Commands that a run's folder is given to as adapter=RUN."""
NAMESAKES = {"adapter": "adapter_files", "model": "caption_model", "data": "data_source"}
"""Keys that name a group of another command: Hydra would take `adapter=RUN` for a choice in configs/adapter/."""


@dataclass(frozen=True)
class Request:
    """What a command line asks for, the sub-command and our own flags taken out."""

    config_name: str
    overrides: tuple[str, ...]
    flags: tuple[str, ...]
    """Hydra's flags as typed."""
    parsed_flags: Namespace

    @property
    def sweeps(self) -> bool:
        """Whether it stands for several jobs."""
        return self.parsed_flags.multirun or any(line.lower() == "hydra.mode=multirun" for line in self.overrides)

    @property
    def only_shows(self) -> bool:
        """Whether Hydra is to show something (--cfg, --info …) and run nothing."""
        flags = self.parsed_flags
        return bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion)

    @cached_property
    def roots(self) -> tuple[Path, ...]:
        """Folders of configs, the one that wins first."""
        main = self.parsed_flags.config_path
        folders = [packaged("configs") if main is None else Path(main)]
        if self.parsed_flags.config_dir is not None:
            folders.append(Path(self.parsed_flags.config_dir))
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"{shown(str(folder))}: no such config folder")
        return tuple(folder.absolute() for folder in folders)

    @cached_property
    def groups(self) -> dict[str, dict[str, Path]]:
        """The command's groups, their options, and each option's file."""
        return catalogue.groups(self.roots, self.config_name)

    @cached_property
    def given(self) -> frozenset[str]:
        """The keys on the command line."""
        return frozenset(typed(override.key_or_group) for override in self.parsed)

    @cached_property
    def parsed(self) -> list[Override]:
        """The overrides by Hydra's grammar."""
        for line in self.overrides:
            if "=" not in line and not line.startswith("~"):
                recipes = self.groups.get("config", {})
                key = "config" if line in recipes else "adapter" if self.config_name in OF_AN_ADAPTER else ""
                meant = f"; did you mean '{key}={shown(line)}'?" if key else ""
                raise UsageError(f"{shown(line)}: not of the form KEY=VALUE{meant}")
        return [_parsed(line) for line in self.overrides]


def _parsed(line: str) -> Override:
    try:
        [override] = OverridesParser.create().parse_overrides([line])
        inner = _inner(override.value())
    except COMPOSITION_ERRORS as error:
        raise composition_error(error) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
        raise UsageError(f"{shown(line)}: cannot be read as KEY=VALUE", shown(str(error))) from error
    if any(isinstance(one, Sweep) for one in inner):
        raise UsageError(f"{shown(line)}: a sweep within a value", "choice(…), range(…) and the like stand alone")
    return override


def _inner(value: object) -> list[object]:
    """What lists and dicts hold, at any depth."""
    held = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return [one for item in held for one in (item, *_inner(item))]


def _in_full(arguments: list[str], bare: str, schema: type[BaseModel] | None) -> list[str]:
    """Overrides in Hydra's grammar: words without a key get theirs, and A,B is [A,B] where the schema wants a list.

    Paths are quoted, so that their characters mean nothing, and so is whatever that grammar cannot read.
    """
    lists: tuple[str, ...] = getattr(schema, "comma_lists", ())
    texts: tuple[str, ...] = getattr(schema, "texts", ())
    made, words = list[str](), list[str]()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if bare and not argument.startswith(("~", "+")) and not (equals and re.fullmatch(r"[\w.@-]+", key)):
            words.append(argument)
        elif key in lists and equals and value != "null" and not value.startswith("["):
            made.append(f"{key}=[{','.join(map(quoted, value.split(',')))}]")
        elif _is_text(argument, texts):
            made.append(f"{key}={quoted(value)}")
        else:
            made.append(argument)
    if not words:
        return made
    if bare not in lists and len(words) > 1:
        hint = f"not of the form KEY=VALUE, and {bare} is {shown(words[0])}"
        raise UsageError(f"{shown(words[1])}: one {bare} at a time", hint)
    value = f"[{','.join(map(quoted, words))}]" if bare in lists else quoted(words[0])
    return [f"{bare}={value}", *made]


def _is_text(line: str, texts: Collection[str]) -> bool:
    """Of a key that wants one; or of any key, where Hydra's grammar, which knows no umlaut and no tilde, cannot read it."""
    key, _, value = line.partition("=")
    if value in ("", "null", "???") or value[0] in "'\"":
        return False
    if key in texts or value[0] in "[{":
        return key in texts
    try:
        OverridesParser.create().parse_overrides([line])
    except COMPOSITION_ERRORS:
        return True
    except (ValueError, RecursionError):  # which _parsed tells
        return False
    return False


def quoted(text: str) -> str:
    """A value for Hydra's grammar whose characters mean themselves."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def parse(arguments: list[str], config_name: str, bare: str = "", schema: type[BaseModel] | None = None) -> Request:
    """Read a command's arguments as Hydra would. Raises UsageError for flags that Hydra does not have.

    `bare`: the key that words without `=` are values of.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise UsageError(shown(message, 150), "the flags are listed by --help")

    parser.error = fail  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(arguments)
    asked = [line for line in flags.overrides if re.fullmatch(r"(install|uninstall|query)=(bash|fish|zsh)", line)]
    if flags.shell_completion and len(asked) != 1:
        raise UsageError(
            "--shell-completion: what is to be done?", "install=SHELL or uninstall=SHELL: bash, fish or zsh"
        )
    modes = (flags.run, flags.cfg, flags.multirun, flags.info, flags.shell_completion)
    if sum(mode not in (None, False) for mode in modes) > 1:
        raise UsageError("--run, --multirun, --cfg, --info, --shell-completion: two of them are given", "choose one")
    if flags.resolve and flags.cfg is None and not flags.help:
        raise UsageError("--resolve: has no effect by itself", "--cfg job --resolve")
    if flags.experimental_rerun is not None:
        raise UsageError("--experimental-rerun: refused, it reads a pickle, which can run any code")
    rest = list(arguments)
    for line in flags.overrides:
        rest.remove(line)
    given = _in_full(flags.overrides, bare, schema)
    request = Request(flags.config_name or config_name, tuple(given), tuple(rest), flags)
    renames = {key: other for key, other in NAMESAKES.items() if key not in request.groups}
    return replace(request, overrides=tuple(_renamed(line, renames) for line in request.overrides))


def typed(line: str) -> str:
    """An override or a key as the user typed it, under its own name instead of the NAMESAKES'."""
    return _renamed(line, {other: key for key, other in NAMESAKES.items()})


def _renamed(line: str, names: dict[str, str]) -> str:
    key, equals, value = line.partition("=")
    return names.get(key, key) + equals + value


def check_override(override: Override, request: Request, schema: type[BaseModel]) -> None:
    """Raise UsageError for a key or option that does not exist, a value that would run code, or a sweep without -m."""
    key, line = typed(override.key_or_group), typed(str(override.input_line))
    if re.search(r"""(?<!\w)_target_['"]?\s*[:=]""", line):
        raise UsageError(f"{shown(line)}: _target_ is refused, it can run any code")
    if key.startswith("hydra/") and "${" in line:
        raise UsageError(f"{shown(line)}: the name of an option is wanted")
    if key.partition(".")[0].partition("/")[0] == "hydra":
        return
    groups = request.groups
    known = [*catalogue.keys(schema), *(name for name in groups if name in OPTIONAL_GROUPS)]
    if key not in known:
        raise UsageError(f"{shown(key)}: no such key; {catalogue.suggestion(key, known)}")
    if override.is_add() or override.is_force_add():
        raise UsageError(f"{shown(line)}: keys cannot be added", shown(line.lstrip("+")))
    if override.is_sweep_override() and not request.sweeps:
        raise UsageError(f"{shown(line)}: several values for one run", f"-m runs each; a list is {key}=[A,B]")
    if override.is_delete() and (key in groups or key in NAMESAKES) and not isinstance(override.value(), str | None):
        raise UsageError(f"{shown(line)}: no option of {key} is called so", f"~{key}")
    if key not in groups or override.is_delete():
        return
    for option in _values(override):
        if option is None and key in OPTIONAL_GROUPS:
            continue
        if groups[key] and (not isinstance(option, str) or option not in groups[key]):
            what = "recipe" if key == "config" else f"option of {key}"
            text = "null" if option is None else shown(str(option))
            raise UsageError(f"{key}={text}: no such {what}; {nearest(text, groups[key])}")


def _values(override: Override) -> list[Any]:
    """Each value of an override; none for a sweep over an interval or a pattern, which only a sweeper can count."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return []
    sweep = override.value()
    if isinstance(sweep, RangeSweep):
        _refuse_endless(override.get_key_element(), sweep)
    return [str(value) for value in override.sweep_string_iterator()]


def _refuse_endless(key: str, sweep: RangeSweep) -> None:
    """Raise UsageError for a range of more values than anybody runs, or of none that can be counted."""
    try:
        assert sweep.start is not None
        assert sweep.stop is not None
        count = (sweep.stop - sweep.start) / sweep.step
    except (ZeroDivisionError, OverflowError):
        count = math.inf
    if not count <= MOST_JOBS:
        raise UsageError(f"{shown(key)}: a range of too many values", f"at most {MOST_JOBS:,} are run")


def jobs(request: Request) -> list[list[str]]:
    """Override lists that together hold each value of each sweep at least once."""
    columns: list[list[str]] = []
    for override in request.parsed:
        if override.is_sweep_override():
            columns.append([f"{override.get_key_element()}={value}" for value in _values(override)])
        else:
            columns.append([str(override.input_line)])
    columns = [column for column in columns if column]
    count = max((len(column) for column in columns), default=1)
    return [[column[job % len(column)] for column in columns] for job in range(count)]
