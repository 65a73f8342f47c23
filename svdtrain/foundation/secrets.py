"""Secrets in what is about to be written: one function that every writer of configs, logs and headers calls."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")

HIDDEN = "[redacted]"
NAME = r"(?:(?<=[a-z0-9_-])key|token|secret|pass|passwd|password|passphrase|credentials?)"
"""What the names of secrets end in; `key` alone is a clip's."""
SECRET_NAME = re.compile(rf"{NAME}$", re.IGNORECASE)
SHORTEST = 8
"""Of a variable's value that is looked for: `1` or `none` would be found everywhere."""
_NO_COMMIT = "".join(
    f"(?<!{word}{between})" for word in ("revision", "commit") for between in ("=", " ", ": ", "='", '": "', "': '")
)
TEXTS = (
    # https://user:password@host
    re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#@'\"]{1,1000}(?=@)", re.IGNORECASE),
    # api_key=…, --token …, ?X-Amz-Signature=…, "password": "…", Authorization: Bearer …
    re.compile(
        rf"(?P<kept>(?<![a-z0-9/])[a-z0-9_.-]{{0,32}}(?:{NAME}|signature|accesskeyid)['\"]?\s*[=:]\s*['\"]?"
        r"|[?&;]sig=|\bbearer )"
        rf"(?!{re.escape(HIDDEN)}|null\b|none\b|true\b|false\b)(?:(?<=['\"])[^'\"]+|[^\s&;,'\"\])}}]+)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<kept>(?<![a-z0-9])--?[a-z0-9-]{0,64}(?:key|token|secret|password) )[^\s'\"-][^\s'\"]*", re.IGNORECASE
    ),
    # Hugging Face, OpenAI and others, GitHub, AWS, W&B, JSON web tokens
    re.compile(
        r"(?P<kept>)(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{16,}|"
        r"github_pat_\w{16,}|A[KS]IA[0-9A-Z]{16}|wandb_v\d_\w{16,}|eyJ[\w-]{8,999}\.[\w-]{8,}\.[\w-]*)"
    ),
    # 40 hex digits are W&B's key, or a commit where they stand behind @, / or a word that says so.
    re.compile(rf"(?P<kept>)(?<![A-Za-z0-9@/]){_NO_COMMIT}[0-9a-f]{{40}}(?![A-Za-z0-9])"),
)
_COMMIT = re.compile(r"revision|commit|sha|hash", re.IGNORECASE)


def redacted(value: Value, name: str = "") -> Value:
    """The same value, in which secrets are HIDDEN: by the key they stand under, by their look, or by the environment.

    `name`: the key that the value stands under. Containers are copied; what is no text, number or container is kept.
    """
    known = sorted((text for key, text in os.environ.items() if _is_secret(key, text)), key=len, reverse=True)
    return _redacted(value, name, known)


def _is_secret(name: str, text: str) -> bool:
    """Whether an environment variable holds one; GIT_ASKPASS and the like name programs."""
    return bool(SECRET_NAME.search(name)) and len(text) >= SHORTEST and not (text[0] == "/" and Path(text).exists())


def _redacted(value: Any, name: str, known: list[str]) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {_redacted(key, "", known): _redacted(one, str(key), known) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(_redacted(one, name, known) for one in value)
    if (
        SECRET_NAME.search(name)
        and isinstance(value, str | int | float)
        and not isinstance(value, bool)
        and value != ""
    ):
        return HIDDEN
    if not isinstance(value, str) or (_COMMIT.search(name) and re.fullmatch(r"[0-9a-f]{40}", value)):
        return value
    for secret in known:
        value = value.replace(secret, HIDDEN)
    for pattern in TEXTS:
        value = pattern.sub(lambda found: found["kept"] + HIDDEN, value)
    return value
