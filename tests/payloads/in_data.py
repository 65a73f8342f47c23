"""Payloads in configs and in what data.source, prepare and inspect read."""

from __future__ import annotations

import json
import tarfile

from svdtrain.generation.video_files import encode_mp4
from tests.config.test_refusals import IN_A_FILE, ON_THE_COMMAND_LINE
from tests.payloads import makers
from tests.payloads.in_models import EVIL_CODE
from tests.payloads.place import Rows, World
from tests.tiny_runs import moving_square


def configs(world: World) -> Rows:
    rows: Rows = {f"word {number}": world.fit(word) for number, word in enumerate(ON_THE_COMMAND_LINE)}
    python = '!!python/object/apply:os.system ["touch {marker}"]'
    files = {name: text for name, (text, _) in IN_A_FILE.items()} | {
        "YAML that calls Python": f"name: {python}",
        "YAML that calls Python as a key": f"? {python}\n: 1",
        "Python in a group": f"defaults: [{python}]",
    }
    for name, text in files.items():
        folder = world.folder(f"config {name}")
        (folder / "config").mkdir()
        text = text.replace("{marker}", str(world.marker(name)))
        (folder / "config/evil.yaml").write_text(f"# @package _global_\n{text}\n")
        rows[f"config: {name}"] = world.fit("config=evil", "--config-dir", str(folder))
    folder = world.folder("primary")
    (folder / "evil.yaml").write_text(
        f"defaults: [fit, _self_]\nname: {python}".replace("{marker}", str(world.marker("primary")))
    )
    rows["config: Python in a primary config"] = world.fit("--config-dir", str(folder), "--config-name", "evil")
    (folder / "rerun.pickle").write_bytes(makers.pickled(world.marker("rerun")))
    rows["config: a job to run again"] = world.fit("--experimental-rerun", str(folder / "rerun.pickle"))
    return rows


ADDRESSES = (
    "pipe:touch {m}",
    "pipe: touch {m} ",
    "|touch {m}",
    "http://127.0.0.1:9/a.tar|touch {m}",
    "a.tar::pipe:touch {m}",
    "simplecache::http://127.0.0.1:9/a.tar",
    "zip://*::http://127.0.0.1:9/a.zip",
    "reference://x",
    "hf:me/clips",
    "hf://models/me/x$(touch {m})",
    "curl:http://127.0.0.1:9/",
    "ssh://localhost/$(touch {m})",
    "sftp://127.0.0.1/a.tar",
    "ftp://127.0.0.1/a.tar",
    "file:///etc/passwd",
    "git://x",
    "ais://x",
    "gopher://127.0.0.1:9/a",
    "-o{m}",
    "$(touch {m}).tar",
    "`touch {m}`.tar",
    "{{a..b}}.tar;touch {m}",
)
PACKED = (
    "pyd",
    "pkl",
    "pickle",
    "pth",
    "pt",
    "pyd.gz",
    "npy",
    "npz",
    "ten",
    "mp",
    "msg",
    "cls",
    "cbor",
    "torch",
    "bin",
)


