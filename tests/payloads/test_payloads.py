"""No input file runs code: a process that watches itself reads each payload, and ends in a line or ignores it.

Watched, in the process and all that it starts: programs, connections, unpickling, and changes of files elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.payloads import in_data, in_models, in_runs
from tests.payloads.place import World, write_clips
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import save_picture

REPOSITORY, HERE = Path(__file__).parents[2], Path(__file__).parent
SECRET = "what only this machine's owner may read"
FEWEST = 60
GROUPS = {
    "configs": in_data.configs,
    "datasets": in_data.datasets,
    "models": in_models.models,
    "adapters": in_models.adapters,
    "runs": in_runs.runs,
}
SECONDS = 570


def watched(root: Path, program: list[str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python among watchers; what they saw."""
    for name in ("out", "home", "tmp"):
        (root / name).mkdir(exist_ok=True)
    log, roots = root / "events", [root / name for name in ("out", "home", "tmp")]
    log.write_text("")
    environment = os.environ | {
        "AUDIT_LOG": str(log),
        "AUDIT_ROOTS": os.pathsep.join(str(folder.resolve()) for folder in roots),
        "PYTHONPATH": os.pathsep.join([str(HERE / "watch"), str(REPOSITORY)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(root / "home"),
        "TORCHINDUCTOR_CACHE_DIR": str(root / "tmp/inductor"),
        "TMPDIR": str(root / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, *program]
    done = subprocess.run(
        command, cwd=root / "out", env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    return done, log.read_text().splitlines()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("payloads"))
    for folder in (world.root / "markers", world.bad):
        folder.mkdir()
    save_tiny_svd(world.model)
    write_clips(world.data)
    save_picture(world.root / "a.png")
    fit = world.fit("trainer.max_steps=2", f"run_dir={world.run}", "adapter.targets=both")
    (world.root / "good.json").write_text(json.dumps([["good", fit]]))
    done, _ = watched(world.root, [str(HERE / "driver.py"), str(world.root / "good.json")])
    assert json.loads(done.stdout)["code"] == 0, done.stdout + done.stderr
    (world.root / "home/secret").write_text(SECRET)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_nothing_runs_and_nothing_leaves(group: str, world: World) -> None:
    rows = GROUPS[group](world)
    (world.root / f"{group}.json").write_text(json.dumps(list(rows.items())))
    done, events = watched(world.root, [str(HERE / "driver.py"), str(world.root / f"{group}.json")])
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [end["name"] for end in ends] == list(rows), done.stderr[-2000:]
    told = [line for line in events if not line.startswith("== ")]
    assert told == [], "\n".join(events)
    odd = [end for end in ends if end["code"] not in (0, 2, 3, 4, 5, 6) or "Traceback" in end["said"]]
    assert not odd, "\n".join(map(str, odd))
    assert list((world.root / "markers").iterdir()) == []
    secrets = [path for path in world.out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert secrets == []


def test_there_are_enough_of_them(world: World, tmp_path: Path) -> None:
    counted = World(tmp_path)
    counted.model, counted.data, counted.run = world.model, world.data, world.run
    for name in ("model", "data", "run", "home"):
        (tmp_path / name).symlink_to(world.root / name)
    for name in ("bad", "out"):
        (tmp_path / name).mkdir()
    assert len({name.partition(": ")[2] or name for make in GROUPS.values() for name in make(counted)}) >= FEWEST


SEEN = {
    "os.system": "os.system('true')",
    "subprocess.Popen": "import subprocess; subprocess.run(['true'])",
    "pickle.find_class": "import pickle; pickle.loads(pickle.dumps(print))",
    "torch": "import torch, io; b = io.BytesIO(); torch.save({'a': print}, b); b.seek(0); torch.load(b, weights_only=False)",
    "socket.connect": "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))",
    "socket.getaddrinfo": "import socket; socket.getaddrinfo('192.0.2.1', 9)",
    "open": "open('../elsewhere', 'w')",
    "os.mkdir": "os.mkdir('../elsewhere')",
    "os.symlink": "os.symlink('a', '../link')",
    "another process": "from multiprocessing import Process as P; p = P(target=os.system, args=('true',)); p.start(); p.join()",
}


@pytest.mark.parametrize("event", SEEN)
def test_the_watchers_see(event: str, tmp_path: Path) -> None:
    _, events = watched(tmp_path, ["-c", f"import os\n{SEEN[event]}"])
    assert [
        line
        for line in events
        if line.startswith({"torch": "pickle", "another process": "os.system"}.get(event, event))
    ]


def test_the_watchers_say_nothing_of_what_is_allowed(tmp_path: Path) -> None:
    done, events = watched(
        tmp_path, ["-c", "open('here', 'w'); import tempfile; tempfile.TemporaryFile(); import torch"]
    )
    assert done.returncode == 0, done.stderr
    assert events == []
