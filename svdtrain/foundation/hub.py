"""Files to a repository of the Hugging Face Hub: one commit or none, no telemetry, and every refusal in one line."""

from __future__ import annotations

import logging
import os
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import svdtrain
from svdtrain.foundation.errors import SvdtrainError, SystemFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

log = logging.getLogger(__name__)
MAIN = "main"
NO_TELEMETRY = "HF_HUB_DISABLE_TELEMETRY"
AGAIN = "run the same command again: what has arrived is not sent twice"


@dataclass(frozen=True)
class Destination:
    """A branch of a model repository, which need not exist."""

    repo: str
    """OWNER/NAME."""
    private: bool
    revision: str | None
    """A branch; None: main."""
    message: str
    """Of the commit."""


def endpoint() -> str:
    """The Hub that is spoken to: HF_ENDPOINT, or the public one."""
    with _unobserved():
        from huggingface_hub import constants

        return constants.ENDPOINT


def check_name(repo: str) -> None:
    """Raises UsageError for a name that no repository of the Hub can have."""
    with _unobserved():
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise UsageError(
                f"repo={repo}: the Hub has no such names: {_first_line(error)}", "repo=OWNER/NAME"
            ) from error


def upload(files: Mapping[str, Path], to: Destination) -> str:
    """Send files (name in the repository -> path) as one commit; the repository's address.

    Raises UsageError for a missing or weak token, a wrong name, a public repository where a private one was wanted, or when
    the Hub is switched off; SystemFault when the Hub or the network fails.
    """
    with _unobserved(), _explained(to):
        from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

        if constants.HF_HUB_OFFLINE:
            hint = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE; dry_run=true works without a network"
            raise UsageError("the Hub is switched off by HF_HUB_OFFLINE=1 in the environment", hint)
        token = get_token()
        if token is None:
            raise UsageError(f"there is no token for {constants.ENDPOINT}", "hf auth login, or put one into HF_TOKEN")
        name, version = "svdtrain", svdtrain.__version__
        api = HfApi(endpoint=constants.ENDPOINT, token=token, library_name=name, library_version=version)
        _make_ready(api, to)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
        commit = api.create_commit(to.repo, operations, commit_message=to.message, revision=to.revision)
        arrived = api.get_paths_info(to.repo, list(files), revision=commit.oid)
        sizes = {one.path: getattr(one, "size", None) for one in arrived}
    if lost := [name for name, path in files.items() if sizes.get(name) != path.stat().st_size]:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        message = f"{to.repo}: '{lost[0]}'{more} did not arrive, the rest did"
        raise SystemFault(message, "a .gitignore in the repository may hide it, or someone else changed it meanwhile")
    return f"{constants.ENDPOINT}/{to.repo}" + (f"/tree/{to.revision}" if to.revision else "")


def _make_ready(api: HfApi, to: Destination) -> None:
    """The repository and the branch, made where there are none. Whoever wants it private gets no public one."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = bool(api.model_info(to.repo).private)
    except RepositoryNotFoundError as error:
        if error.response.status_code != 404:
            raise
        api.create_repo(to.repo, private=to.private)
        private = to.private
    if to.private and not private:
        hint = "private=false adds to it where everyone sees it; or choose another name"
        raise UsageError(f"repo={to.repo}: it is public on the Hub, and private=true", hint)
    if private and not to.private:
        log.warning("%s is private and stays so: its settings on the Hub open it", to.repo)
    if to.revision not in (None, MAIN):
        api.create_branch(to.repo, branch=to.revision, exist_ok=True)


@contextmanager
def _unobserved() -> Iterator[None]:
    """huggingface_hub asks and tells nothing besides what it is told to, and speaks in our warnings only."""
    before = os.environ.get(NO_TELEMETRY)
    os.environ[NO_TELEMETRY] = "1"
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, telemetry, bars = logger.level, constants.HF_HUB_DISABLE_TELEMETRY, not are_progress_bars_disabled()
    constants.HF_HUB_DISABLE_TELEMETRY = True
    logger.setLevel(logging.ERROR)
    if bars and not os.isatty(2):
        disable_progress_bars()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
    finally:
        os.environ.pop(NO_TELEMETRY) if before is None else os.environ.update({NO_TELEMETRY: before})
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        logger.setLevel(level)
        if bars and not os.isatty(2):
            enable_progress_bars()
    for one in said:
        if issubclass(one.category, UserWarning):
            log.warning("%s", " ".join(str(one.message).split()))


@contextmanager
def _explained(to: Destination) -> Iterator[None]:
    """huggingface_hub's errors as ours."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _answer(error, to) from error
    except ValueError as error:
        if "README.md" in str(error):
            raise UsageError(f"README.md: the Hub refuses it: {_first_line(error)}", "mend its front matter") from error
        raise SystemFault(f"{to.repo}: the Hub does not take the upload: {_first_line(error)}", AGAIN) from error
    except (HTTPError, OSError, RuntimeError) as error:
        why = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        told = (
            f"its storage answers HTTP {why.response.status_code}"
            if isinstance(why, HfHubHTTPError)
            else _first_line(why)
        )
        raise SystemFault(f"{to.repo}: the upload broke off: {told}", AGAIN) from error


def _answer(error: HfHubHTTPError, to: Destination) -> SvdtrainError:
    """What an HTTP status means, with the Hub's own words where it has some."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RevisionNotFoundError

    hub, status = constants.ENDPOINT, error.response.status_code
    words = f" ({_first_line(error.server_message)})" if error.server_message else ""
    if status == 401:
        return UsageError(
            f"{hub} does not accept the token{words}", f"hf auth login, with one from {hub}/settings/tokens"
        )
    if status == 403:
        hint = "a token with the right to write there, or a repo=OWNER/NAME of your own"
        return UsageError(f"repo={to.repo}: the token may not write to it{words}", hint)
    if isinstance(error, RevisionNotFoundError):
        return UsageError(f"revision={to.revision}: no such branch of {to.repo}{words}", "leave revision out")
    if status == 404:
        return UsageError(f"repo={to.repo}: the Hub knows no such owner{words}", "repo=YOU_OR_YOUR_ORGANIZATION/NAME")
    if status == 409:
        return SystemFault(f"{to.repo}: another change was made at the same time{words}", AGAIN)
    return SystemFault(f"{to.repo}: {hub} answers HTTP {status}{words}", AGAIN)


def _first_line(error: object) -> str:
    """In one line, without the keys that addresses of storage carry."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(https?://[^\s?']+)\?[^\s']*", r"\1", text)[:300]
