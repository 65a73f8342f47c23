"""`python -m svdtrain push` against a Hub on the loopback: what was named arrives bit for bit, and nothing else is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled

from svdtrain.config.publishing import PushConfig
from svdtrain.foundation.files import packaged
from svdtrain.reporting.model_card import CONSENT_TO_FILL_IN
from tests.commands.exported import CARD, TOKEN, content, push, save_export
from tests.commands.hub_server import Hub, Repository

ROOT = Path(__file__).parents[2]


def push_from_a_fresh_process(folder: Path, hub: Hub, home: Path, **environment: str) -> str:
    """With the program as users run it; a request to any other address would reach the Hub as a proxy."""
    proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), hub.url)
    proxy |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT), "HF_HOME": str(home)}
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    command = [sys.executable, "-m", "svdtrain", "push", f"folder={folder}", "repo=me/ink"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        command,
        env=kept | proxy | settings | environment,
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


REQUESTS = [
    "GET /api/models/me/ink",
    "POST /api/repos/create",
    "POST /api/validate-yaml",
    "POST /api/models/me/ink/preupload/main",
    "POST /me/ink.git/info/lfs/objects/batch",
    *["PUT /storage"] * 3,
    *["POST /verify"] * 3,
    "POST /api/models/me/ink/commit/main",
    "POST /api/models/me/ink/paths-info",
]


def test_exactly_the_named_files_arrive_in_a_private_repository(hub: Hub, exported: Path, tmp_path: Path) -> None:
    said = push_from_a_fresh_process(exported, hub, tmp_path / "home", HF_HUB_DISABLE_XET="1").splitlines()
    files = content(exported)
    assert [line.split("B  ")[1] for line in said[:-2]] == sorted(files)
    assert said[-2] == f"5 files, 433.2 kB, to {hub.url}/me/ink (private)"
    assert said[-1] == f"sent: {hub.url}/me/ink"
    assert hub.repositories["me/ink"] == Repository(
        True, {"main": files}, hub.repositories["me/ink"].commits, ["Upload with svdtrain"]
    )
    assert len(hub.repositories["me/ink"].commits) == 1
    create = hub.asked[1]
    assert create.json == {"name": "ink", "organization": "me", "visibility": "private"}
    asked = [line.split("?")[0] for line in hub.lines()]
    shortened = ["PUT /storage" if "storage" in line else line.split("/paths-info")[0] for line in asked]
    assert sorted(shortened) == sorted(line.split("/paths-info")[0] for line in REQUESTS)
    for one in hub.asked:
        storage = one.path.startswith("/storage")
        assert ("authorization" in one.headers) != storage, one.line
        assert "torch" not in one.headers["user-agent"]
    assert not (tmp_path / "home").exists()


def test_by_default_the_bytes_go_by_xet(
    hub: Hub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    hf_xet = pytest.importorskip("hf_xet")
    push_from_a_fresh_process(exported, hub, tmp_path / "home")
    assert not [line for line in hub.lines() if "storage" in line or "agent-harnesses" in line]
    committed = {one["path"]: one for one in hub.committed() if "path" in one}
    assert committed.keys() == content(exported).keys()
    session = hf_xet.XetSession()
    with session.new_file_download_group(endpoint=f"local://{hub.content_store}") as group:
        for name in ("ink.safetensors", "samples/before after.mp4", "samples/sheet.png"):
            [known] = hf_xet.hash_files([str(exported / name)])
            group.start_download_file(hf_xet.XetFileInfo(known.hash, known.filesize), str(tmp_path / "back" / name))
    for path in (tmp_path / "back").rglob("*.*"):
        assert path.read_bytes() == (exported / path.relative_to(tmp_path / "back")).read_bytes()
    assert len(list((tmp_path / "back").rglob("*.*"))) == 3


@pytest.mark.parametrize("words", [[], ["HF_TOKEN"], ["HF_HUB_OFFLINE"]])
def test_a_dry_run_names_the_files_and_sends_nothing(
    words: list[str], hub_here: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a token and without a network, too."""
    monkeypatch.delenv("HF_TOKEN", raising="HF_TOKEN" in words)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", "HF_HUB_OFFLINE" in words)
    assert push(exported, "dry_run=true") == 0
    said = capfd.readouterr().out
    assert all(f"B  {name}\n" in said for name in content(exported))
    assert said.endswith("(private)\ndry_run=true: nothing was sent\n")
    assert hub_here.asked == []


def test_a_second_push_adds_to_the_branch_that_is_named(hub_here: Hub, exported: Path) -> None:
    hub_here.repositories["me/ink"] = Repository(private=True, branches={"main": {"old.md": b"mine"}})
    assert push(exported, "revision=v2", "message=Second try") == 0
    repository = hub_here.repositories["me/ink"]
    assert repository.branches == {"main": {"old.md": b"mine"}, "v2": {"old.md": b"mine"} | content(exported)}
    assert repository.messages == ["Second try"]
    assert "POST /api/repos/create" not in hub_here.lines()


def test_everyone_sees_it_only_when_told_so(hub_here: Hub, exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (exported / "README.md").write_text(CARD + CONSENT_TO_FILL_IN)
    hub_here.card_warnings = ["empty\nmetadata"]
    assert push(exported, "private=false") == 0
    said = capfd.readouterr()
    assert "(public)" in said.out
    assert not hub_here.repositories["me/ink"].private
    warnings = [line for line in said.err.splitlines() if line]
    assert warnings[0] == f'warning: README.md still says "{CONSENT_TO_FILL_IN}"'
    assert warnings[1:] == ["warning: Warnings while validating metadata in README.md: - empty metadata"]


def test_a_private_repository_stays_private(hub_here: Hub, exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub_here.repositories["me/ink"] = Repository(private=True)
    (exported / "README.md").unlink()
    assert push(exported, "private=false") == 0
    said = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["warning", "warning"]
    assert "page will say nothing" in said[0]
    assert "me/ink is private and stays so" in said[1]


def test_a_passing_fault_is_tried_again(hub_here: Hub, exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub_here.refusals["PUT .*"] = [(503, {}, {})]
    assert push(exported) == 0
    assert capfd.readouterr().err == ""
    assert hub_here.repositories["me/ink"].branches["main"] == content(exported)


def test_private_places_leave_when_told_so(hub_here: Hub, tmp_path: Path) -> None:
    folder = save_export(tmp_path / "mine", {"svdtrain.source": "/data/base"})
    assert push(folder, "private_metadata=true") == 0
    assert hub_here.repositories["me/ink"].branches["main"] == content(folder)


def test_a_push_leaves_the_process_as_it_was(hub_here: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    before = dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY, are_progress_bars_disabled()
    assert push(exported) == 0
    hub_here.refusals["POST /api/validate-yaml"] = [(500, {}, {})]
    assert push(exported) == 5
    assert (dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY, are_progress_bars_disabled()) == before


def test_every_key_stands_in_the_config() -> None:
    text = (packaged("configs") / "push.yaml").read_text()
    assert yaml.safe_load(text).keys() - {"defaults"} == PushConfig.model_fields.keys()
