"""Every family through the commands: cached, fitted, sampled, exported, and loaded into the stock pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest

import svdtrain
from svdtrain.cli import main
from svdtrain.data.shards import write_shard
from svdtrain.families.registry import spec_of
from svdtrain.generation.video_files import encode_mp4
from tests.families.cases import CASES, Case
from tests.tiny_models import SIZE
from tests.tiny_runs import SHORT, moving_square, save_picture

PROMPTED = [case for case in CASES if spec_of(case.family).needs_text]


def words(case: Case, folder: Path) -> list[str]:
    """The model's settings."""
    size = [f"model.frames={case.frames}", f"model.height={SIZE}", f"model.width={SIZE}", "model.size_multiple=16"]
    return [f"model={case.model}", "model.id=null", "model.variant=null", f"model.source={folder}", *size, *case.words]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips with captions, one of them held out; one has none of its own."""
    folder = tmp_path_factory.mktemp("clips")
    rows = [
        (f"c{n}", encode_mp4(moving_square(n, 9), 8), {"fps": 8, "caption": "a square" * (n != 2)}) for n in range(5)
    ]
    write_shard(folder / "train-000000.tar", rows[:4])
    write_shard(folder / "held_out-000000.tar", rows[4:])
    return folder


@pytest.mark.parametrize("case", PROMPTED, ids=lambda case: case.name)
def test_a_family_goes_through_every_command(
    case: Case, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, folder = spec_of(case.family), case.save(tmp_path / "base")
    model = words(case, folder)
    data = [f"data.source={clips}", "data.trigger=sks", "data.fps=null", f"data.cache_dir={tmp_path}/latents"]
    given = {word.partition("=")[0]: word for word in ["config=motion_lora", *model, *SHORT, *data]}
    del given["adapter.targets"]
    looks = ["validation.sample_inputs=1", "validation.sample_every=2"]
    given |= {word.partition("=")[0]: word for word in looks}
    assert main(["cache", *given.values()]) == 0, capsys.readouterr().err
    run = [f"run_dir={tmp_path}/run", "data.cache=disk"]
    assert main(["fit", *given.values(), *run]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "encoded before" in said
    assert spec.name in said or case.model in said

    picture = [f"image={save_picture(tmp_path / 'first.png')}"] if spec.needs_image else []
    options = ["prompt=sks a cat that moves far beyond", *picture, f"out={tmp_path}/a.mp4", "steps=2", *model]
    assert main(["generate", f"adapter={tmp_path}/run", *options]) == 0, capsys.readouterr().err
    assert "not read" in capsys.readouterr().err
    assert (tmp_path / "a.mp4").is_file()

    few = ["clips=1", "training_clips=0", "inputs=1", "steps=1", "copies_of=0", "sigmas=0.5,10"]
    assert main(["evaluate", f"adapter={tmp_path}/run", *few]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert found["losses"]["held_out"]["arms"]["adapter"]["ratio"]["value"] != 1
    assert ("first_frame_ssim" in found["metrics"]) == spec.needs_image
    assert ("cmmd" in found["absent"]) != spec.embeds_images

    export = ["export", f"adapter={tmp_path}/run", "to=diffusers,peft,merged", "dtype=fp32", *model]
    assert main(export) == 0, capsys.readouterr().err
    kind = getattr(diffusers, spec.pipeline_class)
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    family = case.load(folder)
    (before,) = family.sample([case.request(family)])
    svdtrain.load_adapter(pipeline, tmp_path / "run")
    svdtrain.load_adapter(family.denoiser, tmp_path / "run")
    (after,) = family.sample([case.request(family)])
    assert not np.array_equal(before, after)
    family.pipeline = lambda: pipeline  # type: ignore[method-assign]
    (stock,) = family.sample([case.request(family)])
    assert np.abs(stock.astype(int) - after).max() <= 1  # of 255: rounding
    svdtrain.unload_adapter(pipeline)
    (base,) = family.sample([case.request(family)])
    assert np.abs(base.astype(int) - before).max() <= 1
