"""Payloads in base models, adapters and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.payloads import makers
from tests.payloads.place import Rows, World

WEIGHTS = "diffusion_pytorch_model.safetensors"
EVIL_CODE = {"auto_map": {"AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}, "trust_remote_code": True}


def models(world: World) -> Rows:
    rows: Rows = {}

    def row(name: str, change: Any) -> None:  # noqa: ANN401
        folder = world.copy("model", f"model {name}")
        change(folder, world.marker(name))
        rows[f"generate: model: {name}"] = world.generate(f"model.source='{folder}'")
        rows[f"fit: model: {name}"] = world.fit(f"model.source='{folder}'")

    def replaced(name: str) -> Any:  # noqa: ANN401
        def change(folder: Path, marker: Path) -> None:
            (folder / "unet" / WEIGHTS).unlink()
            (folder / "unet" / name).write_bytes(makers.torch_file(marker))

        return change

    for name in ("diffusion_pytorch_model.bin", WEIGHTS, "diffusion_pytorch_model.pt", "diffusion_pytorch_model.ckpt"):
        row(f"a pickle as {name}", replaced(name))

    def index(folder: Path, marker: Path) -> None:
        (folder / "unet" / WEIGHTS).unlink()
        (folder / "evil.bin").write_bytes(makers.torch_file(marker))
        places = {"conv_in.weight": "../evil.bin", "conv_in.bias": "/etc/passwd"}
        (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    row("an index that points at a pickle", index)

    def transformers_pickle(folder: Path, marker: Path) -> None:
        (folder / "image_encoder" / "model.safetensors").unlink()
        (folder / "image_encoder" / "pytorch_model.bin").write_bytes(makers.torch_file(marker))

    row("a pickle of transformers", transformers_pickle)

    def settings(part: str, file: str, **changes: Any) -> Any:  # noqa: ANN401
        def change(folder: Path, marker: Path) -> None:
            for place in (folder, folder / part):
                (place / "evil.py").write_text(makers.module(marker))
            path = folder / part / file
            told = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(told | changes))

        return change

    row("code of the network", settings("unet", "config.json", _class_name="evil.Evil", **EVIL_CODE))
    row("code of the encoder", settings("image_encoder", "config.json", architectures=["evil.Evil"], **EVIL_CODE))
    row("code of the pictures", settings("feature_extractor", "preprocessor_config.json", **EVIL_CODE))
    row("code of the scheduler", settings("scheduler", "scheduler_config.json", _class_name=["evil", "Evil"]))
    row("a quantizer", settings("unet", "config.json", quantization_config={"quant_method": "evil.Evil"}))
    row("an activation", settings("unet", "config.json", act_fn="__import__('os').system('id')"))
    parts = {"unet": ["evil", "Evil"], "scheduler": ["../evil", "Evil"]}
    row("code in the index", settings("", "model_index.json", **parts))
    row("a pipeline of its own", settings("", "model_index.json", _class_name=["evil", "Evil"], custom_pipeline="evil"))
    return rows | _drawers(world)


def _drawers(world: World) -> Rows:
    """text_to_image: a whole pipeline of someone else's."""
    rows: Rows = {}
    for name, index in {
        "code": {"_class_name": ["evil", "Evil"], "unet": ["evil", "Evil"]},
        "a component": {"_class_name": "StableDiffusionPipeline", "unet": ["evil", "Evil"], "vae": ["os", "system"]},
        "weights": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
    }.items():
        folder = world.copy("model", f"drawer {name}")
        (folder / "model_index.json").write_text(json.dumps(index))
        for place in (folder, folder / "unet"):
            (place / "evil.py").write_text(makers.module(world.marker(f"drawer {name}")))
        (folder / "unet" / WEIGHTS).unlink()
        (folder / "unet/diffusion_pytorch_model.bin").write_bytes(makers.torch_file(world.marker(f"drawer {name}")))
        rows[f"text_to_image: {name}"] = world.generate("prompt=a", "image=null", f"text_to_image='{folder}'")
    picture = world.folder("pictures")
    (picture / "a.png").write_bytes(makers.postscript(world.marker("picture")))
    rows["image: PostScript"] = world.generate(f"image='{picture / 'a.png'}'")
    Image.new("RGB", (8, 8)).save(picture / "b.png")
    (picture / "b.png").write_bytes(makers.pickled(world.marker("picture")))
    rows["image: a pickle"] = world.generate(f"image='{picture / 'b.png'}'")
    return rows


