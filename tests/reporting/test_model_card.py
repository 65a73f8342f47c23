"""The model card: its front matter says the right things to the Hub, its loader runs, and nothing private is on it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from diffusers import StableVideoDiffusionPipeline
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from svdtrain.reporting import licences, model_card
from svdtrain.reporting.model_card import CardFacts
from tests.tiny_models import FRAMES, SIZE, load_tiny_svd, save_tiny_svd

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
XT = "stabilityai/stable-video-diffusion-img2vid-xt"
FACTS = CardFacts(
    title="Ink, in motion",
    base=XT,
    base_name="svd_xt",
    licence=licences.licence_of(XT),
    pipeline_tag="image-to-video",
    pipeline_class="StableVideoDiffusionPipeline",
    component="unet",
    files={"diffusers": "ink.safetensors", "comfyui": "ink_comfyui.safetensors"},
    settings={"frames": "25", "fps": "7", "motion bucket": "127", "strength": "0.6 to 1.0"},
    training={"recipe": "style_lora", "rank": "16", "held-out loss, noise level 1 | 10": "0.91 | 0.97"},
    samples=("samples/before after.mp4", "samples/sheet.png"),
    tags=("stable-video-diffusion",),
)
TAGS = ["lora", "stable-video-diffusion", "image-to-video", "diffusers", "template:sd-lora", "svdtrain"]
LICENCE = {
    "license": "other",
    "license_name": "stable-video-diffusion-community",
    "license_link": f"https://huggingface.co/{XT}/blob/main/LICENSE.md",
}


def on(base: str) -> dict[str, Any]:
    return {"base": base, "licence": licences.licence_of(base)}


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "adapter",
        {},
        {
            "base_model": XT,
            "base_model_relation": "adapter",
            "library_name": "diffusers",
            "pipeline_tag": "image-to-video",
            "tags": TAGS,
            "instance_prompt": None,
            "widget": [
                {"text": "-", "output": {"url": "samples/before after.mp4"}},
                {"text": "-", "output": {"url": "samples/sheet.png"}},
            ],
            **LICENCE,
        },
    ),
    (
        "with a trigger",
        {
            **on("zai-org/CogVideoX-2b"),
            "pipeline_tag": "text-to-video",
            "trigger": "in my style: yes",
            "samples": ("a.mp4",),
        },
        {
            "license": "apache-2.0",
            "license_name": None,
            "license_link": None,
            "instance_prompt": "in my style: yes",
            "pipeline_tag": "text-to-video",
            "widget": [{"text": "in my style: yes", "output": {"url": "a.mp4"}}],
        },
    ),
    (
        "merged",
        {"files": {"merged": "."}, "samples": ()},
        {
            "base_model_relation": "finetune",
            "widget": None,
            "tags": [tag for tag in TAGS if "lora" not in tag],
            **LICENCE,
        },
    ),
    ("merged beside an adapter", {"files": {"merged": "p", "peft": "a"}}, {"base_model_relation": "adapter"}),
    (
        "packaged base",
        {"base": "", "base_name": "nano", "licence": licences.licence_of("nano")},
        {"base_model": None, "base_model_relation": None, "license": "apache-2.0"},
    ),
    ("unknown base", on("me/mine"), {"base_model": "me/mine", "license": "other", "license_name": None}),
    (
        "no commercial use",
        on("cerspense/zeroscope_v2_576w"),
        {"license": "cc-by-nc-4.0", "base_model": "cerspense/zeroscope_v2_576w"},
    ),
]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_front_matter_says_it_to_the_hub(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    data = ModelCard(model_card.model_card(replace(FACTS, **changes))).data.to_dict()
    assert {key: data.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({}, ["<Gallery />", "[before after](samples/before%20after.mp4)", "![sheet](samples/sheet.png)"], []),
        ({}, ["`ink_comfyui.safetensors` into `models/loras`", "fps is one less", "twice the noise"], []),
        ({}, ['svdtrain.load_adapter(pipe, "ink.safetensors", strength=1.0)', "| frames | 25 |"], []),
        ({}, [model_card.CONSENT_TO_FILL_IN, "stable-video-diffusion-community](https://"], ["fill this in before"]),
        ({"consent": "My own clips."}, ["## The clips\n\nMy own clips."], ["Not stated"]),
        ({"settings": {"fps": "8"}}, ["LoraLoaderModelOnly"], ["one less"]),
        ({"files": {"peft": "a/adapter_model.safetensors"}}, ['(pipe, "a/adapter'], ["ComfyUI", "inject_adapter"]),
        (
            {"files": {"merged": "."}},
            ['from_pretrained("THIS_REPOSITORY", torch_dtype=torch.float32)'],
            ["load_adapter", "inject_adapter"],
        ),
        (
            {"base": "", "base_name": "nano"},
            ['from_pretrained("FOLDER_OF_THE_BASE", torch_dtype=torch.float32)  # nano'],
            ["huggingface.co/)"],
        ),
        (on("me/mine"), [licences.LICENCE_TO_FILL_IN], ["here other"]),
        ({"training": {}, "samples": ()}, ["## Settings"], ["## Training", "## Samples", "Gallery"]),
    ],
)
def test_the_page_holds_what_the_facts_hold(changes: dict[str, Any], present: list[str], absent: list[str]) -> None:
    card = model_card.model_card(replace(FACTS, **changes))
    assert [text for text in present if text not in card] == []
    assert [text for text in absent if text in card] == []


def test_a_value_is_one_cell() -> None:
    card = model_card.model_card(replace(FACTS, training={"a": "b | c\n<script>"}))
    assert "| a | b \\| c &lt;script> |" in card


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("/home/eva/clips", "(a local path)"),
        ("from /data/eva/clips, mine", "from (a local path) mine"),
        ("file:///home/eva/a.tar", "(a local path)"),
        ("~/clips", "(a local path)"),
        ("C:\\Users\\eva\\clips", "(a local path)"),
        ("\\\\server\\eva", "(a local path)"),
        ("attention and/or feed-forward, 576/1024", "attention and/or feed-forward, 576/1024"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_paths_of_this_machine_are_left_out(told: str, left: str) -> None:
    card = model_card.model_card(
        replace(FACTS, title=told, consent=told, training={told: told}, base="", base_name=told)
    )
    assert f"# {left}\n" in card
    assert f"| {left} | {left} |" in card
    if "local path" in left:
        assert "eva" not in card
        assert "clips," not in card


@pytest.mark.parametrize("name", ["/data/a.safetensors", "../a.safetensors", "a/../../b.safetensors"])
def test_a_file_is_named_from_the_repository(name: str) -> None:
    for changes in ({"files": {"peft": name}}, {"samples": (name,)}):
        with pytest.raises(AssertionError):
            model_card.model_card(replace(FACTS, **changes))


def test_every_base_has_a_licence_a_reader_can_find() -> None:
    configs = [yaml.safe_load(file.read_text()) for file in (ROOT / "configs" / "model").glob("*.yaml")]
    assert {config.get("id") or config["name"] for config in configs} == licences.BASES.keys()
    for base, licence in licences.BASES.items():
        assert licence.identifier != "other" or (licence.name and base in licence.link), base


def blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.S)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_svd(tmp_path_factory.mktemp("base"))


def pipeline(base: Path) -> StableVideoDiffusionPipeline:
    pipe = load_tiny_svd(base).pipeline()
    assert type(pipe) is StableVideoDiffusionPipeline
    return pipe


@torch.no_grad()
def output(pipe: StableVideoDiffusionPipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, FRAMES, 8, SIZE // 2, SIZE // 2, generator=generator)
    picture = torch.randn(1, 1, 32, generator=generator)
    return pipe.unet(latents, torch.tensor(1.0), picture, torch.tensor([[6.0, 127.0, 0.02]])).sample


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A file in diffusers' format, of rank 3 on the spatial half and 5 on the temporal one, and what it makes of the UNet."""
    pipe = pipeline(base)
    torch.manual_seed(0)
    pattern = r".*transformer_blocks\.\d+\.attn[12]\.to_([qkv]|out\.0)"
    ranks = {r".*temporal_transformer_blocks\..*": 5}
    config = LoraConfig(r=3, lora_alpha=3, target_modules=pattern, rank_pattern=ranks, alpha_pattern=ranks)
    inject_adapter_in_model(config, pipe.unet)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    weights = {f"unet.{name}": tensor for name, tensor in get_peft_model_state_dict(pipe.unet).items()}
    path = tmp_path_factory.mktemp("trained") / "ink.safetensors"
    save_file(weights, path)
    assert {len(tensor) for name, tensor in weights.items() if "lora_A" in name} == {3, 5}
    return path, output(pipe)


