"""From a command line to a checked config: Hydra composes, the schema checks, and every mistake is one line.

The whole command line is composed and checked once before Hydra starts anything (`check`); then `run` hands over to
hydra.main, whose overrides, groups, --cfg, --info, -m and launchers stay as they are.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import BaseModel, ValidationError

from svdtrain.config import catalogue, resolvers
from svdtrain.config.adapter_header import adapter_metadata
from svdtrain.config.checks import idle_settings, refuse_contradictions
from svdtrain.config.explain import COMPOSITION_ERRORS, HYDRAS_OWN, composition_error, hydras_own, validation_error
from svdtrain.config.fields import listed
from svdtrain.config.overrides import Request, check_override, jobs, quoted, typed
from svdtrain.config.refusals import refuse_code, refuse_packages
from svdtrain.foundation.errors import UsageError, shown
from svdtrain.foundation.files import write_atomic
from svdtrain.foundation.secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

Schema = TypeVar("Schema", bound=BaseModel)
Settings = TypeVar("Settings", bound=BaseModel, contravariant=True)
HYDRA_BASE = "1.3"


resolvers.register()


class Command(Protocol[Settings]):
    """The `run` of a module under commands/."""

    def __call__(self, config: Settings, overrides: list[str], /) -> int | None:
        """Do it; the exit code, None for 0."""
        ...


def check(request: Request, schema: type[Schema]) -> list[Schema]:
    """Compose and check a request before anything runs; the configs, which hold each value of each sweep at least once.

    Nothing is validated, and no config returned, where Hydra only shows something. Raises UsageError.
    """
    if request.parsed_flags.hydra_help or request.parsed_flags.shell_completion:
        return []
    for override in request.parsed:
        check_override(override, request, schema)
    composed = [_composed(request, overrides) for overrides in jobs(request)]
    if request.only_shows:
        return []
    configs = [validated(_plain(job), schema, request.given) for job in composed]
    folders = [getattr(config, "run_dir", None) for config in configs]
    if len(folders) > 1 and all(folders) and len(set(folders)) < len(folders):
        raise UsageError(f"run_dir: every job of the sweep would write to {folders[0]}", "leave run_dir out")
    return configs


def warnings(request: Request, configs: Iterable[BaseModel]) -> list[str]:
    """One sentence for each key on the command line that has no effect."""
    return list(dict.fromkeys(line for config in configs for line in idle_settings(config, request.given)))


def run(request: Request, schema: type[Schema], command: Callable[[], Command[Schema]]) -> None:
    """Hand over to Hydra, which calls `command()(config, overrides)` once for each job.

    An error of a single job passes through; in a sweep, Hydra runs the other jobs before it raises the first error.
    An exit code other than 0 (a run that was told to stop) leaves at once, as SystemExit.
    """
    argv: list[str] = sys.argv
    errors: list[Exception] = []

    began = False

    def job(composed: DictConfig) -> None:
        nonlocal began
        began = True
        # Lightning starts the other ranks by sys.argv, so it must hold what was typed.
        sys.argv = argv
        if request.sweeps:
            _redact_sweep()
        said: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        overrides = [typed(line) for line in said]
        try:
            exit_code = command()(validated(_plain(composed), schema), overrides)
        except Exception as error:
            if request.sweeps:
                raise
            errors.append(error)
        else:
            if exit_code:
                raise SystemExit(exit_code)

    with _hydra_raises():
        try:
            # Hydra would take a relative --config-path from this file's folder.
            sys.argv = [argv[0], *request.overrides, *request.flags, "--config-path", str(request.roots[0])]
            hydra.main(version_base=HYDRA_BASE, config_name=request.config_name)(job)()
        except COMPOSITION_ERRORS as error:
            raise composition_error(error) from error
        except HYDRAS_OWN as error:
            fault = None if began else hydras_own(error, request.given)
            if fault:
                raise fault from error
            raise
        finally:
            sys.argv = argv
    if errors:
        raise errors[0]


def validated(values: dict[str, Any], schema: type[Schema], given: Collection[str] = ()) -> Schema:
    """The config of a plain dict.

    Raises UsageError for an unknown key, a wrong value (one in the keys of `given` is told first) or a contradiction.
    """
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise validation_error(error, schema, given) from error
    refuse_contradictions(config)
    return config


def with_adapter_model(request: Request) -> Request:
    """The request with the model its adapters were made for, unless it names one itself."""
    given = {typed(o.key_or_group): o.value() for o in request.parsed if not o.is_sweep_override()}
    places = given.get("adapter") or given.get("adapters") or given.get("run")
    if "adapter" in request.groups or "model" not in request.groups or "model" in given or not places:
        return request
    headers = [adapter_metadata(str(place)) for place in (places if isinstance(places, list) else [places])]
    models = {header.get("svdtrain.model", "") for header in headers} - {""}
    if len(models) != 1:
        return request
    model, options = models.pop(), request.groups["model"]
    if model not in options:
        seen = f"{places}: made for model '{model}', which is no model here"
        raise UsageError(seen, "--config-dir FOLDER, or model=NAME")
    extra = [f"model={model}"]
    sources = {header.get("svdtrain.source", "") for header in headers} - {""}
    if "model.source" not in given and len(sources) == 1:
        extra.append(f"model.source={quoted(sources.pop())}")
    return replace(request, overrides=(*request.overrides, *extra))


def _composed(request: Request, overrides: list[str]) -> DictConfig:
    """What Hydra composes, its own node checked and taken out."""
    main, *others = request.roots
    searched = [folder for o in request.parsed if o.key_or_group == "hydra.searchpath" for folder in listed(o.value())]
    refuse_packages([*searched, *catalogue.searched(request.roots, request.config_name)])
    if others:
        overrides = [f"hydra.searchpath={[f'file://{other}' for other in others] + searched}", *overrides]
    try:
        with hydra.initialize_config_dir(config_dir=str(main), job_name="svdtrain", version_base=HYDRA_BASE):
            composed = hydra.compose(request.config_name, overrides, return_hydra_config=True)
    except COMPOSITION_ERRORS as error:
        raise composition_error(error) from error
    except KeyError as error:
        raise UsageError(f"hydra.job.env_copy: is refused, and there is no variable {error}") from error
    except HYDRAS_OWN as error:
        if fault := hydras_own(error, request.given):
            raise fault from error
        raise
    refuse_code(OmegaConf.to_container(composed, resolve=False), request.given)
    _refuse_package(composed, request.parsed_flags.cfg, request.parsed_flags.package)
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _refuse_package(composed: DictConfig, shows: str | None, package: str | None) -> None:
    """Raise UsageError where --cfg is to show a part that is not there: Hydra would leave by itself."""
    if not shows or not package:
        return
    own = package.partition(".")[0] == "hydra"
    try:
        there = OmegaConf.select(composed, package) is not None
    except COMPOSITION_ERRORS as error:
        raise composition_error(error) from error
    if not there or shows != "all" and own != (shows == "hydra"):
        raise UsageError(f"--package {shown(package)}: --cfg {shows} has no such part", "--cfg job shows it all")


def _plain(composed: DictConfig) -> dict[str, Any]:
    """A dict without interpolations. Raises UsageError for values that are still `???`."""
    try:
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UsageError(f"{missing[0]}: must be given{more}", " ".join(f"{key}=VALUE" for key in missing))
        values = OmegaConf.to_container(composed, resolve=True)
    except COMPOSITION_ERRORS as error:
        raise composition_error(error) from error
    return {typed(str(key)): value for key, value in values.items()} if isinstance(values, dict) else {}


def _redact_sweep() -> None:
    """Hydra has written the whole command line before the first job began."""
    file = Path(HydraConfig.get().sweep.dir) / "multirun.yaml"
    if file.is_file():
        write_atomic(file, redacted(file.read_text()))


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra raises what a job raised, instead of printing it and leaving with exit code 1."""
    name, before = "HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR")
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})
