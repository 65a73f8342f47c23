"""Bad captions, read as a text model reads them: from .txt, from .json, from an index, and through a tokenizer."""

from __future__ import annotations

import hashlib
import json
from random import Random

from transformers import CLIPTextModel, CLIPTokenizer

from svdtrain.data.clip import LARGEST_TEXT
from svdtrain.data.manifest import read_manifest
from svdtrain.families.text import Texts
from tests.fuzz import tars
from tests.fuzz.mutations import TEXTS, damaged, noise
from tests.fuzz.place import Answer, Place, asked, shard_row

SPELLINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7", "koi8-r")
BYTES = (
    *(
        b"",
        b" ",
        b"\n",
        b"\0",
        b"\xff",
        b"caf\xe9",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"a\0b",
    ),
    *(
        b"\xff\xfe\0\0",
        b"\x1b]0;t\x07",
        b"a" * LARGEST_TEXT,
        b"a" * (LARGEST_TEXT + 1),
        b"\xf0\x9f\x92" * 9,
        b"\r\n" * 999,
    ),
)
_texts: dict[str, Texts] = {}


def attempt(draw: Random, place: Place) -> Answer:
    """One bad caption; where it is taken as good, an encoder is told it."""
    text = draw.choice((*TEXTS, "a square that moves"))
    content = draw.choice(
        (
            draw.choice(BYTES),
            noise(draw, draw.choice((1, 40, 3000))),
            damaged(draw, text.encode("utf-8", "surrogatepass")),
            text.encode(draw.choice(SPELLINGS), "ignore"),
            text.encode("utf-8", "surrogatepass") * draw.choice((1, 300)),
        )
    )
    said = draw.choice((text, content.decode("latin-1"), content.decode("utf-8", "surrogateescape")))
    kind = draw.randrange(3)
    if kind == 2:
        source = str(_indexed(place, said))
    else:
        members = {"clip.0.txt": content} if kind == 0 else {"clip.0.json": json.dumps({"caption": said}).encode()}
        source = str(place.write("data/a.tar", tars.packed(place, members)))
    trigger = draw.choice(("", "sks", "((", "\\"))
    answer = tars.train_on(draw, place, source, captions=True, trigger=trigger)
    return asked(lambda: _told(place, source, trigger)) if answer == (0, "") else answer


def _indexed(place: Place, said: str) -> str:
    """A prepared dataset whose index has the caption."""
    folder = place.copy("dataset")
    file = folder / "train-000000.idx.jsonl"
    rows = [json.loads(line) | {"caption": said} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0] = shard_row(folder / "train-000000.tar", file, len(rows))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def _told(place: Place, source: str, trigger: str) -> None:
    manifest = read_manifest(source)
    for clip in (*manifest.train, *manifest.held_out):
        told = clip.told(trigger)
        hashlib.sha256(json.dumps(told).encode())
        _encoder(place).encode([told])


def _encoder(place: Place) -> Texts:
    if not _texts:
        folder = place.world / "text"
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        _texts["clip"] = Texts(CLIPTextModel.from_pretrained(folder / "text_encoder"), tokenizer, 8)
    return _texts["clip"]
