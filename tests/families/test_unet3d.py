"""Text-prompted UNets against the stock pipeline, on a tiny random model that goes through the real loader."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from svdtrain.adapters.targets import half_of
from svdtrain.cli import main
from svdtrain.data.shards import write_shard
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.families.build import family_of_folder
from svdtrain.families.protocol import Noise, Request
from svdtrain.families.unet3d import SPEC, UNet3DFamily
from svdtrain.families.weights import Weights
from svdtrain.foundation.errors import DataError
from svdtrain.foundation.seeding import Draws
from svdtrain.generation.video_files import encode_mp4
from svdtrain.types import ClipBatch
from tests.tiny_models import FRAMES, SIZE, save_tiny_unet3d
from tests.tiny_runs import GEOMETRY, SHORT, moving_square


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_unet3d(tmp_path_factory.mktemp("unet3d"))


@pytest.fixture
def family(folder: Path) -> UNet3DFamily:
    return UNet3DFamily.load(Weights(str(folder)), Noise())


def batch_of(*captions: str) -> ClipBatch:
    videos = np.stack([moving_square(number, FRAMES, SIZE) for number in range(len(captions))])
    pixels = torch.from_numpy(videos).permute(0, 1, 4, 2, 3) / 127.5 - 1
    count = len(captions)
    return ClipBatch(
        pixels,
        torch.full((count,), 8.0),
        torch.full((count,), 127.0),
        tuple(map(str, range(count))),
        tuple(range(count)),
        captions,
    )


def pipeline_inputs(family: UNet3DFamily, prompt: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(latents, timestep, tokens) that the stock pipeline hands to the denoiser first: unconditional half, then the other."""
    seen: dict[str, Any] = {}

    def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.update(sample=args[0], timestep=args[1], **kwargs)

    hook = family.denoiser.register_forward_pre_hook(catch, with_kwargs=True)
    family.sample([Request(None, FRAMES, SIZE, SIZE, 2, 3, 8, 127, prompt=prompt, max_guidance=9.0)])
    hook.remove()
    return seen["sample"], seen["timestep"], seen["encoder_hidden_states"]


