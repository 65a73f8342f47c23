"""What launchers say of the ranks they have started, and what of it does not go with the settings."""

from __future__ import annotations

import os

import pytest

from svdtrain.cli import main
from svdtrain.foundation.errors import UsageError
from svdtrain.launching.slurm import first_host
from svdtrain.launching.world import refuse_other_world

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "70000"}
OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has started this process; what is set here goes when the test does."""
    for name in [*OURS, "MASTER_PORT", *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "devices", "nodes"),
    [
        ({}, 1, 1),
        (TORCHRUN | {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}, 2, 2),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2"}, 2, 2),
        (SRUN, 4, 1),
        # One torchrun a machine, which srun has started; ours within a job of several machines.
        (TORCHRUN | {"WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 2, 2),
        (TORCHRUN | {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2"}, 4, 1),
    ],
)
def test_the_world_of_the_settings_passes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, nodes: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refuse_other_world(devices, nodes)


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "said", "hint"),
    [
        ({}, 2, 1, "trainer.devices=2: 1 processes were started (WORLD_SIZE)", "trainer.devices=1"),
        (
            {"WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, 4, 1,
            "trainer.devices=4 trainer.nodes=1: 4 processes were started on 2 machines (WORLD_SIZE)",
            "trainer.devices=2 trainer.nodes=2",
        ),
        (
            SRUN | {"SLURM_NNODES": "4"}, 2, 2,
            "trainer.devices=2 trainer.nodes=2: 4 processes were started on 4 machines (WORLD_SIZE)",
            "trainer.devices=1 trainer.nodes=4",
        ),
        (
            {"WORLD_SIZE": "3", "GROUP_WORLD_SIZE": "2"}, 2, 2,
            "trainer.devices=2 trainer.nodes=2: 3 processes were started on 2 machines (WORLD_SIZE)",
            "as many on each machine",
        ),
    ],
)  # fmt: skip
def test_another_world_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, nodes: int, said: str, hint: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as refused:
        refuse_other_world(devices, nodes)
    assert (refused.value.message, refused.value.hint) == (said, hint)


def test_several_machines_want_a_launcher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "config=style_lora", "trainer.nodes=2", "trainer.devices=8"]) == 2
    assert capsys.readouterr().err == (
        "error: trainer.nodes=2: no launcher has started the processes of these machines\n"
        "hint: torchrun --nnodes=2 --nproc-per-node=8 … -m svdtrain fit … on each, or srun\n"
    )


def test_a_task_of_srun_has_the_names_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-09,12],login", "SLURM_STEP_ID": "5"}
    for name, value in (SRUN | told).items():
        monkeypatch.setenv(name, value)
    refuse_other_world(2, 2)
    named = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR")]
    assert named == ["3", "1", "1", "4", "gpu07"]
    assert os.environ["MASTER_PORT"] == str(20_000 + 10_005)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[007-011]", "gpu007"),
        ("gpu[3,5-7].cluster,login", "gpu3.cluster"),
        ("rack[2-4]-gpu[1-8],x", "rack2-gpu1"),
    ],
)
def test_the_first_machine_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
