"""Text to video by a model that reads no text: a tiny text-to-image pipeline draws the first frame."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub import constants
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from svdtrain.cli import main
from svdtrain.commands import generate
from svdtrain.families.protocol import Request
from svdtrain.generation.first_frame import TextToImage, _draw, _options, with_first_frames
from tests.test_bad_input import assert_one_error, save_adapter_of, snapshot
from tests.tiny_models import SIZE, save_tiny_svd
from tests.tiny_pipelines import save_tiny_i2vgen_xl, save_tiny_pictures
from tests.tiny_runs import GEOMETRY, save_picture


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video model with an adapter, a text-to-image pipeline with two; and bad ones, named by what is wrong with them."""
    root = tmp_path_factory.mktemp("world")
    save_tiny_svd(root / "model")
    save_adapter_of(root / "model", root / "adapter")
    save_picture(root / "a.png")
    save_tiny_pictures(root / "drawer")
    look = load_file(save_tiny_lora(root / "drawer", root / "look.safetensors"))
    save_tiny_lora(root / "drawer", root / "words.safetensors", "text_encoder")
    bad_pipelines(root)
    first, *_ = look
    save_file({"a": torch.zeros(3)}, root / "no_lora.safetensors")
    save_file({name.replace("unet.", "net."): value for name, value in look.items()}, root / "of_others.safetensors")
    save_file(look | {first.replace("to_q", "to_x"): look[first].clone()}, root / "one_too_many.safetensors")
    save_file({name: value for name, value in look.items() if name != first}, root / "one_missing.safetensors")
    save_file({name: torch.cat([value] * 2, -1) for name, value in look.items()}, root / "wide.safetensors")
    torch.save(look, root / "look.bin")
    return root


def save_tiny_lora(pipeline: Path, file: Path, part: str = "unet") -> Path:
    """A random LoRA over the attention of one part, strong enough to be seen, as diffusers' training scripts save it."""
    kind, modules = {
        "unet": (UNet2DConditionModel, ["to_q", "to_v"]),
        "text_encoder": (CLIPTextModel, ["q_proj", "v_proj"]),
    }[part]
    module: Any = kind.from_pretrained(pipeline / part)
    torch.manual_seed(1)
    module.add_adapter(LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, target_modules=modules))
    layers: Any = {f"{part}_lora_layers": get_peft_model_state_dict(module)}
    StableDiffusionPipeline.save_lora_weights(file.parent, **layers, weight_name=file.name)
    return file


