"""docs/results/speed_gpu.md, from the results of gpu.sh: python -m scripts.benchmarks.write_gpu."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "results" / "speed_gpu.md"
HEAD = """# A step of Stable Video Diffusion on a GPU

The variants are those of [speed.md](speed.md), here on the published sizes, random weights in bf16, one clip a step unless a
title says otherwise. Each step is timed by the GPU's own events with nothing else in flight before and after it, so the host's
time to launch its kernels counts. Memory is the allocator's, as if the variant were alone: what stays (networks in the loop
too) and what the step makes. TFLOP/s: counted operations of matrix products, convolutions and attention, those that are
computed again included, over the time; in brackets as a share of the measured rate of a matrix product. Predicted: by
planning/memory.py without a GPU, of the denoiser's step alone; the error compares it with what was measured, less the networks
around the denoiser. Losses: the largest difference from the first variant's, step by step.
"""


def table(results: dict[str, Any], case: dict[str, Any]) -> str:
    """A case's variants."""
    foretold = {(row["case"], row["variant"]): row["peak"] for row in results.get("predictions") or ()}
    text = "| variant | ms a step | times ours | GiB | predicted, GiB | error | TFLOP/s | losses within |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    ours = case["rows"].get("ours", {}).get("median_ms")
    for name, row in case["rows"].items():
        if "median_ms" not in row:
            text += f"| {name} | {row.get('failed', 'not measured')} | | | | | | |\n"
            continue
        spent = row["median_ms"]
        times = f"{spent / ours:.2f}" if ours else ""
        rate = row["flops"] / spent / 1e9 if "flops" in row else 0.0
        work = f"{rate:.0f} ({rate / results['matrix']['tflops']:.0%})" if rate else ""
        peak = foretold.get((case["case"], name))
        off = f"{peak / (row['peak'] - row['beside']) - 1:+.1%}" if peak else ""
        known = f"{peak / 2**30:.2f}" if peak else ""
        text += f"| {name} | {spent:.0f} | {times} | {row['peak'] / 2**30:.2f} | {known} | {off} | {work} | "
        text += f"{row.get('gap', 0.0):.0e} |\n"
    return text


def kernels(results: dict[str, Any]) -> str:
    """Attention and convolutions, each in its forms."""
    text = "\n### Kernels, in ms\n\n| what | form | forward | backward |\n|---|---|---|---|\n"
    groups = dict(results.get("attention", {})) | {"convolution of 14x320x72x128": results.get("convolutions", {})}
    for title, forms in groups.items():
        for name, row in forms.items():
            if "forward_ms" in row:
                text += f"| {title} | {name} | {row['forward_ms']:.3f} | {row['backward_ms']:.3f} |\n"
    return text


def section(results: dict[str, Any]) -> str:
    """One run of gpu.sh."""
    versions = results["versions"]
    text = (
        f"\n## {results['machine']}, {results['date']}\n\n`{results['command']}` (by scripts/benchmarks/gpu.sh), torch "
    )
    text += (
        f"{versions['torch']}, cuDNN {versions['cudnn']}, diffusers {versions['diffusers']}, peft {versions['peft']}. "
    )
    text += f"A matrix product of {results['matrix']['size']} reaches {results['matrix']['tflops']:.0f} TFLOP/s."
    text += f" {results['note'][0].upper()}{results['note'][1:]}.\n" if results.get("note") else "\n"
    for case in results["cases"]:
        if "rows" in case:
            text += f"\n### {case['case']}\n\n" + table(results, case)
    return text + kernels(results)


def page() -> str:
    """All runs, oldest first."""
    return HEAD + "".join(section(json.loads(path.read_text())) for path in sorted(RESULTS.glob("20*.json")))


if __name__ == "__main__":
    PAGE.write_text(page())
