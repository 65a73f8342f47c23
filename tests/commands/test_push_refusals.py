"""Every way in which `python -m svdtrain push` refuses or fails: one line, its exit code, and nothing half-sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from tests.commands.exported import TOKEN, push
from tests.commands.hub_server import OK, Answer, Hub, Repository

if TYPE_CHECKING:
    from collections.abc import Callable


def hidden(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("url")


def of_a_run(folder: Path) -> None:
    (folder / "run.json").write_text("{}")


def with_checkpoints(folder: Path) -> None:
    (folder / "checkpoints").mkdir()


def of_other_kinds(folder: Path) -> None:
    for name in ("a.ckpt", "b.txt", "c.MP4", "d.tar"):
        (folder / "samples" / name).write_text("mine")


def link_out(folder: Path) -> None:
    (folder.parent / "secret.json").write_text("{}")
    (folder / "a.json").symlink_to(folder.parent / "secret.json")


def link_to_nothing(folder: Path) -> None:
    (folder / "a.json").symlink_to(folder / "b.json")


def link_to_a_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder / "samples")


def private_header(folder: Path) -> None:
    save_file(
        {"a": np.zeros(3)}, folder / "b.safetensors", metadata={"svdtrain.source": "x", "svdtrain.data_source": "y"}
    )


def home_in_header(folder: Path) -> None:
    save_file({"a": np.zeros(3)}, folder / "b.safetensors", metadata={"ss_dataset": f"{Path.home()}/clips"})


def home_in_text(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"_name_or_path": f"{Path.home()}/models/base"}))


def torn(folder: Path) -> None:
    path = folder / "ink.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def no_header(folder: Path) -> None:
    (folder / "ink.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0[1,2]")


def emptied(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def as_it_is(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "word", "code", "said"),
    [
        (hidden, "", 2, "'.git' is hidden"),
        (of_a_run, "", 2, "it has run.json: it is a run"),
        (with_checkpoints, "", 2, "it has checkpoints: it is a run"),
        (of_other_kinds, "", 2, "'samples/c.MP4' is of a kind that may not leave (and 1 more)"),
        (link_out, "", 2, "'a.json' is a link that leads out"),
        (link_to_nothing, "", 2, "'a.json' is a link that leads out of the folder, or nowhere"),
        (link_to_a_folder, "", 2, "'more' is a link"),
        (private_header, "", 2, "'b.safetensors' has svdtrain.data_source and svdtrain.source in its header"),
        (home_in_header, "", 2, "'b.safetensors' names your home folder"),
        (home_in_text, "", 2, "'config.json' names your home folder"),
        (torn, "", 4, "ink.safetensors: not a whole safetensors file"),
        (no_header, "private_metadata=true", 4, "ink.safetensors: not a whole safetensors file"),
        (emptied, "", 2, "it is empty"),
        (as_it_is, "folder={w}/nothing", 2, "nothing: there is no such folder"),
        (as_it_is, "folder={w}/README.md", 2, "README.md: there is no such folder"),
        (as_it_is, "repo=ink", 2, "repo: 'ink' is not allowed"),
        (as_it_is, "repo=datasets/me/ink", 2, "repo: 'datasets/me/ink' is not allowed"),
        (as_it_is, "repo=me/a--b", 2, "repo=me/a--b: the Hub has no such names"),
        (as_it_is, "revision='a b'", 2, "revision: 'a b' is not allowed"),
        (as_it_is, "message=''", 2, "message: '' is not allowed"),
        (as_it_is, "public=true", 2, "public: no such key"),
    ],
)
def test_what_may_not_leave_is_refused_by_name(
    change: Callable[[Path], None],
    word: str,
    code: int,
    said: str,
    hub_here: Hub,
    exported: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change(exported)
    before = sorted(exported.rglob("*"))
    assert push(exported, *([word.format(w=exported)] if word else [])) == code
    assert_one_error(capfd.readouterr(), said)
    assert hub_here.asked == []
    assert sorted(exported.rglob("*")) == before


def refused(status: int, words: str = "", code: str = "") -> list[Answer]:
    named = {"X-Error-Message": words, "X-Error-Code": code}
    return [(status, {"error": words} if words else {}, {name: value for name, value in named.items() if value})] * 9


CREATE, BATCH, COMMIT = "POST /api/repos/create", "POST .*/objects/batch", "POST .*/commit/main"
BROKEN_CARD = {"errors": [{"message": '"license" must be one of'}], "warnings": []}
LFS_ERROR = {
    "objects": [{"oid": "0", "size": 1, "error": {"code": 422, "message": "quota: https://a.b/c?X-Amz-Signature=s"}}]
}
REFUSALS: list[tuple[str, str, list[Answer], int, str, str]] = [
    (
        "wrong token",
        "GET .*",
        refused(401, "Invalid credentials in Authorization header"),
        2,
        "does not accept",
        "login",
    ),
    (
        "read-only token",
        CREATE,
        refused(403, "no rights under me"),
        2,
        "may not write to it (no rights under me)",
        "own",
    ),
    ("unknown owner", CREATE, refused(404, "Owner not found"), 2, "repo=me/ink: the Hub knows no such owner", "repo="),
    ("made meanwhile", CREATE, refused(409, "exists already"), 5, "another change was made at the same time", "again"),
    ("not paid for", CREATE, refused(402, "storage is full"), 5, "answers HTTP 402 (storage is full)", "again"),
    ("no branch", "POST .*/preupload/main", refused(404, "", "RevisionNotFound"), 2, "no such branch", "revision"),
    ("card", "POST /api/validate-yaml", [(400, BROKEN_CARD, {})], 2, "README.md: the Hub refuses it: Invalid", "mend"),
    ("down", "GET .*", refused(500), 5, "answers HTTP 500", "again"),
    ("no answer", "GET .*", [(0, {}, {})], 5, "the upload broke off", "again"),
    ("nonsense", BATCH, [OK], 5, "the Hub does not take the upload", "again"),
    ("full", BATCH, [(200, LFS_ERROR, {})], 5, "does not take the upload: LFS batch API returned errors", "again"),
    ("storage", "PUT .*", refused(403), 5, "the upload broke off: its storage answers HTTP 403", "again"),
    ("conflict", COMMIT, refused(409, "the branch has moved"), 5, "same time (the branch has moved)", "again"),
    ("protected", COMMIT, refused(403, "protected"), 2, "may not write to it (protected)", "token"),
    ("too many", "GET .*", refused(429), 5, "answers HTTP 429", "again"),
]


@pytest.mark.parametrize(
    ("where", "answers", "code", "said", "hint"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_refusal_of_the_hub_is_one_line(
    where: str,
    answers: list[Answer],
    code: int,
    said: str,
    hint: str,
    hub_here: Hub,
    exported: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub_here.refusals[where] = list(answers)
    assert push(exported) == code
    assert_one_error(capfd.readouterr(), said, hint)
    assert not [one for one in hub_here.repositories.values() if one.commits]


@pytest.mark.parametrize(
    ("setting", "value", "code", "said"),
    [
        ("HF_TOKEN", "", 2, "there is no token for http://127.0.0.1"),
        ("HF_HUB_OFFLINE", True, 2, "the Hub is switched off by HF_HUB_OFFLINE=1"),
        ("ENDPOINT", "http://127.0.0.1:9", 5, "me/ink: the upload broke off: "),
        ("public", None, 2, "repo=me/ink: it is public on the Hub, and private=true"),
        ("ignored", None, 5, "me/ink: 'ink.safetensors' did not arrive, the rest did"),
    ],
)
def test_what_the_surroundings_forbid_is_one_line(
    setting: str,
    value: object,
    code: int,
    said: str,
    hub_here: Hub,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if setting == "HF_TOKEN":
        monkeypatch.setenv(setting, "")
    elif hasattr(constants, setting):
        monkeypatch.setattr(constants, setting, value)
    if setting == "public":
        hub_here.repositories["me/ink"] = Repository(private=False)
    if setting == "ignored":
        hub_here.ignored = {"ink.safetensors"}
    assert push(exported) == code
    assert_one_error(capfd.readouterr(), said)
    assert bool(hub_here.asked) == (setting in ("public", "ignored"))
    assert setting == "ignored" or not [one for one in hub_here.repositories.values() if one.commits]


def assert_one_error(told: tuple[str, str], *said: str) -> None:
    """One line of error, at most one of hint, on stderr; and no secret on either stream."""
    out, err = told
    lines = err.splitlines()
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), err
    for line, fragment in zip(lines, said, strict=False):
        assert fragment in line
    assert "sent:" not in out
    assert "Signature" not in err
    assert TOKEN not in err + out
