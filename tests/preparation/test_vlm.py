"""Captions by a model: a tiny random one, saved in the format of the real ones and loaded as they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from svdtrain.foundation.errors import ModelError
from svdtrain.preparation.vlm import caption_clips

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:", "say", "what", "a", "red", "ball", "rolls"]
TEMPLATE = (
    "{% for turn in messages %}USER: {% for part in turn['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
PATCHES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlm")
    save_tiny_vlm(folder)
    return folder


def save_tiny_vlm(folder: Path) -> None:
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<image>"], **named)
    side = {"height": 28, "width": 28}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=side, crop_size=side, do_center_crop=False),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    small: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=16, **small)
    text = LlamaConfig(vocab_size=len(WORDS), num_key_value_heads=2, pad_token_id=0, **small)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=WORDS.index("<image>"), vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config)
    for weight in model.parameters():  # larger than trained ones begin with, so that the pictures matter
        torch.nn.init.normal_(weight, std=0.6)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def clip(seed: int, frames: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 40, 60, 3), np.uint8)


def test_every_clip_has_its_caption_and_greedy_captions_repeat(folder: Path) -> None:
    clips = [(f"clip-{seed}", clip(seed, frames)) for seed, frames in enumerate((1, 2, 9, 40))]
    first = list(caption_clips(str(folder), clips, "say what rolls"))
    assert [key for key, _ in first] == [key for key, _ in clips]
    assert all(caption and set(caption.split()) <= set(WORDS[5:]) | {"<unk>"} for _, caption in first), first
    assert not any("say what rolls ASSISTANT:" in caption for _, caption in first)
    assert list(caption_clips(str(folder), clips, "say what rolls")) == first


def test_the_pictures_and_the_prompt_reach_the_model(folder: Path) -> None:
    def captions(prompt: str) -> list[str]:
        return [text for _, text in caption_clips(str(folder), [(str(n), clip(n)) for n in range(3)], prompt)]

    assert len(set(captions("say what rolls"))) > 1
    assert captions("say what rolls") != captions("a red ball")


def test_clips_are_taken_one_at_a_time(folder: Path) -> None:
    taken: list[int] = []

    def clips() -> Any:  # noqa: ANN401
        for number in range(3):
            taken.append(number)
            yield str(number), clip(number)

    captions = caption_clips(str(folder), clips(), "say")
    next(captions)
    assert taken == [0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("absent", "cannot be loaded"),
        ("no config", "cannot be loaded"),
        ("text only", "cannot be loaded"),
        ("pickled weights", "cannot be loaded"),
    ],
)
def test_a_model_that_will_not_do_is_refused(wrong: str, said: str, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model"
    if wrong != "absent":
        shutil.copytree(folder, broken)
    if wrong == "no config":
        (broken / "config.json").unlink()
    if wrong == "text only":
        LlamaConfig().save_pretrained(broken)
    if wrong == "pickled weights":
        (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        next(caption_clips(str(broken), [("a", clip(0))], "say"))
    assert f"captions by {broken}: " in caught.value.message
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
