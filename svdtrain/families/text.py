"""Captions through a frozen text encoder, as the stock pipelines read prompts: padded, or cut, to so many tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import torch

from svdtrain.families.frames import full_precision
from svdtrain.foundation.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

log = logging.getLogger(__name__)
MOST_TOLD = 5
"""Captions whose cut is told, of a run."""


@dataclass
class Texts:
    """A text encoder and its tokenizer."""

    encoder: Any
    tokenizer: Any
    length: int
    """Tokens that are read."""
    layers_left_out: int = 0
    """At the encoder's end; the last one's normalisation stays (the pipelines' clip_skip)."""
    _told: set[str] = field(default_factory=set[str])
    _empty_LD: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises ModelError for a tokenizer without its vocabulary, which would read every word as unknown."""
        words, wanted = len(self.tokenizer), self.encoder.config.vocab_size
        if words < 0.95 * wanted:
            message = f"the tokenizer has {words:,} pieces, and its text encoder {wanted:,}: its vocabulary is missing"
            raise ModelError(message, "fetch the whole folder 'tokenizer' (spiece.model, or vocab.json and merges.txt)")

    @property
    def empty_LD(self) -> Tensor:
        """The empty caption, which the sampler's unconditional half is told; it is not zeros. Encoded once."""
        if self._empty_LD is None:
            self._empty_LD = self.encode([""])[0]
        return self._empty_LD

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Tensor:
        """[B, L, D], in the encoder's precision."""
        ids_BL = self.tokenizer(
            list(captions), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).input_ids.to(self.encoder.device)
        with full_precision(self.encoder.device):
            if not self.layers_left_out:
                return self.encoder(ids_BL)[0]
            hidden_BLD = self.encoder(ids_BL, output_hidden_states=True).hidden_states[-1 - self.layers_left_out]
            return self.encoder.final_layer_norm(hidden_BLD)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """[B, L, D] in fp32; the cut of the first few captions that are too long is logged."""
        self.empty_LD  # noqa: B018  (made here, where the encoder is on its device)
        for caption in captions:
            if len(self._told) < MOST_TOLD and caption not in self._told and (end := self.unread(caption)):
                self._told.add(caption)
                log.warning("a caption has more than %d tokens; not read: '%s'", self.length, end)
        return self.encode(captions).float()

    def unread(self, caption: str) -> str:
        """The end of a caption that is cut off."""
        ids = self.tokenizer(caption).input_ids
        return self.tokenizer.decode(ids[self.length - 1 : -1]).strip() if len(ids) > self.length else ""


@dataclass(frozen=True)
class TextConditions:
    """The caption, and what stands in its place where it is dropped."""

    tokens_BLD: Tensor
    empty_LD: Tensor

    def dropped(self, drop_B: Tensor) -> Self:
        """The empty caption's tokens."""
        return replace(self, tokens_BLD=torch.where(drop_B[:, None, None], self.empty_LD, self.tokens_BLD))

    def without_image(self, drop_B: Tensor) -> Self:  # noqa: ARG002
        """There is none."""
        return self
