"""Captions: every way of keeping them is read, and every fault in them is one line that says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from svdtrain.foundation.errors import DataError
from svdtrain.preparation.captions import edit, read_captions

Files = dict[str, str | bytes]

GOOD: dict[str, tuple[Files, dict[str, str]]] = {
    "sidecars": (
        {"a.mp4": b"", "a.txt": " A cat,\nrunning. \n", "deep/b.v2.mov": b"", "deep/b.v2.txt": "Ein Bär 🐻", "c.mp4": b""},
        {"a.mp4": "A cat,\nrunning.", "deep/b.v2.mov": "Ein Bär 🐻"},
    ),
    "a sidecar of a video and of a still": ({"a.mp4": b"", "a.png": b"", "a.txt": "x"}, {"a.mp4": "x", "a.png": "x"}),
    "texts beside nothing": ({"readme.txt": b"\xff", "a.json": "{}", "a.txt": b"\xff"}, {}),
    "csv": (
        {"metadata.csv": 'file_name,fps,text\r\na.mp4,7,"one, two"\r\n./b/c.mp4,8,"three\nfour"\r\n'},
        {"a.mp4": "one, two", "b/c.mp4": "three\nfour"},
    ),
    "csv in a folder, column caption": ({"x/metadata.csv": "caption,file_name\nhi,a.mp4\n"}, {"x/a.mp4": "hi"}),
    "jsonl": (
        {"metadata.jsonl": '{"file_name": "a.mp4", "text": "A"}\n\n{"file_name": "b.mp4", "caption": "B\\u2028b"}\n'},
        {"a.mp4": "A", "b.mp4": "B\u2028b"},
    ),
    "two lists": ({"prompt.txt": "A\r\nB\u2028b\r\n", "videos.txt": "a.mp4\nv/b.mp4"}, {"a.mp4": "A", "v/b.mp4": "B\u2028b"}),
    "the same twice": ({"a.mp4": b"", "a.txt": "A", "metadata.csv": "file_name,text\na.mp4,A\n"}, {"a.mp4": "A"}),
    "byte order marks": (
        {"a.mp4": b"", "a.txt": b"\xef\xbb\xbfhi", "metadata.csv": b"\xef\xbb\xbffile_name,text\nb.mp4,B\n"},
        {"a.mp4": "hi", "b.mp4": "B"},
    ),
    "blanks before a quote": ({"metadata.csv": 'file_name, text\na.mp4, "A, B"\n'}, {"a.mp4": "A, B"}),
    "an empty text beside a caption": ({"metadata.jsonl": '{"file_name": "a", "text": "", "caption": "A"}'}, {"a": "A"}),
    "what a Mac leaves": ({"a.mp4": b"", "._a.mp4": b"", "._a.txt": b"\x00\x05\xb0", ".x/b.mp4": b"", ".x/b.txt": "B"}, {}),
    "beside no video": ({"README.pdf": b"", "README.txt": b"caf\xe9"}, {}),
    "a video named prompt": ({"prompt.mp4": b"", "prompt.txt": "P"}, {"prompt.mp4": "P"}),
}  # fmt: skip

BAD: dict[str, tuple[Files, str]] = {
    "latin 1": ({"a.mp4": b"", "a.txt": b"caf\xe9 au lait"}, r"a.txt: byte 3: b'\xe9 au' is no UTF-8"),
    "utf 16": ({"a.mp4": b"", "a.txt": "x".encode("utf-16")}, r"a.txt: byte 0: b'\xff\xfex"),
    "latin 1 behind a byte order mark": ({"a.mp4": b"", "a.txt": b"\xef\xbb\xbfcaf\xe9"}, r"a.txt: byte 6: b'\xe9' is no"),
    "csv with a bare comma": ({"metadata.csv": "file_name,text\na.mp4,a cat, sitting\n"}, "metadata.csv: line 2: it has more"),
    "half a character": ({"metadata.jsonl": '{"file_name": "a.mp4", "text": "a \\ud83d"}'}, "line 1: half of a"),
    "prompts without videos": ({"prompt.txt": "A"}, "prompt.txt stands without videos.txt"),
    "videos without prompts": ({"videos.txt": "a.mp4"}, "videos.txt stands without prompt.txt"),
    "empty": ({"a.mp4": b"", "a.txt": b""}, "a.txt: byte 0: the caption is empty"),
    "blank": ({"a.mp4": b"", "a.txt": b" \n\n"}, "a.txt: byte 0: the caption is empty"),
    "one megabyte": ({"a.mp4": b"", "a.txt": b"x" * (1 << 20)}, "a.txt: byte 65536: the text goes on, 65,536 bytes"),
    "two captions": (
        {"a.mp4": b"", "a.txt": "A", "metadata.csv": "file_name,text\na.mp4,B\n"},
        "a.mp4 has two captions, in {f}/a.txt and in {f}/metadata.csv: line 2",
    ),
    "csv without a name": ({"metadata.csv": "text\nA\n"}, "metadata.csv: line 2: it has text"),
    "csv without a text": ({"metadata.csv": "file_name,prompt\na.mp4,A\n"}, "metadata.csv: line 2: it has file_name, p"),
    "csv with a short row": ({"metadata.csv": "file_name,text\na.mp4,A\nb.mp4\n"}, "metadata.csv: line 3: it has file"),
    "csv with an open quote": ({"metadata.csv": 'file_name,text\na.mp4,"A\n'}, "metadata.csv: line 2: unexpected end"),
    "csv with no caption": ({"metadata.csv": 'file_name,text\n"a.mp4",\n'}, "metadata.csv: line 2: the caption is empty"),
    "csv with a long caption": (
        {"metadata.csv": f"file_name,text\na.mp4,{'x' * 70_000}\n"},
        "metadata.csv: line 2: the caption has 70,000 bytes",
    ),
    "csv with an enormous field": ({"metadata.csv": f"file_name,text\na,{'x' * 200_000}\n"}, "metadata.csv: line 2: field"),
    "csv not utf 8": ({"metadata.csv": b"file_name,text\na.mp4,\xff\n"}, r"metadata.csv: byte 21: b'\xff\n' is no UTF-8"),
    "jsonl torn": ({"metadata.jsonl": '{"file_name": "a", "text": "A"}\n{"file_n'}, "metadata.jsonl: line 2: no JSON: "),
    "jsonl of lists": ({"metadata.jsonl": "[1]\n"}, "metadata.jsonl: line 1: it is a list"),
    "jsonl too deep": ({"metadata.jsonl": "[" * 200_000 + "\n"}, "metadata.jsonl: line 1: no JSON: "),
    "jsonl with a number": ({"metadata.jsonl": '{"file_name": "a", "text": 5}'}, "metadata.jsonl: line 1: it has file_name"),
    "a path that leads out": ({"metadata.jsonl": json.dumps({"file_name": "../a", "text": "A"})}, "line 1: '../a' is no"),
    "an absolute path": ({"metadata.csv": "file_name,text\n/etc/a.mp4,A\n"}, "line 2: '/etc/a.mp4' is no path inside {f}"),
    "an empty path": ({"metadata.csv": "file_name,text\n,A\n"}, "line 2: '' is no path inside"),
    "lists of two lengths": ({"prompt.txt": "A\nB\n", "videos.txt": "a.mp4\n"}, "prompt.txt has 2 lines, videos.txt"),
    "a list with a gap": ({"prompt.txt": "A\n\nB\n", "videos.txt": "a\nb\nc\n"}, "prompt.txt: line 2: the caption is empty"),
}  # fmt: skip


def lay(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize("case", GOOD)
def test_captions_are_found(case: str, tmp_path: Path) -> None:
    files, expected = GOOD[case]
    assert read_captions(lay(tmp_path, files)) == expected


@pytest.mark.parametrize("case", BAD)
def test_a_fault_is_one_line_with_its_place(case: str, tmp_path: Path) -> None:
    files, said = BAD[case]
    with pytest.raises(DataError) as caught:
        read_captions(lay(tmp_path, files))
    assert said.format(f=tmp_path) in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300 + len(str(tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("caption", "trigger", "find", "replace", "expected"),
    [
        ("a cat runs", "", "", "", "a cat runs"),
        ("a cat runs", "sks", "", "", "sks a cat runs"),
        ("sks a cat runs", "sks", "", "", "sks a cat runs"),
        ("skso runs", "sks", "", "", "sks skso runs"),
        ("a cat and a cat", "", "cat", "dog", "a dog and a dog"),
        ("This video shows a cat", "sks", "This video shows ", "", "sks a cat"),
        ("cat", "sks", "cat", "", "sks"),
        ("a.b", "", ".", "-", "a-b"),
        ("the cat", "sks", "the", "sks", "sks cat"),
    ],
)
def test_trigger_comes_first_and_words_are_replaced(
    caption: str, trigger: str, find: str, replace: str, expected: str
) -> None:
    assert edit(caption, trigger, find, replace) == expected
