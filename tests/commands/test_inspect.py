"""`python -m svdtrain inspect` on every kind of source: the page tells what is there, and shows what training sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svdtrain.cli import main
from svdtrain.config import compose, overrides
from svdtrain.config.schema import InspectConfig
from svdtrain.data.shards import write_shard
from svdtrain.generation.video_files import encode_mp4
from svdtrain.training import build
from tests.data.videos import video
from tests.reporting.pages import ReadPage
from tests.tiny_runs import moving_square, save_tiny_dataset

SMALL = ["model.frames=3", "model.height=32", "model.width=32", "data.batch_size=2"]


def inspect(folder: Path, source: Path | str, *words: str) -> ReadPage:
    page = folder / "page.html"
    assert main(["inspect", f"source={source}", f"out={page}", *SMALL, *words]) == 0
    return ReadPage(page.read_bytes())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare makes of six captioned videos, a copy, one that is too short, and a text."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "videos").mkdir()
    for number in range(6):
        (root / "videos" / f"v{number}.mp4").write_bytes(encode_mp4(moving_square(number, frames=24, size=64), 12))
        (root / "videos" / f"v{number}.txt").write_text(f"square {number} <i>&amp;</i>")
    (root / "videos" / "short.mp4").write_bytes(encode_mp4(moving_square(9, frames=4), 12))
    (root / "videos" / "notes.md").write_text("mine")
    (root / "videos" / "copy.mp4").write_bytes((root / "videos" / "v0.mp4").read_bytes())
    words = [f"source={root / 'videos'}", f"out={root / 'data'}", "seconds=2", "workers=1"]
    assert main(["prepare", *words]) == 0
    return root


def test_a_prepared_dataset(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = inspect(tmp_path, dataset / "data", "most_probed=1")
    said = capfd.readouterr().out
    manifest = json.loads((dataset / "data" / "manifest.json").read_text())
    rejected = (dataset / "data" / "rejected.jsonl").read_text().splitlines()
    kept = manifest["counts"]["train"] + manifest["counts"]["held_out"]
    assert said.startswith(f"{kept} clips, 0 faults and ")
    assert "Prepared dataset" in page.text("head")
    assert f"Rejected\n{len(rejected)}\n" in page.text("head")
    assert "Verified\n100%" in page.text("head")
    assert "square 3 <i>&amp;</i>" in page.text("samples")
    assert "too short" in page.text("rejected")
    assert "notes.md" in page.text("rejected")
    assert "Motion, lowest" in page.text("extremes")
    assert {"distributions", "buckets", "batch", "samples", "extremes", "duplicates", "rejected"} <= page.texts.keys()
    assert f"32×32\n3\n{manifest['counts']['train']}\n100%" in page.text("buckets")


def test_the_batch_is_the_first_that_training_takes(tmp_path: Path) -> None:
    source = save_tiny_dataset(tmp_path / "data")
    page = inspect(tmp_path, source, "seed=5")
    words = [f"source={source}", *SMALL, "seed=5"]
    [config] = compose.check(overrides.parse(words, "inspect"), InspectConfig)
    data = build.build_stream(config.data, config.model, 5, steps=1, accumulate=1)
    batch = next(iter(data.train_dataloader()))
    shown = page.pictures["batch"]
    assert [alt for alt, _ in shown] == [f"Frames of {key}" for key in batch.keys_B]
    for place, (_, picture_HWC) in enumerate(shown):
        strip_HWC = np.concatenate(build.to_frames(batch.pixels_BTCHW[place]), axis=1)
        small = Image.fromarray(picture_HWC).resize((3 * 32, 32), Image.Resampling.BOX)
        assert np.abs(np.asarray(small).astype(float) - strip_HWC).mean() < 6
        fps, motion = float(batch.fps_B[place]), float(batch.motion_bucket_B[place])
        assert f"32×32\n3 frames\n{fps:g} fps\nmotion bucket {motion:g}\nposition {place}" in page.text("batch")


def test_a_packaged_set(tmp_path: Path) -> None:
    page = inspect(tmp_path, "demo:style", "most_decoded=9", "most_shown=4")
    assert "Clips\n112\n" in page.text("head")
    assert "not verified" not in page.text("advice")
    assert "Verified\n100%" in page.text("head")
    assert "measured on 9 of them" in page.text("distributions")
    assert len(page.pictures["samples"]) == 4
    assert "rejected" not in page.texts


def test_a_plain_folder_is_probed_only(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.mp4").write_bytes(video(frames=40))
    (folder / "b.avi").write_bytes(video("mpeg4", "avi", fps=12))
    (folder / "bad.mp4").write_text("<b>no video</b>")
    (folder / "notes.md").write_text("mine")
    (folder / "b.txt").write_text("bars")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "still.png")
    before = sorted(path for path in folder.rglob("*"))
    page = inspect(tmp_path, folder, "most_shown=9")
    assert "not prepared" in page.text("head")
    assert "Files\n3\nwith 1 still" in page.text("head")
    assert "1 file cannot be read. " in page.text("advice")
    assert "bad.mp4 is no video: it starts with b'<b>no video</b>'" in page.text("refused")
    assert "notes.md" in page.text("rejected")
    assert f"python -m svdtrain prepare source={folder} out=DATASET" in page.text("advice")
    assert {alt for alt, _ in page.pictures["samples"]} == {
        f"Frames of {n}" for n in ("b.avi", "deep/a.mp4", "still.png")
    }
    assert "batch" not in page.texts
    assert sorted(path for path in folder.rglob("*")) == before


def test_faults_are_told_where_training_would_stop(tmp_path: Path) -> None:
    good = encode_mp4(moving_square(0, frames=9), 7)
    clips = [(f"good-{n}", encode_mp4(moving_square(n, frames=9), 7), {"source": f"v{n}"}) for n in range(3)]
    clips += [("same", good, {"source": "other"}), ("short", encode_mp4(moving_square(4, frames=2), 7), {})]
    noise_THWC = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    whole = encode_mp4(noise_THWC, 7)
    torn = whole[: len(whole) // 2] + b"\xff" * (len(whole) // 4) + whole[len(whole) // 2 + len(whole) // 4 :]
    clips += [("text", b"no video at all", {}), ("torn", torn, {})]
    write_shard(tmp_path / "data" / "train-000000.tar", clips)
    write_shard(tmp_path / "data" / "held_out-000000.tar", [("held", good, {"source": "v9"})])
    page = inspect(tmp_path, tmp_path / "data")
    told = page.text("advice")
    assert "Training would stop: " in told
    assert "2 clips cannot be read. text is no video" in told
    assert "torn is damaged" in page.text("refused")
    assert "near duplicates, on both sides of the held-out split" in told
    assert "1 clip shorter than 3 frames" in told
    assert "batch" not in page.texts
    assert "good-0, held, same" in page.text("duplicates")
    assert len(page.pictures["duplicates"]) == 3


@pytest.mark.parametrize(
    ("source", "words", "code", "said"),
    [
        ("nothing", [], 3, "nothing"),
        ("empty", [], 3, "holds no videos"),
        ("a.tar", [], 3, "a.tar is no readable tar"),
        ("data", ["out=page.txt"], 2, "out=page.txt: the page is an html file"),
        ("data", ["out=data/train-000000.tar/page.html"], 5, "cannot be written"),
        ("data", ["most_decoded=0"], 2, "most_decoded: 0 is not allowed"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    source: str,
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_dataset(tmp_path / "data", train=2, held_out=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar").write_text("no tar" * 500)
    before = sorted(tmp_path.rglob("*"))
    assert main(["inspect", f"source={source}", *SMALL, *words]) == code
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines][:2] in (["error", "hint"], ["error"])
    assert said in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_data_gives_the_same_page(dataset: Path, tmp_path: Path) -> None:
    for _ in range(2):
        inspect(tmp_path, dataset / "data")
        (tmp_path / "page.html").rename(tmp_path / f"{len(list(tmp_path.iterdir()))}.html")
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == second.read_bytes()
