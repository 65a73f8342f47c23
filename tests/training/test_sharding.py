"""A base in parts over two ranks: the very gradients of whole ones, half the bytes, and a fit like that of one process."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from svdtrain.acceleration.flat import FlatParameters
from svdtrain.acceleration.levers import LEVERS, accelerate
from svdtrain.acceleration.recompute import recompute
from svdtrain.acceleration.sharding import ShardedBase, bytes_of_blocks, gathered_per_batch
from svdtrain.adapters.inject import inject
from svdtrain.adapters.spec import AdapterSpec, HalfSpec
from svdtrain.commands import fit
from svdtrain.families.registry import spec_of
from svdtrain.training.ranks import joined
from tests.tiny_denoisers import make, output_of
from tests.tiny_pipelines import save_tiny_cogvideox
from tests.tiny_runs import fit_config, fit_words

CASES = [
    *(("cogvideox", rung, torch.float32) for rung in ("none", "nested", "offload")),
    ("cogvideox", "blocks", torch.bfloat16),
    ("svd", "nested", torch.float32),
]


def gradients(name: str, rung: str, dtype: torch.dtype, rank: int, *, shard: bool) -> tuple[Tensor, dict[str, int]]:
    """Of the second step, as one tensor; and bytes of the base: in blocks, here, and sent in a step."""
    denoiser, spec = make(name), spec_of(name)
    halves = {half: HalfSpec(pattern, 2, 2.0, 1e-3) for half, pattern in spec.targets["attention"].items()}
    inject(denoiser, AdapterSpec(halves), seed=0)
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    drawn = torch.Generator().manual_seed(0)
    torch.nn.Module.to(denoiser, dtype=dtype)
    for parameter in trained:
        parameter.data = torch.randn(parameter.shape, generator=drawn) * 0.1
    accelerate(denoiser, LEVERS)
    recompute(denoiser, rung, spec.repeated_blocks)
    sizes = {"blocks": bytes_of_blocks(denoiser, spec.repeated_blocks, dtype.itemsize)}
    sizes["between"] = sum(p.nbytes for p in denoiser.parameters() if not p.requires_grad) - sizes["blocks"]
    sharded = ShardedBase(denoiser, spec.repeated_blocks, init_device_mesh("cpu", (2,))) if shard else None
    flat, sent = FlatParameters({"all": trained}), 0
    for step in range(2):
        sent = sharded.bytes_sent if sharded else 0
        flat.zero_gradients()
        torch.manual_seed(2 * step + rank)
        output_of(denoiser, name).float().square().mean().backward()
    frozen: list[Any] = [parameter for parameter in denoiser.parameters() if not parameter.requires_grad]
    sizes["here"] = sum((p.to_local() if shard and hasattr(p, "to_local") else p).nbytes for p in frozen)
    sizes["sent"] = sharded.bytes_sent - sent if sharded else 0
    return flat.gradients, sizes


def compare(rank: int, folder: Path) -> None:
    """Every case on one rank; what is found goes to a file."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "SVDTRAIN_BEATS": str(folder)}
    found: list[dict[str, Any]] = []
    with joined("cpu"):
        for case in CASES:
            whole, _ = gradients(*case, rank, shard=False)
            parts, sizes = gradients(*case, rank, shard=True)
            found.append(sizes | {"norm": float(whole.norm()), "apart": float((whole - parts).norm())})
    (folder / f"rank-{rank}").write_text(json.dumps(found))


def test_a_base_in_parts_has_the_gradients_of_a_whole_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=compare, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=240)
        assert process.exitcode == 0
    for rank in range(2):
        for case, found in zip(CASES, json.loads((tmp_path / f"rank-{rank}").read_text()), strict=True):
            assert found["norm"] > 0, case
            assert found["apart"] < 1e-6 * found["norm"], case
            assert found["here"] - found["between"] == pytest.approx(found["blocks"] / 2, rel=0.02), case
            if case[0] == "cogvideox":  # every block has an adapter, and so a backward pass
                assert found["sent"] == gathered_per_batch(found["blocks"], 2), case


def test_a_fit_with_its_base_in_parts_is_that_of_one_process(dataset: Path, tmp_path: Path) -> None:
    """Looks, samples and saves included: other ranks take part in what the first one alone keeps."""
    model = save_tiny_cogvideox(tmp_path / "model")
    size = ["model=cogvideox_2b", "model.id=null", "model.variant=null", "model.size_multiple=16", "model.frames=5"]
    looks = ["validation.sample_inputs=1", "validation.sample_every=2", "validation.every=2", "trainer.save_every=2"]
    settings = [
        *size,
        *looks,
        "memory=blocks",
        "trainer.accumulate=2",
        "adapter.targets=spatial",
        "data.trigger=sks",
        "data.fps=null",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fit.run(fit_config(model, dataset, *settings, f"run_dir={whole}"), []) == 0
    two = ["trainer.devices=2", "data.batch_size=1", "memory.shard_base=true", f"run_dir={parts}"]
    command = [sys.executable, "-m", "svdtrain", "fit", *fit_words(model, dataset, *settings, *two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    one, other = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    speed = json.loads((parts / "run.json").read_text())["speed"]
    base = load_file(model / "transformer" / "diffusion_pytorch_model.safetensors")
    blocks = sum(tensor.nbytes for name, tensor in base.items() if name.startswith("transformer_blocks."))
    extra = speed["base_bytes_sent_per_step"] - 2 * gathered_per_batch(blocks, 2)
    assert 2 * extra == blocks // 2 // 2, "after a look, FSDP fetches one of the two blocks once more"
    assert f"and {2 * gathered_per_batch(blocks, 2) / 1e6:,.1f} MB of the base a step" in done.stdout
    assert (parts / "before_after.mp4").stat().st_size