def bad_pipelines(root: Path) -> None:
    for name in ("pickled", "pickled_words", "with_code"):
        shutil.copytree(root / "drawer", root / name)
    pickle_weights(root / "pickled/unet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    pickle_weights(root / "pickled_words/text_encoder/model.safetensors", "pytorch_model.bin")
    index = root / "with_code/model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["mine", "UNet2DConditionModel"]}))
    code = (
        f"from pathlib import Path\nPath({str(root / 'ran')!r}).touch()\nfrom diffusers import UNet2DConditionModel\n"
    )
    (root / "with_code/unet/mine.py").write_text(code)


def pickle_weights(file: Path, name: str) -> None:
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def words(world: Path, *given: str) -> list[str]:
    """A command line that works; the later words win, and KEY= takes one away."""
    usual = [
        f"adapter={world}/adapter",
        f"model.source={world}/model",
        f"text_to_image={world}/drawer",
        "prompt=a fox",
        "text_to_image_steps=2",
        "steps=1",
        "device=cpu",
    ]
    chosen = {word.partition("=")[0]: word.format(w=world) for word in [*usual, *GEOMETRY, *given]}
    return ["generate", *(word for word in chosen.values() if not word.endswith("="))]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_the_first_frame_is_the_stock_pipelines_and_is_kept(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_family(*arguments: Any) -> Any:  # noqa: ANN401
        gc.collect()
        assert not [thing for thing in gc.get_objects() if type(thing) is UNet2DConditionModel]
        return build(*arguments)

    build = generate.build_family
    monkeypatch.setattr(generate, "build_family", build_family)
    given = ["seed=3", "text_to_image_guidance=4", "negative_prompt=a dog"]
    assert main(words(world, *given, f"out={tmp_path}/fox.mp4")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"fox.first.png", "fox.mp4", "fox.png"}

    pipe: Any = StableDiffusionPipeline.from_pretrained(world / "drawer", use_safetensors=True)
    stock = pipe(
        "a fox",
        SIZE,
        SIZE,
        num_inference_steps=2,
        guidance_scale=4.0,
        negative_prompt="a dog",
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert np.array_equal(pixels(tmp_path / "fox.first.png"), np.asarray(stock))

    go_on = ["text_to_image=", "text_to_image_steps=", "prompt=", f"image={tmp_path}/fox.first.png"]
    del pipe
    assert main(words(world, *go_on, "seed=3", f"out={tmp_path}/again.mp4")) == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "fox.mp4").read_bytes()


def test_each_prompt_and_seed_has_a_picture_of_its_own_and_the_same_again(world: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert main(words(world, "prompt=[a fox,two dogs]", "seed=[1,2]", f"out={tmp_path}/{folder}")) == 0
    contents = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    names = [f"{prompt}-{seed}" for prompt in ("1-a-fox", "2-two-dogs") for seed in (1, 2)]
    assert contents.keys() == {f"{name}{end}" for name in names for end in (".mp4", ".first.png")} | {
        "contact_sheet.png"
    }
    assert len(set(contents.values())) == len(contents)
    assert contents == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_a_model_that_reads_text_too_is_told_the_prompt_of_its_picture(world: Path, tmp_path: Path) -> None:
    save_tiny_i2vgen_xl(tmp_path / "model")
    model = ["adapter=", "base_only=true", "model=i2vgen_xl", f"model.source={tmp_path}/model"]
    model += ["model.variant=null", "model.size_multiple=16"]
    assert main(words(world, *model, f"out={tmp_path}/a.mp4")) == 0
    shown = ["text_to_image=", "text_to_image_steps=", f"image={tmp_path}/a.first.png"]
    for prompt, name, same in (("a fox", "b", True), ("two dogs", "c", False)):
        assert main(words(world, *model, *shown, f"prompt={prompt}", f"out={tmp_path}/{name}.mp4")) == 0
        assert ((tmp_path / f"{name}.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()) is same


@pytest.mark.parametrize(
    ("adapter", "strength", "changes"),
    [
        ("{w}/look.safetensors", "1.0", True),
        ("{w}/look.safetensors", "0.0", False),
        ("{w}/words.safetensors", "1.0", True),
        ("[{w}/look.safetensors,{w}/words.safetensors]", "[0.0,1.0]", True),
        ("[{w}/look.safetensors,{w}/words.safetensors]", "0.0", False),
    ],
)
def test_an_image_adapter_changes_the_picture_by_its_strength(
    world: Path, tmp_path: Path, adapter: str, strength: str, changes: bool
) -> None:
    assert main(words(world, f"out={tmp_path}/base.mp4")) == 0
    given = [f"image_adapter={adapter}", f"image_adapter_strength={strength}"]
    assert main(words(world, *given, f"out={tmp_path}/adapted.mp4")) == 0
    for end in ("first.png", "mp4"):
        assert ((tmp_path / f"base.{end}").read_bytes() != (tmp_path / f"adapted.{end}").read_bytes()) is changes


def test_a_pipeline_is_found_in_the_hub_cache(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = "0123456789" * 4
    snapshots = tmp_path / "hub/models--me--drawer/snapshots"
    shutil.copytree(world / "drawer", snapshots / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(words(world, f"text_to_image=me/drawer@{revision}", f"out={tmp_path}/a.mp4")) == 0
    assert main(words(world, f"out={tmp_path}/b.mp4")) == 0
    assert (tmp_path / "a.first.png").read_bytes() == (tmp_path / "b.first.png").read_bytes()


NO_PIPELINE, NO_LORA = "cannot be loaded as a text-to-image pipeline: ", "made for this text-to-image model"
BAD: list[tuple[Any, ...]] = [  # words that go wrong, fragments of error and hint
    ("text_to_image={w}/nothing", "text_to_image={w}/nothing: there is no such folder", "diffusers folder"),
    ("text_to_image=me/nothing@v1", "nor is it in the Hub cache", "hf download me/nothing --revision v1"),
    ("text_to_image={w}/model", NO_PIPELINE, "of a text-to-image pipeline"),
    ("text_to_image={w}/drawer/unet", f"{NO_PIPELINE}Error no file named model_index.json", "model_index.json"),
    (
        "text_to_image={w}/pickled",
        f"{NO_PIPELINE}Error no file named diffusion_pytorch_model.safetensors",
        "safetensors",
    ),
    ("text_to_image={w}/pickled_words", f"{NO_PIPELINE}Error no file named model.safetensors", "safetensors"),
    ("text_to_image={w}/with_code", f"{NO_PIPELINE}The directory {{w}}/with_code/unet contains custom code"),
    ("text_to_image=", "prompt: nano reads no text", "text_to_image=FOLDER"),
    ("prompt=", "prompt: is not set, and text_to_image draws what it says", "prompt=TEXT"),
    ("image={w}/a.png", "text_to_image: image is given, too", "image=null"),
    ("image_adapter={w}/nothing.safetensors", "nothing.safetensors: there is no such file", "FILE.safetensors"),
    ("image_adapter={w}/look.bin", "look.bin: not a whole safetensors file", "never read"),
    ("image_adapter={w}/no_lora.safetensors", "no LoRA that StableDiffusionPipeline can load", NO_LORA),
    ("image_adapter={w}/wide.safetensors", "no LoRA that StableDiffusionPipeline can load", NO_LORA),
    ("image_adapter={w}/adapter/adapter_model.safetensors", "of its 48 tensors 0 have a place", NO_LORA),
    ("image_adapter={w}/of_others.safetensors", "of its 32 tensors 0 have a place", NO_LORA),
    ("image_adapter={w}/one_too_many.safetensors", "of its 33 tensors 32 have a place", NO_LORA),
    (
        "image_adapter={w}/one_missing.safetensors",
        "it lacks down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A",
        NO_LORA,
    ),
    ("text_to_image_guidance=nan", "text_to_image_guidance: nan is not allowed"),
    ("seed=[1,1]", "two videos would be called '1-a-fox-1'", "name each seed once"),
    ("model=modelscope", "text_to_image: modelscope animates no picture", "prompt=TEXT"),
]


@pytest.mark.parametrize(("wrong", "said"), [pytest.param(row[0], row[1:], id=row[0]) for row in BAD])
def test_a_mistake_is_one_line_and_leaves_nothing(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], wrong: str, said: tuple[str, ...]
) -> None:
    before = snapshot(world, tmp_path)
    geometry = ["model.height=64", "model.width=64"] if wrong.startswith("model=") else []
    assert main(words(world, f"out={tmp_path}/a.mp4", wrong, *geometry)) == 2
    assert_one_error(capfd.readouterr().err, *(fragment.format(w=world) for fragment in said))
    assert snapshot(world, tmp_path) == before


@pytest.mark.parametrize("name", ["a.mp4", "a.first.png", "a.png"])
def test_nothing_is_overwritten(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_text("an earlier result")
    assert main(words(world, f"out={tmp_path}/a.mp4")) == 2
    assert_one_error(capfd.readouterr().err, f"{tmp_path}/{name} exists already")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier result"]


def test_a_picture_is_kept_only_when_all_that_it_goes_into_has_been_loaded(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_tiny_svd(tmp_path / "other_model", seed=1)
    given = [f"model.source={tmp_path}/other_model", f"out={tmp_path}/new/a.mp4"]
    assert main(words(world, *given)) == 4
    assert_one_error(capfd.readouterr().err, "made for tiny, and this model has")
    assert not (tmp_path / "new").exists()


def test_in_half_precision_as_on_a_gpu_equal_requests_have_equal_pictures(world: Path) -> None:
    drawer = TextToImage(str(world / "drawer"), steps=1, adapters=[(str(world / "look.safetensors"), 1.0)])
    request = Request(None, 3, SIZE, SIZE, 1, 7, 7, 127, prompt="a fox")
    one, same, other = with_first_frames([request, request, replace(request, seed=8)], drawer, "cpu", torch.bfloat16)
    assert np.array_equal(np.asarray(one.image), np.asarray(same.image))
    assert not np.array_equal(np.asarray(one.image), np.asarray(other.image))


class Plain:
    """What pipelines may do that the tiny one does not: know few settings, draw at another size, and blacken."""

    def __call__(self, prompt: str, height: int, width: int, generator: torch.Generator) -> SimpleNamespace:  # noqa: ARG002
        return SimpleNamespace(images=[Image.new("L", (2 * width, height))], nsfw_content_detected=[True])


def test_what_a_pipeline_does_otherwise_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert _options(Plain(), TextToImage("folder", steps=3)) == {}
    assert "text_to_image=folder: Plain takes no num_inference_steps" in caplog.text
    picture = _draw(Plain(), Request(None, 3, 16, 32, 1, 7, 7, 127, prompt="a fox"), {})
    assert (picture.mode, picture.size) == ("RGB", (32, 16))
    assert "blackened the first frame of seed 7" in caplog.text
