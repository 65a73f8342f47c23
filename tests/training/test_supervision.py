"""Real fits of two ranks that lose one: who it was is said in time, and a supervised run ends in the very bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from svdtrain.training.checkpoint import checkpoints, fault_of, step_of
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

ROOT = Path(__file__).parents[2]
HUNG = 400
"""Seconds after which a run never ends: a machine that others use took 121 for one that takes 22."""
TWO = ["trainer.devices=2", "data.batch_size=1", "trainer.save_every=2"]
STAND_INS = {
    "scontrol": 'echo "$@" >> "${0%/*}/asked"',
    # As many processes as tasks, with what srun tells each; its exit code is the largest of theirs.
    "srun": """
export SLURM_NTASKS=$((SLURM_JOB_NUM_NODES * SLURM_NTASKS_PER_NODE)) SLURM_STEP_NUM_NODES=$SLURM_JOB_NUM_NODES
export SLURM_STEP_ID=0 SLURM_STEP_NODELIST='localhost,node[07-09]'
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_NODEID=$((task / SLURM_NTASKS_PER_NODE)) \\
        SLURM_LOCALID=$((task % SLURM_NTASKS_PER_NODE)) "$@" &
    tasks+=($!)
done
most=0
for task in "${tasks[@]}"; do
    code=0
    wait "$task" || code=$?
    ((code <= most)) || most=$code
done
exit "$most"
""",
}
"""Programs of Slurm, for a machine that has none."""
EIGHT = [*TWO, "trainer.max_steps=8", "optimizer.ema_decay=0.9"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("places")
    return save_tiny_svd(root / "model"), save_tiny_dataset(root / "data")


def started(words: list[str], *prefix: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, *(prefix or ("-m", "svdtrain")), "fit", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | variables
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def queued(words: list[str], folder: Path, nodes: int, tasks_per_node: int) -> subprocess.Popen[str]:
    """scripts/slurm/fit.sbatch as Slurm would run it; folder/asked is what scontrol was told."""
    for name, body in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)
    told = {"JOB_ID": f"{os.getpid() % 9000}", "JOB_NUM_NODES": f"{nodes}", "NTASKS_PER_NODE": f"{tasks_per_node}"}
    variables = {f"SLURM_{name}": value for name, value in told.items()} | {"PYTHONUNBUFFERED": "1"}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [ROOT / "scripts" / "slurm" / "fit.sbatch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | variables | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )


def read_to(child: subprocess.Popen[str], wanted: str) -> None:
    assert child.stdout
    while wanted not in (line := child.stdout.readline()):
        assert line, child.communicate()[1]


def rank_of(pid: int, number: int, name: str = "RANK") -> int:
    """The process that a launcher has started as this rank."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    [found] = [int(p) for p in children if f"\0{name}={number}\0".encode() in Path(f"/proc/{p}/environ").read_bytes()]
    return found


