"""No secret leaves: a fit with W&B and an export among planted secrets, then every byte that was written is searched."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.data.loopback import Server
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
CANARIES = {
    "token in the environment": "canary-environment-token",
    "the key of W&B in the environment": "ca11ab1e" * 5,
    "the token of the Hub in the environment": "hf_CanaryOfTheEnvironment",
    "the secret of AWS in the environment": "canary/of+amazon/secretAccessKey",
    "address of a database in the environment": "canary-database-password",
    "a value of a recipe": "ghp_CanaryOfARecipe00000",
    "a value on the command line": "sk-canary-of-the-command-line",
    "a signature in an address": "canary-signature",
    "a token in an address": "canary-address-token",
    "the git remote": "canary-git-password",
    "the token file of the Hub": "hf_CanaryOfTheTokenFile0",
    "netrc": "canary-netrc-password",
}


def plant(root: Path, dataset: str) -> tuple[dict[str, str], list[str]]:
    """Secrets in HOME, the environment and the git remote; the environment, and the words of the command line."""
    home = root / "home"
    (home / "hub").mkdir(parents=True)
    (home / "hub/token").write_text(CANARIES["the token file of the Hub"])
    (home / ".netrc").write_text(
        "".join(f"machine {host} login me password {CANARIES['netrc']}\n" for host in ("127.0.0.1", "api.wandb.ai"))
    )
    (home / ".netrc").chmod(0o600)
    (root / "configs/config").mkdir(parents=True)
    (root / "configs/config/mine.yaml").write_text(
        f"# @package _global_\ndefaults: [style_lora, _self_]\ndata: {{trigger: {CANARIES['a value of a recipe']}}}\n"
    )
    (root / "work").mkdir()
    remote = f"https://me:{CANARIES['the git remote']}@github.com/me/mine.git"
    for words in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *words], cwd=root / "work", check=True)
    environment = {
        "HOME": str(home),
        "HF_HOME": str(home / "hub"),
        "TMPDIR": str(root / "tmp"),
        "PYTHONPATH": str(REPOSITORY),
        "SERVICE_TOKEN": CANARIES["token in the environment"],
        "WANDB_API_KEY": CANARIES["the key of W&B in the environment"],
        "HF_TOKEN": CANARIES["the token of the Hub in the environment"],
        "AWS_SECRET_ACCESS_KEY": CANARIES["the secret of AWS in the environment"],
        "DATABASE_URL": f"postgres://me:{CANARIES['address of a database in the environment']}@db/clips",
        "WANDB_MODE": "offline",
    }
    (root / "tmp").mkdir()
    query = f"X-Amz-Signature={CANARIES['a signature in an address']}", f"token={CANARIES['a token in an address']}"
    sources = [f"{dataset}/train-000000.tar?{query[0]}", f"{dataset}/held_out-000000.tar?{query[1]}"]
    return environment, [f"data.source={sources}", f"logger.project={CANARIES['a value on the command line']}"]


def run(root: Path, environment: dict[str, str], *words: str) -> bytes:
    """What a command says."""
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_SILENT", "WANDB_DIR")}
    command = [sys.executable, "-m", "svdtrain", *words]
    done = subprocess.run(
        command, cwd=root / "work", env=kept | environment, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout + done.stderr


def contents(name: str, data: bytes) -> list[tuple[str, bytes]]:
    """A file's bytes, and those of what is packed in it."""
    found = [(name, data)]
    if data[:2] == b"\x1f\x8b":
        found += contents(f"{name}: unpacked", gzip.decompress(data))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(member.name, archive.extractfile(member)) for member in archive]
            found += [one for inside, file in members if file for one in contents(f"{name}: {inside}", file.read())]
    elif zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found += [
                one for inside in archive.namelist() for one in contents(f"{name}: {inside}", archive.read(inside))
            ]
    elif data[:2] == b"\x78\x9c":
        found += [(f"{name}: unpacked", zlib.decompress(data))]
    elif name.endswith(".wandb"):
        found += [(f"{name}: records", b"".join(_records(data)))]
    return found


def _records(data: bytes) -> list[bytes]:
    """A .wandb file without the headers of its chunks, where a block's end may cut a word: LevelDB's log format."""
    pieces, offset = list[bytes](), 7
    while offset + 7 <= len(data):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
            continue
        size = int.from_bytes(data[offset + 4 : offset + 6], "little")
        pieces.append(data[offset + 7 : offset + 7 + size])
        offset += 7 + size
    return pieces


def written(root: Path) -> list[tuple[str, bytes]]:
    """All that lies under a folder, but for what was planted and the dataset."""
    planted = {
        root / "home/hub/token",
        root / "home/.netrc",
        root / "configs/config/mine.yaml",
        root / "work/.git/config",
    }
    files = [
        path for path in root.rglob("*") if path.is_file() and path not in planted and root / "data" not in path.parents
    ]
    return [one for path in files for one in contents(str(path.relative_to(root)), path.read_bytes())]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_no_canary_is_in_any_byte_that_a_fit_and_an_export_leave(server: Server, tmp_path: Path) -> None:
    save_tiny_svd(tmp_path / "model")
    save_tiny_dataset(tmp_path / "data")
    said: list[tuple[str, bytes]] = []
    server.add(tmp_path / "data")
    environment, words = plant(tmp_path, server.url)
    fit = fit_words(tmp_path / "model", tmp_path / "data", *words, "config=mine", "run_dir=run", "logger=wandb")
    fit.append("logger.patience=240")  # W&B starts slowly on a busy machine
    fit += ["--config-dir", str(tmp_path / "configs")]
    said.append(("fit", run(tmp_path, environment, "fit", *fit)))
    others = {"run_dir=run": "trainer.max_steps=1,2", "logger=wandb": "logger=tensorboard"}
    sweep = [others.get(word, word) for word in fit if word != "trainer.max_steps=2"]
    said.append(("sweep", run(tmp_path, environment, "fit", "-m", *sweep)))
    others = {"run_dir=run": "resume=run", "trainer.max_steps=2": "trainer.max_steps=3"}
    said.append(("resume", run(tmp_path, environment, "fit", *(others.get(word, word) for word in fit))))
    for metadata in ("full", "minimal"):
        to = ["to=diffusers,comfyui,peft,kohya", f"metadata={metadata}", f"out={metadata}", "card=true", "steps=1"]
        said.append((f"export {metadata}", run(tmp_path, environment, "export", "adapter=run", *to)))
    found = said + written(tmp_path)
    names = {name for name, _ in found}
    assert {"work/run/run.json", "work/run/config.yaml", "work/full/README.md"} <= names
    assert any(name.endswith("multirun.yaml") for name in names)
    records = b"".join(data for name, data in found if name.endswith(".wandb: records"))
    assert b"lora_plus_ratio" in records
    leaks = [(name, canary) for name, data in found for canary, text in CANARIES.items() if text.encode() in data]
    assert leaks == []


def test_the_search_sees_into_what_is_packed(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.gz", gzip.compress(b"canary" * 9))
    (tmp_path / "a").write_bytes(packed.getvalue())
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(tmp_path / "a", "inside")
    seen = [name for name, data in written(tmp_path) if b"canary" in data]
    assert sorted(seen) == ["a: a.gz: unpacked", "b.tar: inside: a.gz: unpacked"]
