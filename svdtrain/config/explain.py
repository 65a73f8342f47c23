"""Errors of Hydra, OmegaConf, YAML and pydantic in one line each: the key or file, what was seen, what is wanted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from svdtrain.config.catalogue import keys, suggestion
from svdtrain.foundation.errors import UsageError, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import BaseModel, ValidationError

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)
HYDRAS_OWN = (AssertionError, AttributeError, ImportError, OSError, TypeError, ValueError)
"""What Hydra raises besides, for settings of its own that it does not check."""
JsonSchema = dict[str, Any]


def composition_error(error: Exception) -> UsageError:
    """The UsageError for anything that Hydra or OmegaConf raise while they compose."""
    cause = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        key = error.override.partition("=")[0]
        return UsageError(
            f"{shown(error.override)}: cannot be read as KEY=VALUE", f"quote the value: '{shown(key)}=\"...\"'"
        )
    if isinstance(error, MissingConfigException):
        wanted = error.missing_cfg_file or ""
        names = error.options or []
        near = f"; {nearest(wanted.rpartition('/')[2], names)}" if names else ""
        return UsageError(f"{shown(wanted)}: no such config{near}")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return UsageError(f"{mark.name}, line {mark.line + 1}: not YAML: {error.problem}")
    if isinstance(error, yaml.reader.ReaderError):
        return UsageError(f"{error.name}, byte {error.position}: not YAML: {error.reason}")
    if isinstance(cause, OmegaConfBaseException):
        merged = re.match(r"Error merging override \W*([\w.@/-]+)=", str(error))
        inside = cause.full_key or ""  # of a list: a place in it alone
        key = f"{merged[1]}{inside}" if merged and inside.startswith("[") else inside
        return UsageError(f"{key}: {_one_line(cause)}" if key else _one_line(cause))
    return UsageError(_one_line(error))


def hydras_own(error: Exception, given: Collection[str]) -> UsageError | None:
    """The UsageError for what Hydra raises while it reads its own settings; None: the command line has none of them."""
    key = next((key for key in sorted(given) if key.startswith("hydra")), "")
    return (
        UsageError(f"{shown(key)}: Hydra cannot use it: {shown(f'{type(error).__name__} {error}', 90)}")
        if key
        else None
    )


def validation_error(error: ValidationError, schema: type[BaseModel], given: Collection[str]) -> UsageError:
    """The UsageError for values that do not fit the schema: one in full (of `given` if any), the others counted."""
    document = schema.model_json_schema()
    lines: dict[str, str] = {}
    for item in error.errors():
        key, wanted = _locate(item["loc"], document)
        if item["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in item["loc"])
            line = f"{key}: no such key; {suggestion(key, keys(schema))}"
            if item["loc"][0] in ("config", "debug", "local"):
                line = f"{key}: a file under {item['loc'][0]}/ needs '# @package _global_' as its first line"
        elif item["type"] == "missing" and key == ".".join(str(part) for part in item["loc"]):
            line = f"{key}: is missing; wanted {wanted}"
        else:
            line = f"{key}: {_shown(item['input'])} is not allowed; wanted {wanted}"
        lines.setdefault(key, line)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    first = next((key for key in lines if key in given), next(iter(lines)))
    return UsageError(lines[first] + more)


def wanted(schema: type[BaseModel]) -> dict[str, str]:
    """Each key of a schema: its meaning, and what it may be. Groups of keys are left out."""
    document = schema.model_json_schema()
    found: dict[str, str] = {}
    for name, node in document.get("properties", {}).items():
        kind = _wanted(_followed(node, document))
        if "a group of keys" not in kind:
            found[name] = " ".join(f"{node.get('description', '')} ({kind})".split())
    return found


def _locate(location: tuple[int | str, ...], document: JsonSchema) -> tuple[str, str]:
    """The dotted key of an error's location, without pydantic's union branches, and what is wanted there."""
    node, path = document, []
    for part in location:
        properties = _followed(node, document).get("properties", {})
        if part not in properties:
            break
        node = properties[part]
        path.append(str(part))
    return ".".join(path), _wanted(_followed(node, document))


def _followed(node: JsonSchema, document: JsonSchema) -> JsonSchema:
    reference = node.get("$ref", "")
    return document["$defs"][reference.rpartition("/")[2]] if reference else node


def _wanted(node: JsonSchema) -> str:
    """A JSON schema in words."""
    if "anyOf" in node:
        return " or ".join(_wanted(branch) for branch in node["anyOf"])
    choices = node.get("enum") or ([node["const"]] if "const" in node else [])
    if choices:
        return " or ".join(repr(choice) for choice in choices)
    kind = node.get("type", "")
    if kind == "array" and "prefixItems" in node:
        return f"a list of {len(node['prefixItems'])}, each {_wanted(node['prefixItems'][0])}"
    if kind == "array":
        return f"{'a filled' if node.get('minItems') else 'a'} list, each {_wanted(node['items'])}"
    if choices := re.fullmatch(r"\^\(([\w|-]+)\)\$", node.get("pattern", "")):
        return " or ".join(repr(choice) for choice in choices[1].split("|"))
    if "examples" in node:
        return f"something like {node['examples'][0]}"
    if "pattern" in node:
        return f"text that matches {node['pattern']}"
    names = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    return names.get(kind, "null" if kind == "null" else "a group of keys") + _range(node)


def _range(node: JsonSchema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if "minimum" in node and "maximum" in node:
        return f" from {node['minimum']:g} to {node['maximum']:g}"
    limits = [f"{word} {node[name]:g}" for name, word in words.items() if name in node]
    return " " + " and ".join(limits) if limits else ""


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else shown(repr(value))


def _one_line(error: BaseException) -> str:
    """The first sentence of a message, without Hydra's advice to add keys by `+`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0], 150) if lines else type(error).__name__
