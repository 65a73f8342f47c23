"""What is in a dataset: every file kept or told, the right frames, in the form that was asked for."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svdtrain.cli import main
from svdtrain.data.encoding import encode_mp4
from svdtrain.data.shards import write_samples
from tests.data.videos import REAL_CLIPS
from tests.preparation.folders import index_rows, numbered, numbers_in, rows, waves, words

FPS = 12.5


def test_every_file_is_in_a_shard_or_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "A long.name.MP4").write_bytes(numbered(60))
    (folder / "A long.name.txt").write_text("numbers, rising\n")
    (folder / "copy.mp4").write_bytes(numbered(60))
    (folder / "deep" / "b.avi").write_bytes(numbered(50, codec="mpeg4", container="avi"))
    (folder / "deep" / "metadata.csv").write_text("file_name,text\nb.avi,old film\ngone.mp4,nothing\n")
    (folder / "deep" / "short.mp4").write_bytes(numbered(9))
    (folder / "deep" / "slow.mp4").write_bytes(numbered(9, fps=4))
    (folder / "deep" / "text.mp4").write_text("no video")
    (folder / "empty.mkv").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(numbered(61)[:2000])
    (folder / "list.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:9/a.ts\n")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "notes.txt").write_text("nobody's caption")
    (folder / ".hidden").write_text("")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    (folder / "loop").symlink_to(folder)
    Image.fromarray(waves(0, 1)[0]).save(folder / "still.jpg", quality=95)

    assert main(words(folder, out, f"fps={FPS}", "least_seconds=0.6")) == 0
    told = [(row["source"], row["start"], row["reason"]) for row in rows(out / "rejected.jsonl")]
    assert told == [
        (".hidden", None, "hidden"),
        ("A long.name.MP4", 1.92, "too_short"),
        ("copy.mp4", None, "duplicate"),
        ("cut.mp4", None, "damaged"),
        ("deep/b.avi", 1.92, "too_short"),
        ("deep/gone.mp4", None, "no_such_file"),
        ("deep/short.mp4", 0.0, "too_short"),
        ("deep/slow.mp4", None, "low_fps"),
        ("deep/text.mp4", None, "no_media"),
        ("empty.mkv", None, "no_media"),
        ("gone", None, "no_media"),
        ("list.mp4", None, "no_media"),
        ("loop", None, "linked_folder"),
        ("notes.txt", None, "no_media"),
        ("torn.png", None, "damaged"),
    ]
    kept = index_rows(out)
    assert sorted(kept) == [
        "000000-a-long-name-000",
        "000000-a-long-name-001",
        "000003-b-000",
        "000003-b-001",
        "000009-still-000",
    ]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("11 sources -> 5 clips kept, 15 rejected (5 no video or picture, 3 too short, 2 damaged, ")
    assert "1 caption without a file" in last
    first, caption = kept["000000-a-long-name-000"], kept["000003-b-000"]["caption"]
    assert (first["caption"], caption) == ("numbers, rising", "old film")
    assert numbers_in(first["data"]) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    assert numbers_in(kept["000003-b-001"]["data"]) == list(range(24, 48, 2))


def test_shards_as_video2dataset_writes_them(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    url = json.dumps({"url": "http://example.org/v", "caption": "from json", "status": "success"}).encode()
    samples: list[tuple[str, dict[str, bytes]]] = [
        ("000000_00000", {"mp4": numbered(25), "json": url, "txt": "caf\u00e9".encode()}),
        ("000000_00001", {"mp4": numbered(50), "json": url}),
        ("000000_00002", {"json": b'{"status": "failed_to_download", "url": "http://example.org/w"}'}),
        ("000001_00000", {"mp4": numbered(30), "json": b"{torn"}),
        ("000002_00000", {"jpg": picture_bytes(), "txt": b"a picture"}),
        ("000003_00000", {"mp4": numbered(25, height=64, width=64)}),
    ]
    write_samples(folder / "00000.tar", samples)
    (folder / "00000.parquet").write_bytes(b"PAR1")
    (folder / "00000_stats.json").write_text("{}")
    (folder / "00001.tar").write_text("torn" * 300)
    assert main(words(folder, out)) == 0
    assert [(row["source"], row["reason"]) for row in rows(out / "rejected.jsonl")] == [
        ("00000.tar/000000_00002", "failed_entry"),
        ("00000.tar/000001_00000", "damaged"),
        ("00001.tar", "damaged"),
    ]
    kept = index_rows(out)
    assert [(row["source"], row["caption"]) for _, row in sorted(kept.items())] == [
        ("http://example.org/v", "caf\u00e9"),
        ("http://example.org/v", "from json"),
        ("http://example.org/v", "from json"),
        ("00000.tar/000002_00000.jpg", "a picture"),
        ("00000.tar/000003_00000.mp4", None),
    ]
    splits = {row["shard"].partition("-")[0] for row in kept.values() if row["source"] == "http://example.org/v"}
    assert len(splits) == 1, "clips of one video stand on one side"
    with tarfile.open(next((out / "shards").glob("*.tar"))) as tar:
        assert all(member.mtime == 0 for member in tar)


def picture_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(waves(5, 1)[0]).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_scenes_buckets_bars_and_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for by default, on videos where each has something to do."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    two = np.concatenate([waves(1, 60, 96, 160), waves(2, 60, 96, 160)])
    boxed = np.zeros((60, 128, 160, 3), np.uint8)
    boxed[:, 16:112] = waves(3, 60, 96, 160)
    (folder / "two.mp4").write_bytes(encode_mp4(two, 24))
    (folder / "boxed.mp4").write_bytes(encode_mp4(boxed, 24))
    (folder / "again.mp4").write_bytes(encode_mp4(two[:60], 24, crf=20))
    (folder / "tall.mp4").write_bytes(encode_mp4(waves(4, 60, 160, 64), 24))
    (folder / "black.mp4").write_bytes(encode_mp4(np.zeros((60, 96, 160, 3), np.uint8), 24))
    (folder / "frozen.mp4").write_bytes(encode_mp4(np.repeat(waves(6, 1, 384, 640), 60, 0), 24))
    given = ["scenes=true", "duplicate_bits=4", "buckets=[[48,80,24],[48,80,40]]", "seconds=2", "fps=24"]
    assert main(words(folder, out, *given)) == 0
    kept = index_rows(out)
    assert [(row["source"], row["start"]) for _, row in sorted(kept.items())] == [
        ("again.mp4", 0.0),
        ("boxed.mp4", 0.0),
        ("two.mp4", 2.5),
    ]
    assert all((row["height"], row["width"], row["bucket"]) == (48, 80, [48, 80, 40]) for row in kept.values())
    told = {(row["source"], row["start"]): row["reason"] for row in rows(out / "rejected.jsonl")}
    assert told[("two.mp4", 0.0)] == "duplicate"
    assert told[("tall.mp4", 0.0)] == "no_bucket"
    assert (told[("black.mp4", 0.0)], told[("frozen.mp4", 0.0)]) == ("black", "frozen")
    assert {start for (source, start) in told if source == "two.mp4"} == {0.0, 2.0, 4.5}
    assert kept["000002-boxed-000"]["bars_cropped"] == [16, 16, 0, 0]
    assert json.loads((out / "manifest.json").read_text())["buckets"] == [{"size": [48, 80, 40], "clips": 3}]
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="needs the real clips")
def test_real_clips(tmp_path: Path) -> None:
    assert main(words(REAL_CLIPS, tmp_path / "out", "fps=10", "short_side=64", "seconds=2", "scenes=true")) == 0
    kept = index_rows(tmp_path / "out")
    assert {row["source"] for row in kept.values()} == {
        "bigbuckbunny.mp4",
        "cockatoo.mp4",
        "intel_bottle-detection.mp4",
        "realshort.mp4",
    }
    assert all(row["verified"] for row in kept.values())
    told = {row["source"]: row["reason"] for row in rows(tmp_path / "out" / "rejected.jsonl")}
    assert told["decord_corrupted.mp4"] == "damaged"
    assert told["decord_video_90.mov"] == "too_short"
