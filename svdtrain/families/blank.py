"""A tokenizer that knows no words: enough to tell how long a caption's tokens are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


class BlankTokenizer:
    """As many pieces as the tokenizer that it stands for, and as many tokens at most."""

    def __init__(self, words: int, model_max_length: int) -> None:
        self.words, self.model_max_length = words, model_max_length

    def __len__(self) -> int:
        return self.words

    def __call__(self, captions: Sequence[str] | str, *, max_length: int = 1, **_: Any) -> Any:  # noqa: ANN401
        """Zeros: of several captions as a tensor [B, L], of one as a list."""
        if isinstance(captions, str):
            return SimpleNamespace(input_ids=[0])
        return SimpleNamespace(input_ids=torch.zeros(len(captions), max_length, dtype=torch.long))
