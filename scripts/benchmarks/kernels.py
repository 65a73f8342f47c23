"""Single kernels by which a step stands or falls: the rate of matrix products, attention, and convolutions in their forms."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from scripts.benchmarks.timing import Clock, first_line
from svdtrain.acceleration.attention import PRIORITY

ROUNDS = 10


def matrix_rate(device: str, dtype: torch.dtype, size: int) -> dict[str, Any]:
    """TFLOP/s of a square product of random numbers."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    spent = _median(device, lambda: left @ right)
    return {"size": size, "ms": spent, "tflops": 2e-9 * size**3 / spent}


def attention(device: str, dtype: torch.dtype, tiny: bool) -> dict[str, Any]:
    """Forward and backward by each kernel: one frame's pixels as tokens, and one pixel's frames."""
    shapes = {"spatial 14x5x9216x64": (14, 5, 9216, 64), "spatial 14x5x1024x64": (14, 5, 1024, 64)}
    shapes["temporal 9216x5x14x64"] = (9216, 5, 14, 64)
    shapes = {"spatial 2x2x64x16": (2, 2, 64, 16)} if tiny else shapes
    return {
        title: {name: _tried(lambda shape=shape, name=name: _attend(device, dtype, shape, name)) for name in PRIORITY}
        for title, shape in shapes.items()
    }


def _attend(device: str, dtype: torch.dtype, shape: tuple[int, ...], kernel: str) -> dict[str, float]:
    query, key, value = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    if kernel == "math" and shape[2] > 4096:
        return {}
    with sdpa_kernel(PRIORITY[kernel]):
        ahead = _median(device, lambda: functional.scaled_dot_product_attention(query, key, value))
        answer = functional.scaled_dot_product_attention(query, key, value)
        gradient = torch.randn_like(answer)
        back = _median(device, lambda: torch.autograd.grad(answer, (query, key, value), gradient, retain_graph=True))
    return {"forward_ms": ahead, "backward_ms": back}


def convolutions(device: str, dtype: torch.dtype, tiny: bool) -> dict[str, Any]:
    """Over frames alone as 3-D and as 2-D, and over pixels; in both layouts of memory. Forward, and the input's gradient."""
    frames, channels, height, width = (2, 8, 8, 8) if tiny else (14, 320, 72, 128)
    clip_BCTHW = torch.randn(1, channels, frames, height, width, device=device, dtype=dtype, requires_grad=True)
    kernel = 0.02 * torch.randn(channels, channels, 3, 1, 1, device=device, dtype=dtype)
    frames_NCHW = torch.randn(frames, channels, height, width, device=device, dtype=dtype, requires_grad=True)
    square = 0.02 * torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    flat = clip_BCTHW.detach().flatten(-2).requires_grad_()
    last, last_3d = torch.channels_last, torch.channels_last_3d
    forms: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "frames as conv3d": lambda: (functional.conv3d(clip_BCTHW, kernel, padding=(1, 0, 0)), clip_BCTHW),
        "frames as conv2d": lambda: (functional.conv2d(flat, kernel.squeeze(-1), padding=(1, 0)), flat),
        "frames as conv3d, channels last": _laid_out(clip_BCTHW, kernel, last_3d, (1, 0, 0)),
        "frames as conv2d, channels last": _laid_out(flat, kernel.squeeze(-1), last, (1, 0)),
        "pixels as conv2d": lambda: (functional.conv2d(frames_NCHW, square, padding=1), frames_NCHW),
        "pixels as conv2d, channels last": _laid_out(frames_NCHW, square, last, (1, 1)),
    }
    return {name: _tried(lambda form=form: _convolve(device, form)) for name, form in forms.items()}


def _laid_out(
    pixels: Tensor, kernel: Tensor, layout: torch.memory_format, padding: tuple[int, ...]
) -> Callable[[], tuple[Tensor, Tensor]]:
    pixels = pixels.detach().contiguous(memory_format=layout).requires_grad_()
    kernel = kernel.contiguous(memory_format=layout)
    convolve: Any = functional.conv3d if kernel.dim() == 5 else functional.conv2d
    return lambda: (convolve(pixels, kernel, padding=padding), pixels)


def _convolve(device: str, form: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, float]:
    ahead = _median(device, form)
    answer, pixels = form()
    gradient = torch.randn_like(answer)
    back = _median(device, lambda: torch.autograd.grad(answer, pixels, gradient, retain_graph=True))
    return {"forward_ms": ahead, "backward_ms": back}


def _median(device: str, work: Callable[[], Any]) -> float:
    """Of calls that are queued together on a GPU, so that the host's time is not in it."""
    clock = Clock(device)
    for _ in range(3):
        work()
    if device != "cuda":
        return statistics.median(clock(work)[0] for _ in range(3))
    return statistics.median(clock(lambda: [work() for _ in range(ROUNDS)])[0] / ROUNDS for _ in range(3))


def _tried(measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
    try:
        return measure()
    except RuntimeError as error:
        return {"failed": first_line(error)}


KERNELS: dict[str, Callable[[str, torch.dtype, bool], dict[str, Any]]] = {
    "attention": attention,
    "convolutions": convolutions,
}