WEIGHTS_FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
EVIL_CONFIG = {
    "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
    "megatron_core": "evil",
    "megatron_config": {"a": 1},
    "base_model_name_or_path": "/etc",
    "runtime_config": {"_target_": "os.system"},
}
CLIMBING = (
    "../../../markers/a.lora_A.weight",
    "/tmp/x.lora_B.weight",
    "base_model.model.__class__.lora_A.weight",
    "a\0b",
)


def _adapter_files(world: World) -> dict[str, dict[str, bytes]]:
    """Name -> the files of a folder."""
    good = (world.run / "adapter" / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    config = json.loads((world.run / "adapter" / CONFIG).read_text())

    def with_header(**changes: str) -> bytes:
        text = json.dumps(header | {"__metadata__": header["__metadata__"] | changes}).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + length :]

    def saying(**changes: object) -> bytes:
        return with_header(lora_adapter_metadata=json.dumps(config | changes))

    plain, evil = with_header(lora_adapter_metadata=""), json.dumps(config | EVIL_CONFIG).encode()
    code = makers.module(world.marker("mapping")).encode()
    page = {"svdtrain.base": "<script>alert(1)</script>", "svdtrain.steps": "${7*7}{{7*7}}"}
    base = {"svdtrain.model": "../../x", "svdtrain.source": "${oc.env:PATH}"}
    return {
        "nothing": {WEIGHTS_FILE: good},
        "a pickle": {"adapter_model.bin": makers.torch_file(world.marker("bin")), CONFIG: json.dumps(config).encode()},
        "a pickle as a file": {"a.pt": makers.torch_file(world.marker("pt"))},
        "a pickle named safetensors": {WEIGHTS_FILE: makers.torch_file(world.marker("named"))},
        "a pickled config": {WEIGHTS_FILE: plain, CONFIG: makers.pickled(world.marker("told"))},
        "code in its config": {WEIGHTS_FILE: plain, CONFIG: evil, "evil.py": code},
        "code in its header": {WEIGHTS_FILE: saying(**EVIL_CONFIG), "evil.py": code},
        "a name that climbs": {WEIGHTS_FILE: with_header(**{"svdtrain.recipe": "../../markers/climbed"})},
        "a base that it names": {WEIGHTS_FILE: with_header(**base)},
        "tensors that climb": {WEIGHTS_FILE: makers.safetensors({name: [2, 2] for name in CLIMBING}, {"format": "pt"})},
        "a pattern without end": {WEIGHTS_FILE: saying(target_modules="(a+)+$")},
        "a header of 2^60 bytes": {WEIGHTS_FILE: (1 << 60).to_bytes(8, "little") + b"{}"},
        "a page": {WEIGHTS_FILE: with_header(**page)},
    }


def adapters(world: World) -> Rows:
    rows: Rows = {}
    model = [f"model.source={world.model}", "model.frames=3", "model.height=32", "model.width=32"]
    for name, files in _adapter_files(world).items():
        folder = world.folder(f"adapter {name}")
        for inside, data in files.items():
            (folder / inside).write_bytes(data)
        place = str(folder / "a.pt" if "a.pt" in files else folder)
        new = world.new("new")
        rows[f"generate: adapter: {name}"] = world.generate("base_only=false", f"adapter='{place}'")
        rows[f"info: adapter: {name}"] = ["adapter", "info", place]
        rows[f"convert: adapter: {name}"] = ["adapter", "convert", place, "to=kohya", f"out={new}.safetensors"]
        export = ["export", f"adapter={place}", "to=diffusers,peft", "metadata=full", "card=true", "steps=1"]
        rows[f"export: adapter: {name}"] = [*export, "model=nano", *model, f"out={world.new('export')}"]
    folder = world.copy("run", "run with a link")
    (folder / "before_after.mp4").unlink(missing_ok=True)
    (folder / "before_after.mp4").symlink_to(world.root / "home/secret")
    linked = ["export", f"adapter={folder}", "to=peft", "card=true", "verify=false", *model]
    rows["export: a run with a link"] = [*linked, f"out={world.out / 'linked'}"]
    return rows
