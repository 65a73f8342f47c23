"""What a family cannot do ends in one line that names the key or the file, and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from svdtrain.cli import main
from svdtrain.data.shards import write_samples, write_shard
from svdtrain.generation.video_files import encode_mp4
from tests.data.test_manifest import prepared
from tests.families.cases import CASES
from tests.families.test_commands import words
from tests.tiny_models import SIZE, save_tiny_svd
from tests.tiny_pipelines import save_tiny_cogvideox, save_tiny_motion_adapter, save_tiny_pictures, save_tiny_unet3d
from tests.tiny_runs import SHORT, moving_square, save_picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_tiny_svd(root / "svd")
    save_tiny_unet3d(root / "unet3d")
    save_tiny_cogvideox(root / "cogvideox")
    fixed = {"use_learned_positional_embeddings": True, "use_rotary_positional_embeddings": True}
    save_tiny_cogvideox(root / "fixed", image=True, **fixed)
    save_tiny_pictures(root / "pictures")
    save_tiny_motion_adapter(root / "motion")
    save_picture(root / "a.png")
    clips = [(f"c{n}", encode_mp4(moving_square(n, 20), 8), {"fps": 8, "caption": "a" * (n != 1)}) for n in range(4)]
    write_shard(root / "silent" / "train-000000.tar", clips[:3])
    write_shard(root / "silent" / "held_out-000000.tar", clips[3:])
    for frames in (10, 17):
        prepared(root / f"of_{frames}", bucket=[SIZE, SIZE, frames], frames=20)
    picture = ("p", {"png": (root / "a.png").read_bytes()})
    videos = [(key, {"mp4": content}) for key, content, _ in clips]
    write_samples(root / "pictures_too" / "train-000000.tar", [picture, *videos[:3]])
    write_samples(root / "pictures_too" / "held_out-000000.tar", videos[3:])
    return root


def model(name: str, folder: str, *changes: str) -> list[str]:
    """The words of a model at this folder; later ones win."""
    case = next(case for case in CASES if case.name == name)
    given = [*words(case, Path("WORLD") / folder), *changes]
    return list({word.partition("=")[0]: word for word in given}.values())


BUCKETS, STILLS = "data.buckets=true", "data.stills=true"
FAULTS: list[tuple[str, list[str], int, str, str]] = [
    (
        "fit",
        model("cogvideox_2b", "cogvideox", "model.frames=16"),
        2,
        "model.frames: 16 is not 4k + 1",
        "model.frames=13 or 17",
    ),
    (
        "fit",
        model("cogvideox_2b", "cogvideox", "model.frames=16", "model.frame_multiple=1"),
        2,
        "model.frames: 16, and this checkpoint makes 4k + 1 frames, sides that are multiples of 8",
        "model.frames=13",
    ),
    (
        "fit",
        model("unet3d", "unet3d", "model.height=40"),
        2,
        "model.height: 40 is not a multiple of 16",
        "model.height=32 or 48",
    ),
    (
        "fit",
        model("cogvideox_5b_i2v", "fixed", "model.height=48"),
        2,
        "model.height: 48, and this checkpoint makes 9 frames of 32 x 32 alone: its positions are learned",
        "model.height=32",
    ),
    (
        "fit",
        model("cogvideox_5b_i2v", "fixed", "data.buckets=true"),
        2,
        "data.buckets: clips of many sizes, and this model knows 9 frames of 32 x 32 alone",
        "data.buckets=false",
    ),
    (
        "fit",
        model("animatediff", "pictures", "model.frames=17", "model.motion_adapter=WORLD/motion"),
        2,
        "model.frames: 17, and this checkpoint makes at most 16 frames",
        "model.frames=16",
    ),
    (
        "fit",
        model("animatediff", "pictures", "model.motion_adapter=WORLD/motion", "data.source=WORLD/of_17", BUCKETS),
        2,
        "data.source: clips of 17 frames of 32 x 32, and this checkpoint makes at most 16 frames",
        "data.buckets=false",
    ),
    (
        "fit",
        model("cogvideox_2b", "cogvideox", "data.source=WORLD/of_10", BUCKETS),
        2,
        "data.source: clips of 10 frames of 32 x 32, and this checkpoint makes 4k + 1 frames",
        "data.buckets=false",
    ),
    (
        "fit",
        model("cogvideox_5b_i2v", "fixed", "model.fixed_size=false", "data.source=WORLD/pictures_too", STILLS),
        2,
        "data.source: clips of 1 frames of 32 x 32, and this checkpoint makes 9 frames of 32 x 32 alone",
        "data.stills=false",
    ),
    ("fit", model("animatediff", "pictures"), 4, "model.motion_adapter: is not set", "model.motion_adapter=FOLDER"),
    (
        "fit",
        model("unet3d", "svd"),
        4,
        "WORLD/svd holds a StableVideoDiffusionPipeline, and model.family=unet3d loads TextToVideoSDPipeline",
        "a model= of the family svd",
    ),
    (
        "fit",
        model("cogvideox_2b", "fixed"),
        4,
        "WORLD/fixed holds a CogVideoXImageToVideoPipeline, and model.family=cogvideox loads CogVideoXPipeline",
        "a model= of the family cogvideox_image",
    ),
    (
        "fit",
        model("cogvideox_2b", "cogvideox", "model.variant=fp16"),
        4,
        "'transformer' cannot be loaded",
        "model.variant",
    ),
    (
        "fit",
        model("unet3d", "unet3d"),
        3,
        "clip 'c1' in WORLD/silent/train-000000.tar has no caption",
        "data.trigger=WORD",
    ),
    (
        "generate",
        model("unet3d", "unet3d", "prompt=a", "image=WORLD/a.png"),
        2,
        "image: modelscope animates no picture",
        "prompt",
    ),
    (
        "generate",
        model("unet3d", "unet3d"),
        2,
        "image: is not set",
        "prompt=TEXT for models that read text",
    ),
    ("generate", model("cogvideox_5b_i2v", "fixed", "prompt=a"), 2, "image: is not set", "image=PICTURE"),
]


@pytest.mark.parametrize(("command", "arguments", "code", "what", "mend"), FAULTS)
def test_one_line_says_what_and_how_to_mend_it(
    command: str,
    arguments: list[str],
    code: int,
    what: str,
    mend: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = [word.replace("WORLD", str(world)) for word in arguments]
    if command == "fit":
        given = [
            "config=style_lora",
            *SHORT,
            *["data.trigger=sks"] * (code != 3),
            "data.source=" + str(world / "silent"),
            "data.fps=null",
            f"run_dir={tmp_path}/run",
        ]
        here = list({word.partition("=")[0]: word for word in [*given, *here]}.values())
    else:
        here += ["base_only=true", f"out={tmp_path}/a.mp4"]
    assert main([command, *here]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 2, lines
    assert what.replace("WORLD", str(world)) in lines[0]
    assert len(lines[0]) < 260
    assert mend in lines[1]
    assert not list(tmp_path.iterdir())
