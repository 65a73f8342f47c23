"""What `${…}` in a config may call: arithmetic, the time, other keys, and a few environment variables; nothing that runs."""

from __future__ import annotations

import math
import os
import re
from typing import Any, NoReturn

import omegaconf._utils
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from svdtrain.foundation.bounded_yaml import bounded
from svdtrain.foundation.secrets import SECRET_NAME

READABLE = re.compile(
    r"SVDTRAIN_\w+|HOME|USER|TMPDIR|SCRATCH|XDG_CACHE_HOME|HF_HOME|HF_HUB_CACHE|CUDA_VISIBLE_DEVICES|RANK|LOCAL_RANK|WORLD_SIZE"
    r"|SLURM_(JOB_ID|JOB_NAME|ARRAY_JOB_ID|ARRAY_TASK_ID|PROCID|TMPDIR)"
)
"""Places and numbers of a job. Others may hold secrets, and what a config holds is written into the run folder."""
REFUSED = ("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values")
"""OmegaConf's own that make new settings, which nobody has checked: from text, or from others that may hold themselves."""
_NO_DEFAULT = "\0"


def _times(*factors: object) -> object:
    """A product; what is no number is handed on as it is, for the schema to name."""
    numbers = [factor for factor in factors if isinstance(factor, int | float)]
    return math.prod(numbers) if len(numbers) == len(factors) else next(f for f in factors if f not in numbers)


def _below(value: object, bound: float, then: object, otherwise: object) -> object:
    """`then` for a number that is less than the bound, else the other."""
    return then if isinstance(value, int | float) and value < bound else otherwise


def _env(name: str, default: str | None = _NO_DEFAULT) -> str | None:
    if not READABLE.fullmatch(name) or SECRET_NAME.search(name):
        raise InterpolationResolutionError(
            f"${{oc.env:{name}}} is refused: of the environment a config reads places and job numbers only"
        )
    if name in os.environ:
        return os.environ[name]
    if default is not _NO_DEFAULT:
        return None if default is None else str(default)
    raise InterpolationResolutionError(f"${{oc.env:{name}}}: the environment has no such variable")


def _refusing(name: str) -> None:
    def refuse(*_: object) -> NoReturn:
        raise InterpolationResolutionError(f"${{{name}:…}} is refused: it makes new settings")

    OmegaConf.register_new_resolver(name, refuse, replace=True)


def _yaml_loader() -> type[Any]:
    """OmegaConf's, for all files that it and Hydra read."""
    return bounded(_omegaconfs_loader())


_omegaconfs_loader = omegaconf._utils.get_yaml_loader


def register() -> None:
    """Ours instead of OmegaConf's. Hydra adds now, hydra and python_version, which read neither files nor environment."""
    omegaconf._utils.get_yaml_loader = _yaml_loader
    OmegaConf.register_new_resolver("times", _times, replace=True)
    OmegaConf.register_new_resolver("below", _below, replace=True)
    OmegaConf.register_new_resolver("oc.env", _env, replace=True)
    for name in REFUSED:
        _refusing(name)