def load_by_the_card(pipe: StableVideoDiffusionPipeline, file: Path) -> None:
    block = blocks(model_card.model_card(FACTS))[2]
    assert len(block.splitlines()) <= 10
    assert "svdtrain" not in block
    exec(block.replace('"ink.safetensors"', repr(str(file))), {"pipe": pipe})


def test_the_cards_loader_gives_the_trained_network_bit_for_bit(base: Path, trained: tuple[Path, torch.Tensor]) -> None:
    pipe = pipeline(base)
    without = output(pipe)
    load_by_the_card(pipe, trained[0])
    assert torch.equal(output(pipe), trained[1])
    assert not torch.equal(without, trained[1])


def extra(weights: dict[str, torch.Tensor]) -> None:
    weights["unet.no.such.module.lora_A.weight"] = torch.zeros(3, 8)


def alpha(weights: dict[str, torch.Tensor]) -> None:
    weights[next(iter(weights)).replace(".lora_A.weight", ".alpha")] = torch.tensor(1.0)


def foreign(weights: dict[str, torch.Tensor]) -> None:
    for name in list(weights):
        weights[name.replace("unet.", "diffusion_model.")] = weights.pop(name)


def missing_b(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(name for name in weights if "lora_B" in name)]


def missing_a(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(name for name in weights if "lora_A" in name)]


@pytest.mark.parametrize("change", [extra, alpha, foreign, missing_a, missing_b])
def test_the_cards_loader_refuses_what_does_not_fit(
    change: Callable[[dict[str, torch.Tensor]], None], base: Path, trained: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    weights = load_file(trained[0])
    change(weights)
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises((AssertionError, ValueError)):
        load_by_the_card(pipeline(base), tmp_path / "bad.safetensors")
