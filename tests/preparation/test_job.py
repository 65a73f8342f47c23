"""A folder becomes the same bytes however often it is killed, cut into parts, or started again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from webdataset.compat import WebDataset

from svdtrain.cli import main
from svdtrain.config import compose, overrides
from svdtrain.config.preparation import PrepareConfig
from svdtrain.data.decoding import probe
from svdtrain.data.encoding import encode_mp4
from svdtrain.data.manifest import held_out_sources, read_manifest
from svdtrain.preparation.journal import Journal, locked
from svdtrain.preparation.one_source import refused
from tests.preparation import folders
from tests.preparation.folders import bytes_of, index_rows, rows, save_folder, waves, words


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder and the dataset that an undisturbed run makes of it."""
    root = tmp_path_factory.mktemp("whole")
    save_folder(root / "in")
    (root / "in" / "notes.md").write_text("not a video")
    assert main(words(root / "in", root / "out")) == 0
    return root / "in", root / "out"


def test_the_index_the_tar_and_the_manifest_say_the_same(whole: tuple[Path, Path]) -> None:
    _, out = whole
    manifest = json.loads((out / "manifest.json").read_text())
    kept = index_rows(out)
    assert manifest["counts"] == {"sources": 5, "train": 4, "held_out": 1, "rejected": {"no_media": 1}}
    for shard in manifest["shards"]:
        path = out / shard["name"]
        index = path.with_name(path.name.replace(".tar", ".idx.jsonl"))
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert shard["index_sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()
        samples = list(WebDataset(str(path), shardshuffle=False))
        assert [sample["__key__"] for sample in samples] == [row["key"] for row in rows(index)]
        assert len(samples) == shard["clips"]
        for sample in samples:
            row = kept[sample["__key__"]]
            assert sample.get("mp4", sample.get("png")) == row["data"]
            inside = json.loads(sample["json"])
            assert inside == {name: row[name] for name in inside}
            assert inside.keys() == {"fps", "frames", "source", "start", "motion_bucket_id", "caption"}
            assert hashlib.sha256(row["data"]).hexdigest() == row["sha256"]
    videos = [row for row in kept.values() if row["fps"]]
    for row in videos:
        info = probe(row["data"], row["key"])
        assert (info.frames, info.width, info.height, info.doubt) == (row["frames"], row["width"], row["height"], "")
        assert info.fps == pytest.approx(row["fps"])
        assert row["verified"]
    assert sorted(row["motion_bucket_id"] for row in videos)[0] == 1
    assert sorted(row["motion_bucket_id"] for row in videos)[-1] == 255


def test_the_stream_reads_it(whole: tuple[Path, Path]) -> None:
    manifest = read_manifest(str(whole[1]))
    assert (len(manifest.train), len(manifest.held_out)) == (3, 1)


def test_another_copy_and_other_workers_give_the_same_bytes(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = whole
    shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert main(words(tmp_path / "elsewhere", tmp_path / "out", "workers=3")) == 0
    assert bytes_of(tmp_path / "out") == bytes_of(out)


def test_parts_give_the_same_bytes(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = whole
    assert main(words(folder, tmp_path / "out", "part=2/2")) == 0
    assert "part 2/2: 2 sources done (2 clips), 3 are to do by other parts" in capsys.readouterr().out
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(words(folder, tmp_path / "out", "part=1/2")) == 0
    assert bytes_of(tmp_path / "out") == bytes_of(out)
    assert main(words(folder, tmp_path / "out", "part=3/2")) == 2


def wait_for(done: subprocess.Popen[bytes], out: Path, pattern: str) -> None:
    """Until such a file is there, or the run has ended."""
    deadline = time.monotonic() + 60
    while done.poll() is None and not list(out.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, expected = whole
    out = tmp_path / "out"
    for pattern in ("work/*/*.mp4", "work/*.json", "shards/.partial-*", "shards/train-*.tar"):
        process = subprocess.Popen(folders.command(folder, out), env=folders.environment())
        wait_for(process, out, pattern)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(words(folder, out)) == 0
    assert bytes_of(out) == bytes_of(expected)
    assert sorted(path.name for path in (out / "work").iterdir()) == ["lock", "seen.jsonl"]


def test_what_is_done_is_not_done_again(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = whole
    out = tmp_path / "out"
    assert main(words(folder, out, "part=1/2")) == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "work").glob("*/*")}
    assert before
    assert main(words(folder, out, "part=1/2")) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "work").glob("*/*")} == before


def test_a_long_video_goes_on_after_its_last_finished_clip(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "long.mp4").write_bytes(encode_mp4(waves(0, 200), 25))
    process = subprocess.Popen(folders.command(folder, out), env=folders.environment())
    wait_for(process, out, "work/*/00002.json")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (entry,) = (path for path in (out / "work").iterdir() if path.is_dir())
    assert not (out / "manifest.json").exists()
    mark = b"kept as it is"
    (entry / "00000.mp4").write_bytes(mark)
    assert main(words(folder, out)) == 5, "the clip was not made again, so its change is seen"
    (entry / "00000.json").unlink()
    (out / "work" / f"{entry.name}.json").unlink()
    assert main(words(folder, out)) == 0
    assert main(words(folder, tmp_path / "whole")) == 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


def test_two_jobs_do_not_share_a_folder(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "out", part="1/2"):
        assert main(words(whole[0], tmp_path / "out")) == 5
        assert "another prepare is at work on it" in capsys.readouterr().err


def test_a_part_that_ends_before_others_is_no_fault(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with locked(out, part="2/2"):
        assert main(words(whole[0], out, "part=1/2")) == 0
        assert "part 1/2: done (3 sources), other parts are at work" in capsys.readouterr().out
    assert main(words(whole[0], out, "part=2/2")) == 0
    assert bytes_of(out / "shards") == bytes_of(whole[1] / "shards")


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hang, a crash or a missing permission says nothing of the bytes."""
    folder, out = save_folder(tmp_path / "in"), tmp_path / "out"
    result = refused(hashlib.sha256((folder / "wave 1.mp4").read_bytes()).hexdigest(), "crash", "out of memory")
    [config] = compose.check(overrides.parse(words(folder, out)[1:], "prepare"), PrepareConfig)
    Journal.open(out / "work", config).write("video", result)
    assert main(words(folder, out)) == 0
    assert "5 sources -> 5 clips kept, 0 rejected" in capsys.readouterr().out


def test_names_that_are_no_utf_8_are_written_as_such(tmp_path: Path) -> None:
    folder, out = save_folder(tmp_path / "in"), tmp_path / "out"
    os.rename(os.fsencode(folder / "wave 1.mp4"), os.fsencode(folder) + b"/caf\xe9.mp4")  # noqa: PTH104
    (folder / os.fsdecode(b"\xe9.md")).write_text("")
    assert main(words(folder, out)) == 0
    manifest = read_manifest(str(out))
    assert "caf\\udce9.mp4" in {*manifest.train.every_source(), *manifest.held_out.every_source()}
    assert '"\\\\udce9.md"' in (out / "rejected.jsonl").read_text()


def test_a_caption_that_cannot_be_used_costs_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = save_folder(tmp_path / "in"), tmp_path / "out"
    (folder / "wave 1.txt").write_bytes(b"caf\xe9")
    (folder / "wave 2.txt").write_bytes(b"\xef\xbb\xbfa wave")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "wave.mp4").write_bytes((folder / "wave 1.mp4").read_bytes())
    assert main(words(folder, out)) == 0
    assert "5 clips kept, 2 rejected (1 unusable caption, 1 hidden)" in capsys.readouterr().out
    assert {row["caption"] for row in index_rows(out).values()} == {None, "a wave"}


def test_a_camera_that_stands_still_keeps_its_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clips of one video that look alike are different moments; the same moment in another file is a copy."""
    frames_THWC = np.repeat(waves(7, 1), 75, axis=0)
    for place in range(75):
        frames_THWC[place, 20:26, place % 58 : place % 58 + 6] = 255
    folder, out = save_folder(tmp_path / "in"), tmp_path / "out"
    (folder / "a.mp4").write_bytes(encode_mp4(frames_THWC, 25))
    (folder / "b.mp4").write_bytes(encode_mp4(frames_THWC, 25, crf=20))
    assert main(words(folder, out, "duplicate_bits=4", "most_frozen=1.0")) == 0
    assert "7 sources -> 8 clips kept, 3 rejected (3 duplicates)" in capsys.readouterr().out


def test_a_finished_dataset_is_left_alone(
    whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = shutil.copytree(whole[0], tmp_path / "in"), shutil.copytree(whole[1], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert main(words(folder, out)) == 0
    assert "5 sources -> 5 clips kept, 1 rejected (1 no video or picture)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before
    assert main(words(folder, out, "seconds=2")) == 2
    assert "was prepared with seconds=1.0, now it is 2.0" in capsys.readouterr().err
    (folder / "wave 0.txt").write_text("a new caption")
    assert main(words(folder, out)) == 2
    assert "was prepared from other files" in capsys.readouterr().err
    assert main(words(out, tmp_path / "again")) == 0
    assert "is a prepared dataset already (5 clips)" in capsys.readouterr().out
    assert not (tmp_path / "again").exists()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from svdtrain.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("limit", [1000, 30_000])
def test_a_full_disk_is_one_line_and_the_next_start_goes_on(
    limit: int, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    """A limit on file size stands for it: first no clip can be written, then clips but no shard."""
    folder, expected = whole
    (tmp_path / "limited.py").write_text(LIMITED)
    program = [folders.command(folder, tmp_path)[0], str(tmp_path / "limited.py"), str(limit)]
    done = subprocess.run(
        [*program, *words(folder, tmp_path / "out")],
        env=folders.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    first, second = done.stderr.splitlines()
    assert first.endswith("cannot be written: File too large")
    assert second.startswith("hint: make room and start again")
    assert not list((tmp_path / "out").rglob("*.partial-*"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(words(folder, tmp_path / "out")) == 0
    assert bytes_of(tmp_path / "out") == bytes_of(expected)


def test_two_uploads_of_one_film_stand_on_one_side(tmp_path: Path) -> None:
    """They share a scene; what is left of both is trained on, or held out, together. A copy's caption is not lost."""
    folder, out = save_folder(tmp_path / "in", videos=8), tmp_path / "out"
    shared, one, other = waves(70, 25), waves(71, 25), waves(72, 25)
    # Without the other one, the film would be held out and the upload trained on.
    names = [f"film {number}.mp4" for number in range(500)]
    rest = [*(f"wave {number}.mp4" for number in range(8)), "upload.mp4"]
    film = next(name for name in names if held_out_sources([name, *rest]) == {name})
    (folder / film).write_bytes(encode_mp4(np.concatenate([shared, one]), 25))
    (folder / "upload.mp4").write_bytes(encode_mp4(np.concatenate([shared, other]), 25, crf=20))
    (folder / "z.mp4").write_bytes((folder / "wave 1.mp4").read_bytes())
    (folder / "z.txt").write_text("a wave")
    for name, caption in ((film, "film"), ("upload.mp4", "upload")):
        (folder / name).with_suffix(".txt").write_text(caption)
    assert main(words(folder, out, "duplicate_bits=4")) == 0
    kept = index_rows(out).values()
    sides = {name: {row["shard"] for row in kept if row["caption"] == name} for name in ("film", "upload")}
    assert sides["film"] == sides["upload"]
    assert sum(row["caption"] in ("film", "upload") for row in kept) == 3
    assert "a wave" in {row["caption"] for row in kept}