def test_what_the_denoiser_is_told_is_what_the_pipeline_tells_it(family: UNet3DFamily) -> None:
    """T6, T7: tokens of the caption, and of the empty one where it is dropped; latents with channels before time."""
    sample, timestep, tokens = pipeline_inputs(family, "a cat")
    batch = batch_of("a cat")
    conditions = family.encode_conditions(batch, family.encode_clips(batch), Draws(0, (0,)))
    assert torch.equal(conditions.tokens_BLD, tokens[1:])
    assert torch.equal(conditions.dropped(torch.tensor([True])).tokens_BLD, tokens[:1])
    assert torch.equal(conditions.dropped(torch.tensor([False])).tokens_BLD, tokens[1:])
    start = torch.randn((1, 4, FRAMES, SIZE // 2, SIZE // 2), generator=torch.Generator().manual_seed(3))
    assert torch.equal(sample[:1], start)
    noisy = family.objective.corrupt(
        torch.zeros_like(start).transpose(1, 2), start.transpose(1, 2), torch.tensor([1e9])
    )
    fed: list[Any] = []
    hook = family.denoiser.register_forward_pre_hook(lambda _m, args: fed.extend(args))
    family.denoise(replace(noisy, timestep_B=timestep.float()[None]), conditions)
    hook.remove()
    assert fed[0] == pytest.approx(start, rel=3e-3)  # sqrt(1 - abar) of the last step is 0.998
    assert int(fed[1]) == int(timestep)


def test_the_loss_is_the_error_of_the_noise_in_float64(family: UNet3DFamily) -> None:
    family.denoiser.double()
    batch = batch_of("a cat", "two dogs")
    encoded = family.encode_clips(batch)
    latents = family.posterior(encoded).mean_BTCHW.double()
    assert torch.equal(latents, (encoded.mean_BTCHW * 0.18215).double())
    noise = torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = family.objective.levels(torch.tensor([0.2, 0.7], dtype=torch.float64))
    noisy = family.objective.corrupt(latents, noise, sigma)
    conditions = family.encode_conditions(batch, encoded, Draws(0, (0, 1)))
    loss = mean_error_per_clip(family.denoise(noisy, conditions), noisy.target_BTCHW)
    stock = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    for clip, step in enumerate((200, 700)):
        share = stock.alphas_cumprod[step].double()
        mixed = share.sqrt() * latents[clip] + (1 - share).sqrt() * noise[clip]
        tokens = conditions.tokens_BLD[clip : clip + 1].double()
        answer = family.denoiser(mixed.transpose(0, 1)[None], step, tokens, return_dict=False)[0]
        assert float(loss[clip]) == pytest.approx(
            float((answer[0].transpose(0, 1) - noise[clip]).square().mean()), rel=1e-5
        )


def test_a_still_is_a_clip_of_one_frame(family: UNet3DFamily) -> None:
    batch = batch_of("a cat")
    batch = replace(batch, pixels_BTCHW=batch.pixels_BTCHW[:, :1])
    encoded = family.encode_clips(batch)
    noisy = family.objective.corrupt(
        family.posterior(encoded).mean_BTCHW, torch.zeros(1, 1, 4, 16, 16), torch.tensor([1.0])
    )
    conditions = family.encode_conditions(batch, encoded, Draws(0, (0,)))
    assert family.denoise(noisy, conditions).shape == (1, 1, 4, 16, 16)


def test_a_clip_without_a_caption_is_named(family: UNet3DFamily) -> None:
    with pytest.raises(DataError, match="clip '1' has no caption"):
        family.encode_clips(batch_of("a cat", ""))


def test_full_size_counts_are_those_of_the_design() -> None:
    """design/svd_math.md 3.2."""
    with torch.device("meta"):
        denoiser = diffusers.UNet3DConditionModel()
    assert sum(p.numel() for p in denoiser.parameters()) == pytest.approx(1411.2e6, rel=1e-4)
    linears = {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    for half, modules, millions in (("spatial", 128, 3.320), ("temporal", 136, 3.326)):
        found = [name for name in linears if re.fullmatch(SPEC.targets["attention"][half], name)]
        assert {half_of(name) for name in found} == {half}
        assert len(found) == modules
        size = 16 * sum(linears[name].in_features + linears[name].out_features for name in found)
        assert size / 1e6 == pytest.approx(millions, abs=1e-3)


def test_fit_generate_and_export_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [(f"c{n}", encode_mp4(moving_square(n), 8), {"fps": 8, "caption": "a square"}) for n in range(5)]
    write_shard(tmp_path / "data" / "train-000000.tar", clips[:4])
    write_shard(tmp_path / "data" / "held_out-000000.tar", clips[4:])
    model = ["model=modelscope", "model.id=null", f"model.source={folder}", *GEOMETRY]
    words = ["config=style_lora", *model, f"data.source={tmp_path}/data", *SHORT]
    looks = ["validation.sample_inputs=1", "validation.sample_every=2", "data.fps=null", f"run_dir={tmp_path}/run"]
    given = {word.partition("=")[0]: word for word in [*words, *looks]}
    assert main(["fit", *given.values()]) == 0, capsys.readouterr().err
    options = ["prompt=a square that moves", f"out={tmp_path}/a.mp4", "steps=2", *model]
    assert main(["generate", f"adapter={tmp_path}/run", *options]) == 0, capsys.readouterr().err
    assert (tmp_path / "a.mp4").is_file()
    export = ["export", f"adapter={tmp_path}/run", "to=diffusers,peft,merged", "dtype=fp32", *model]
    assert main(export) == 0, capsys.readouterr().err
    for wrong, said in (([], "prompt=TEXT"), (["image=x.png"], "animates no picture")):
        assert main(["generate", f"adapter={tmp_path}/run", *wrong, f"out={tmp_path}/b.mp4", *model]) == 2
        assert said in capsys.readouterr().err


def test_the_pipelines_folder_says_which_family_it_is(folder: Path) -> None:
    assert isinstance(family_of_folder(folder), UNet3DFamily)
