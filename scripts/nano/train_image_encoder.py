"""Train the nano base's image encoder: python scripts/nano/train_image_encoder.py OUT SHARD... [--minutes M].

Contrastive, like CLIP, with a clip's other frames in the part of the text: the embedding keeps what a clip is about, and
forgets where in it the frame stood.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from train_vae import read_clips
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

CONFIG = CLIPVisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=224,
    patch_size=32,
    projection_dim=64,
)


def main() -> None:
    """Train for a number of minutes and save the encoder and its processor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("shards", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(2)
    processor = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    clips = read_clips(options.shards)
    encoder = CLIPVisionModelWithProjection(CONFIG)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, weight_decay=0.01)
    start, step = time.monotonic(), 0
    while time.monotonic() - start < options.minutes * 60:
        chosen = clips[rng.permutation(len(clips))[:48]]
        pair = torch.cat([chosen[:, 0], chosen[:, rng.integers(1, chosen.shape[1])]]) / 127.5 - 1
        pixels = ((_resize_with_antialiasing(pair, (224, 224)) + 1) / 2 - mean) / std
        embeddings = encoder(pixels).image_embeds
        one, other = torch.nn.functional.normalize(embeddings, dim=-1).chunk(2)
        logits, labels = one @ other.T / 0.1, torch.arange(len(one))
        loss = torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            right = (logits.argmax(1) == labels).float().mean()
            size = float(embeddings.norm(dim=1).mean())
            print(f"step {step}: loss {loss.item():.3f}, right {float(right):.2f}, norm {size:.2f}", flush=True)
    encoder.save_pretrained(options.out / "image_encoder")
    processor.save_pretrained(options.out / "feature_extractor")


if __name__ == "__main__":
    main()
