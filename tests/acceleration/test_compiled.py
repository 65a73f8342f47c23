"""Blocks under torch.compile: equal losses and gradients, with and without recomputing; eager blocks where it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import compile_fx

from svdtrain.acceleration.compiled import compile_blocks
from svdtrain.acceleration.compiling import CACHE, CompileClock
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.acceleration.recompute import recompute
from svdtrain.families.svd import SPEC
from tests.acceleration.test_levers import adapted, distance
from tests.tiny_models import save_tiny_svd
from tests.tiny_runs import fit_words, save_tiny_dataset

ROOT = Path(__file__).parents[2]


class Frames(nn.Module):
    """The middle of a tiny SVD, with an adapter: two blocks that are repeated, and what lies between them."""

    def __init__(self) -> None:
        super().__init__()
        whole: Any = adapted("svd", torch.float32)
        self.middle = whole.mid_block.attentions[0]
        next(p for p in self.parameters() if p.requires_grad).register_hook(torch.zeros_like)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B T, C, H, W]."""
        context = torch.full((len(hidden), 1, 32), 0.5, dtype=hidden.dtype)
        return self.middle(hidden, context, torch.zeros(1, len(hidden)), return_dict=False)[0]


def answer(network: nn.Module) -> list[Tensor]:
    """Output, and the gradients of what is trained; two steps of it, the second with gradients to add to."""
    for _ in range(2):
        network.zero_grad(set_to_none=False)
        output = network(torch.linspace(-1, 1, 3 * 64 * 16).view(3, 64, 4, 4))
        output.square().sum().backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    return [output.detach(), *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained)]  # type: ignore[possibly-unbound]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler on a CPU")
@pytest.mark.parametrize("rung", ["none", "nested"])
def test_compiled_blocks_compute_the_same_on_a_rung(
    rung: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path_factory.getbasetemp() / "compiled"))
    network = Frames()
    before = answer(network)
    accelerate(network, LEVERS)
    compiled = compile_blocks(network, SPEC.repeated_blocks, "compile")
    recompute(network, rung, SPEC.repeated_blocks)
    assert len(compiled) > 2
    with CompileClock() as clock:
        during = answer(network)
    assert not compiled.failed
    assert clock.seconds > 0
    assert distance(during, before) < 1e-5


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_block_is_one_graph(base: torch.dtype) -> None:
    network = Frames()
    masters = [p for p in network.parameters() if p.requires_grad]
    network.to(base)
    for master in masters:
        master.data = master.data.float()
    accelerate(network, LEVERS)
    hidden = torch.linspace(-1, 1, 3 * 64 * 16).view(3, 64, 4, 4).to(base)
    before = network(hidden)
    for block in (m for m in network.modules() if type(m).__name__ in SPEC.repeated_blocks):
        block.forward = torch.compile(block.forward, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(network(hidden), before)
    with torch.no_grad():
        masters[0].add_(1)
    assert not torch.equal(network(hidden), before)


def test_without_a_compiler_blocks_stay_eager_and_one_line_says_so(tmp_path: Path) -> None:
    """In a process of its own: torch looks for a compiler once."""
    code = """
import logging, torch
logging.basicConfig(format="%(message)s")
from svdtrain.acceleration.compiled import compile_blocks
class Block(torch.nn.Linear):
    def forward(self, rows): return super().forward(rows).tanh()
network = torch.nn.Sequential(Block(4, 4), Block(4, 4))
rows = torch.ones(2, 4)
before = network(rows)
compiled = compile_blocks(network, ("Block",), "graphs")
during = network(rows)
during.sum().backward()
assert torch.equal(during, before) and compiled.failed and network[0].weight.grad is not None
compiled.close()
assert not any("forward" in vars(block) for block in network)
"""
    environment = os.environ | {"CXX": str(tmp_path / "none"), CACHE: str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.strip().splitlines()
    assert "speed.mode=graphs needs a GPU" in first
    assert "compiling failed" in second


class Doubled(nn.Linear):
    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows).tanh()


def test_a_backward_pass_that_cannot_be_compiled_is_found_out_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler fails at the forward pass, where the block can still run as it was."""
    usual = compile_fx.fx_codegen_and_compile

    def failing(*args: Any, is_backward: bool = False, **kwargs: Any) -> Any:  # noqa: ANN401
        if is_backward:
            raise RuntimeError("no kernel for this")
        return usual(*args, is_backward=is_backward, **kwargs)

    monkeypatch.setattr(compile_fx, "fx_codegen_and_compile", failing)
    network = nn.Sequential(Doubled(4, 4), Doubled(4, 4))
    compiled = compile_blocks(network, ("Doubled",), "compile")
    network(torch.ones(2, 4)).sum().backward()
    assert "no kernel for this" in compiled.failed
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_fit_goes_on_without_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = fit_words(save_tiny_svd(tmp_path / "model"), save_tiny_dataset(tmp_path / "data"), f"run_dir={run}")
    command = [sys.executable, "-m", "svdtrain", "fit", *words, "speed=compile"]
    environment = os.environ | {"CXX": str(tmp_path / "none"), CACHE: str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("speed.mode=compile: compiling failed") == 1
    assert "Traceback" not in done.stderr
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "done"
    assert record["speed"]["compile_seconds"] > 0


def test_a_network_without_content_is_not_compiled() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(4, 4))
    assert len(compile_blocks(network, ("Linear",), "compile")) == 0
