"""The sizes that the package knows of published models, beside what is published of their parameters."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from scripts import blueprints
from svdtrain.config.compose import check
from svdtrain.config.overrides import parse
from svdtrain.config.schema import FitConfig
from svdtrain.families.build import build_family

CLIP_H, VAE_FRAMES, VAE, T5 = 632.1, 97.7, 83.7, 4762.3
MILLIONS = {
    "svd_xt": (1524.6, {"vae": VAE_FRAMES, "image_encoder": CLIP_H}),
    "modelscope": (1411.2, {"vae": VAE, "text_encoder": 340.4}),
    "animatediff": (1312.7, {"vae": VAE, "text_encoder": 123.1}),
    "i2vgen_xl": (1420.5, {"vae": VAE, "text_encoder": 340.4, "image_encoder": CLIP_H}),
    "cogvideox_2b": (1693.8, {"vae": 215.6, "text_encoder": T5}),
    "cogvideox_5b": (5570.3, {"vae": 215.6, "text_encoder": T5}),
    "cogvideox_1_5_5b_i2v": (5571.6, {"vae": 215.6, "text_encoder": T5}),
}
"""Denoiser, and what is around it."""


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_are_those_that_are_published(name: str) -> None:
    words = [
        "config=style_lora",
        f"model={name}",
        f"model.source={blueprints.FOLDER / name}",
        "model.motion_adapter=null",
    ]
    (config,) = check(parse(words, "fit", "", FitConfig), FitConfig)
    family = build_family(config.model, blank=True)
    parts = {"denoiser": family.denoiser, **family.frozen()}
    counted = {part: sum(p.numel() for p in network.parameters()) / 1e6 for part, network in parts.items()}
    denoiser, around = MILLIONS[name]
    assert counted == pytest.approx({"denoiser": denoiser, **around}, rel=1e-3)


def test_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    blueprints.write(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert written == sorted(p.relative_to(blueprints.FOLDER) for p in blueprints.FOLDER.rglob("*") if p.is_file())
    _, different, failed = filecmp.cmpfiles(tmp_path, blueprints.FOLDER, list(map(str, written)), shallow=False)
    assert not different + failed
