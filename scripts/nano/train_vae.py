"""Train the nano base's VAE: python scripts/nano/train_vae.py OUT SHARD... [--minutes M].

It learns on single frames of many different clips (frames of one clip are nearly the same picture, and a batch of them
teaches little), with a checkpoint a minute. Then the temporal decoder is opened to clips: of its convolutions over time only
the middle tap has ever seen a frame, so the outer taps, still random, are set to zero.
"""

from __future__ import annotations

import argparse
import io
import math
import tarfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

CONFIG: dict[str, Any] = {
    "block_out_channels": (64, 64, 128),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 64,
    "force_upcast": True,
}


def read_clips(shards: list[Path]) -> torch.Tensor:
    """uint8 [N, T, 3, H, W] of every clip of the shards."""
    clips = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file and member.name.endswith(".mp4"):
                    with av.open(io.BytesIO(file.read()), "r") as video:
                        clips.append(np.stack([f.to_ndarray(format="rgb24") for f in video.decode(video=0)]))
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).contiguous()


@torch.no_grad()
def fix_posterior(vae: AutoencoderKLTemporalDecoder) -> None:
    """Trained on the mode, the VAE never learnt a width: give its posterior one that is as good as none (std 0.001)."""
    state = vae.quant_conv.state_dict()
    state["weight"][CONFIG["latent_channels"] :] = 0.0
    state["bias"][CONFIG["latent_channels"] :] = 2 * math.log(0.001)


@torch.no_grad()
def open_to_clips(vae: AutoencoderKLTemporalDecoder) -> None:
    """Frames of a clip, decoded together, come out as each would alone."""
    for module in vae.decoder.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3:
            module.weight[:, :, [0, 2]] = 0.0


def psnr(vae: AutoencoderKLTemporalDecoder, clips: torch.Tensor) -> float:
    """Mean PSNR in dB of whole clips, encoded and decoded as the pipeline does."""
    with torch.no_grad():
        errors = [(reconstruct(vae, c[None]).clamp(-1, 1) - c / 127.5 + 1).square().mean() for c in clips]
    return float(np.mean([10 * math.log10(4.0 / float(e)) for e in errors]))


def reconstruct(vae: AutoencoderKLTemporalDecoder, clips: torch.Tensor) -> torch.Tensor:
    """uint8 [B, T, 3, H, W] through the VAE: [B, T, 3, H, W] in [-1, 1]."""
    pixels = clips.flatten(0, 1) / 127.5 - 1
    latents = vae.encode(pixels, return_dict=False)[0].mode()
    return vae.decode(latents, num_frames=clips.shape[1], return_dict=False)[0].view(clips.shape)


def main() -> None:
    """Train for a number of minutes; a stopped run goes on where its checkpoint is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    held_out = read_clips([s for s in options.shards if s.name.startswith("held_out")])[::4]
    clips = read_clips([s for s in options.shards if s.name.startswith("train")])
    exists = (options.out / "config.json").exists()
    vae = (
        AutoencoderKLTemporalDecoder.from_pretrained(options.out) if exists else AutoencoderKLTemporalDecoder(**CONFIG)
    )
    weights = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=1e-4)
    start = saved = time.monotonic()
    seconds, step = options.minutes * 60, 0
    while (spent := time.monotonic() - start) < seconds:
        rate = options.learning_rate * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * spent / seconds))
        optimizer.param_groups[0]["lr"] = max(rate, 1e-6)
        batch = clips[rng.integers(0, len(clips), 8), rng.integers(0, clips.shape[1])][:, None]
        error = reconstruct(vae, batch) - (batch / 127.5 - 1)
        loss = error.square().mean() + 0.2 * error.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        if time.monotonic() - saved > 60 or step == 1:
            saved = time.monotonic()
            vae.save_pretrained(options.out)
            print(
                f"{spent / 60:.1f} min, step {step}: loss {loss.item():.5f}, held-out {psnr(vae, held_out):.2f} dB",
                flush=True,
            )
    pixels = clips[rng.permutation(len(clips))[:128], 0] / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels, return_dict=False)[0].mode()
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    fix_posterior(vae)
    open_to_clips(vae)
    vae.save_pretrained(options.out)
    said = f"latents mean {float(latents.mean()):.3f}, std {float(latents.std()):.3f}"
    print(f"{step} steps: held-out clips {psnr(vae, held_out):.2f} dB; {said}")


if __name__ == "__main__":
    main()