def mark(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(places: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result of two ranks of one machine that nothing happens to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    child = started(fit_words(*places, *EIGHT, f"run_dir={run}"))
    assert child.communicate(timeout=HUNG)[1] == ""
    return mark(run)


def test_a_supervised_run_that_loses_a_rank_ends_as_one_that_does_not(
    places: tuple[Path, Path], whole: str, tmp_path: Path
) -> None:
    child = started(fit_words(*places, *EIGHT, f"run_dir={tmp_path / 'lost'}", "supervise=2"))
    read_to(child, "step 3/")
    lost = rank_of(child.pid, 1)
    os.kill(lost, signal.SIGKILL)
    said, errors = child.communicate(timeout=HUNG)
    assert child.returncode == 0, errors
    assert f"warning: rank 1 (process {lost}) was killed by SIGKILL at step" in errors
    assert "restart 1 of 2" in errors
    assert "error:" not in errors
    assert mark(tmp_path / "lost") == whole
    assert json.loads((tmp_path / "lost" / "run.json").read_text())["state"] == "done"
    assert "step 8/8" in said


def test_a_rank_that_is_frozen_is_named_within_the_bound(places: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = started(fit_words(*places, *TWO, "trainer.max_steps=10000", f"run_dir={run}", "trainer.watchdog=6"))
    read_to(child, "step 3/")
    frozen = rank_of(child.pid, 1)
    os.kill(frozen, signal.SIGSTOP)
    _, errors = child.communicate(timeout=HUNG)
    assert child.returncode == 75, errors
    assert re.search(rf"rank 1 \(process {frozen} on \S+\) has not moved for 6 s at step", errors)
    assert "rank 0 " not in errors
    assert "commands/fit.py" in (run / "stacks-rank-0.txt").read_text(), "the one that waited could say where"
    assert fault_of(checkpoints(run)[-1]) == ""


def test_one_process_alone_watches_itself(places: tuple[Path, Path], tmp_path: Path) -> None:
    """A callback that never comes back: the main thread sleeps."""
    script = (
        "import sys, time\nfrom svdtrain.training.callbacks.guard import NumericGuard\n"
        "NumericGuard.on_train_batch_end = lambda self, trainer, *_: time.sleep(trainer.global_step // 3 * 1000)\n"
        "from svdtrain.cli import entry\nentry()"
    )
    run = tmp_path / "run"
    words = fit_words(*places, "trainer.max_steps=100", "trainer.save_every=2", f"run_dir={run}", "trainer.watchdog=4")
    child = started(words, "-c", script)
    _, errors = child.communicate(timeout=HUNG)
    assert child.returncode == 75, errors
    assert "rank 0 (process" in errors
    assert "has not moved for 4 s at step" in errors
    assert "<lambda>" in (run / "stacks-rank-0.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda value: value.name)
def test_ranks_of_torchrun_and_slurm_stop_and_save_alike(
    places: tuple[Path, Path], tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM to torchrun's agent; SIGUSR1 to each task, as `sbatch --signal=USR1@120` does, and the job is queued again."""
    run = tmp_path / "run"
    words = fit_words(*places, *TWO, "trainer.max_steps=10000", f"run_dir={run}")
    if number == signal.SIGTERM:
        job = started(words, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "svdtrain")
    else:
        job = queued([word for word in words if "trainer.devices" not in word], tmp_path, 1, 2)
    read_to(job, "step 3/")
    for told in [job.pid] if number == signal.SIGTERM else [rank_of(job.pid, each, "SLURM_PROCID") for each in (0, 1)]:
        os.kill(told, number)
    ended = job.communicate(timeout=HUNG)
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["step"]) == ("stopped", step_of(checkpoints(run)[-1])), ended
    assert fault_of(checkpoints(run)[-1]) == ""
    if number == signal.SIGUSR1:
        assert job.returncode == 75, ended
        assert (tmp_path / "asked").read_text() == f"requeue {os.getpid() % 9000}\n", "once, by the first rank"


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def test_two_machines_train_what_two_ranks_of_one_do(places: tuple[Path, Path], whole: str, tmp_path: Path) -> None:
    """Begun by two launchers of torchrun on loopback, of which one gets SIGTERM; ended by fit.sbatch."""
    run = tmp_path / "run"
    words = [word for word in fit_words(*places, *EIGHT, f"run_dir={run}") if "trainer.devices" not in word]
    two = ["trainer.devices=1", "trainer.nodes=2"]
    place = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--nnodes=2", "--nproc-per-node=1"]
    torchrun = ["-m", "torch.distributed.run", *place, "-m", "svdtrain"]
    machines = [started([*words, *two], *torchrun) for _ in range(2)]
    while not checkpoints(run):
        assert all(machine.poll() is None for machine in machines), [one.communicate() for one in machines]
        time.sleep(0.02)
    machines[1].terminate()
    said = [machine.communicate(timeout=HUNG) for machine in machines]
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "stopped", said
    assert record["step"] == step_of(checkpoints(run)[-1]) < 8
    assert sum(out.count("stopped at step") for out, _ in said) == 1, "one rank speaks"
    job = queued(words, tmp_path, 2, 1)
    ended = job.communicate(timeout=HUNG)
    assert job.returncode == 0, ended
    assert json.loads((run / "run.json").read_text())["state"] == "done"
    assert mark(run) == whole


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_alike(places: tuple[Path, Path], tmp_path: Path) -> None:
    """Before the step is taken: the last checkpoint is that of the step before."""
    script = (
        "import os\nfrom svdtrain.training import module\nplain, calls = module.mean_error_per_clip, []\n"
        "def spoilt(*given):\n"
        "    calls.append(1)\n"
        "    return plain(*given) * (float('nan') if os.environ['RANK'] == '1' and len(calls) == 4 else 1)\n"
        "module.mean_error_per_clip = spoilt\nfrom svdtrain.cli import entry\nentry()"
    )
    run = tmp_path / "run"
    words = fit_words(*places, *TWO, "trainer.max_steps=9", "trainer.save_every=1", f"run_dir={run}")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
    ranks = [started(words, "-c", script, **shared, RANK=number, LOCAL_RANK=number) for number in "01"]
    errors = [rank.communicate(timeout=HUNG)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [6, 6], errors
    assert errors[0] == errors[1], "each says the same, whose clip it was"
    assert re.match(r"error: the loss of clip 'clip-\d@.*' at step 3, rank 1, sigma .* is nan\nhint: ", errors[0])
    assert step_of(checkpoints(run)[-1]) == 3


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "4", "RANK": "0"}, "trainer.devices=2: 4 processes were started"),
        ({"WORLD_SIZE": "2", "RANK": "0", "GROUP_WORLD_SIZE": "2"}, "2 processes were started on 2 machines"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "29500"},
            "the ranks cannot meet",
        ),
    ],
)
def test_ranks_that_cannot_meet_say_so(
    places: tuple[Path, Path], tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    child = started(fit_words(*places, *TWO, f"run_dir={tmp_path / 'run'}"), **variables)
    _, errors = child.communicate(timeout=HUNG)
    assert child.returncode in (2, 5)
    assert said in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()