def datasets(world: World) -> Rows:
    rows: Rows = {}
    for number, address in enumerate(ADDRESSES):
        text = address.replace("{m}", str(world.marker(f"address{number}")))
        rows[f"data.source {address}"] = world.fit("data.source='" + text.replace("'", "\\'") + "'")
    good = encode_mp4(moving_square(0), 7)
    pickles = {
        ending: makers.object_array(world.marker(ending)) if ending == "npy" else makers.pickled(world.marker(ending))
        for ending in PACKED
    }
    pickles["npz"], pickles["pth"] = makers.object_archive(world.marker("npz")), makers.torch_file(world.marker("pth"))
    clips = {f"c{n}.mp4": good for n in range(3)}
    members: dict[str, dict[str, bytes]] = {
        "pickles beside each clip": clips
        | {f"c{n}.{ending}": data for n in range(3) for ending, data in pickles.items()},
        "pickles alone": {f"c.{ending}": data for ending, data in pickles.items()},
        "pickles named mp4": {f"c{n}.mp4": pickles["pkl"] for n in range(3)},
        "pickles named json": clips | {f"c{n}.json": pickles["pkl"] for n in range(3)},
        "names that climb": {f"../../../markers/up{n}.mp4": good for n in range(3)},
        "absolute names": {f"{world.marker('absolute')}{n}.mp4": good for n in range(3)},
        "deep json": clips | {"c0.json": makers.deep_json()},
        "captions": clips | {f"c{n}.json": json.dumps({"caption": text}).encode() for n, text in enumerate(TRICKS)},
        "keys of code": clips | {"c0.json": json.dumps({"_target_": "os.system", "__reduce__": 1}).encode()},
        "a playlist": {f"c{n}.mp4": b"#EXTM3U\n#EXTINF:1,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n" for n in range(3)},
        "a list of files": {f"c{n}.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n" for n in range(3)},
        "PostScript named png": {f"c{n}.png": makers.postscript(world.marker("eps")) for n in range(3)},
    }
    for name, files in members.items():
        makers.tar(world.bad / f"tar {name}" / "train-000000.tar", files)
    kinds = {
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    for name, kind in kinds.items():
        others = [makers.link(f"l{n}.mp4", kind, "/etc/passwd") for n in range(3)]
        makers.tar(world.bad / f"tar {name}" / "train-000000.tar", clips, *others)
    makers.sparse_tar(world.bad / "tar sparse" / "train-000000.tar")
    makers.bomb(world.bad / "tar bomb" / "train-000000.tar")
    folders = sorted(path for path in world.bad.glob("tar *"))
    for folder in folders:
        name, still = folder.name, ["data.stills=true"] if "png" in folder.name else []
        rows[f"fit: {name}"] = world.fit(f"data.source='{folder}'", *still)
        rows[f"inspect: {name}"] = ["inspect", f"source='{folder}'", f"out={world.new('page')}.html"]
        rows[f"prepare: {name}"] = [
            "prepare",
            f"source='{folder}'",
            f"out={world.new('prepared')}",
            *PREPARE,
        ]
    return rows | _described(world) | _unprepared(world)


PREPARE = ("workers=1", "seconds=1", "least_seconds=0.2", "duplicate_bits=null", "most_repeated=1.0")
TRICKS = ("$(touch marker); `touch marker`", "${oc.env:HOME}", "{{7*7}} <script>alert(1)</script> %n\0")


def _described(world: World) -> Rows:
    """Manifests and indices that point elsewhere."""
    rows: Rows = {}
    for name in ("../../etc/passwd", "/etc/passwd", "a/../../b.tar"):
        folder = world.copy("data", f"manifest {len(rows)}")
        row = {"name": name, "bytes": 1, "sha256": "0" * 64, "clips": 1, "index_sha256": "0" * 64}
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "shards": [row]}))
        rows[f"manifest with {name}"] = world.fit(f"data.source='{folder}'")
    folder = world.copy("data", "index")
    lines = [{"key": f"../{n}", "members": {"mp4": [0, 1 << 40], "pkl": [512, 10]}} for n in range(3)]
    (folder / "train-000000.idx.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows["index that points outside"] = world.fit(f"data.source='{folder}'")
    folder = world.folder("cache")
    (folder / "manifest.json").write_bytes(makers.pickled(world.marker("cache")))
    (folder / "index.jsonl").write_bytes(makers.pickled(world.marker("cache")))
    (folder / "latents.pt").write_bytes(makers.torch_file(world.marker("cache")))
    rows["a cache of pickles"] = world.fit("data.cache=disk", f"data.cache_dir='{folder}'")
    return rows


def _unprepared(world: World) -> Rows:
    """Folders for prepare, and what may lie in one."""
    folder = world.folder("videos")
    good = encode_mp4(moving_square(0, 12), 7)
    marker = world.marker("shell")
    for name in (f"$(touch {marker.name}).mp4", "-i.mp4", "|touch marker.mp4", "a;touch marker.mp4", "%(x)s.mp4"):
        (folder / name).write_bytes(good)
    (folder / "eps.png").write_bytes(makers.postscript(marker))
    (folder / "link.mp4").symlink_to("/etc/passwd")
    (folder / "a.json").write_bytes(makers.deep_json())
    (folder / "captions.parquet").write_bytes(makers.pickled(marker))
    (folder / "a.pkl").write_bytes(makers.pickled(marker))
    captioner = world.folder("captioner")
    (captioner / "config.json").write_text(json.dumps({"model_type": "evil", "architectures": ["Evil"]} | EVIL_CODE))
    (captioner / "evil.py").write_text(makers.module(world.marker("captioner")))
    (captioner / "pytorch_model.bin").write_bytes(makers.torch_file(world.marker("captioner")))
    prepare = ["prepare", f"source='{folder}'", *PREPARE]
    return {
        "prepare: a folder of odd names": [*prepare, f"out={world.new('prepared')}"],
        "prepare: a captioner with code": [
            *prepare,
            f"out={world.new('prepared')}",
            "captions=vlm",
            f"caption_model='{captioner}'".replace("caption_model", "model"),
        ],
        "inspect: a folder of odd names": ["inspect", f"source='{folder}'", f"out={world.new('page')}.html"],
    }
