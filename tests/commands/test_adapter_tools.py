"""The toolbox as users call it: every tool on real files of the embedded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svdtrain.adapters.files import CONFIG, WEIGHTS, read_adapter
from svdtrain.adapters.targets import adaptable_weights, half_of
from svdtrain.cli import main
from tests.commands.adapters import NANO, save_world

FORMATS = ("diffusers", "comfyui", "peft", "kohya")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("tools"))


def call(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["adapter", *words])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, ""), shown.err
    return shown.out


def deltas(path: Path) -> dict[str, np.ndarray]:
    """Module -> change, read with the base's names."""
    return {
        module: layer.delta(NANO.weight(module)) for module, layer in read_adapter(path, NANO.layout).layers.items()
    }


def apart(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    assert first.keys() == second.keys()
    return max(float(np.abs(first[m] - second[m]).max()) for m in first)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("start", ["diffusers", "comfyui", "kohya"])
def test_convert_and_back_is_the_same_file(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str, to: str
) -> None:
    there = tmp_path / ("there" if to == "peft" else "there.safetensors")
    call(capsys, "convert", f"{world}/{start}.safetensors", f"to={to}", f"out={there}")
    call(capsys, "convert", str(there), f"to={start}", f"out={tmp_path}/{start}.safetensors")
    name = f"{start}.safetensors"
    assert (tmp_path / name).read_bytes() == (world / name).read_bytes()


def test_a_slice_is_half_of_the_bits(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = deltas(world / "comfyui.safetensors")
    for half in ("spatial", "temporal"):
        path = tmp_path / f"{half}.safetensors"
        call(capsys, "slice", f"{world}/comfyui.safetensors", f"half={half}", f"out={path}")
        assert apart(deltas(path), {m: d for m, d in whole.items() if half_of(m) == half}) == 0
    path = tmp_path / "up.safetensors"
    call(capsys, "slice", f"{world}/comfyui.safetensors", "blocks=mid_block,up_blocks", f"out={path}")
    assert set(deltas(path)) == {m for m in whole if m.startswith(("mid_block.", "up_blocks."))}
    assert read_adapter(path).info.made_by == "slice mid_block up_blocks"


def test_halves_merged_again_are_the_whole(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for half in ("spatial", "temporal"):
        call(capsys, "slice", f"{world}/diffusers.safetensors", f"half={half}", f"out={tmp_path}/{half}.safetensors")
    parts = [f"{tmp_path}/spatial.safetensors:1", f"{tmp_path}/temporal.safetensors"]
    call(capsys, "merge", *parts, f"out={tmp_path}/both.safetensors")
    assert apart(deltas(tmp_path / "both.safetensors"), deltas(world / "diffusers.safetensors")) == 0
    call(capsys, "merge", f"{tmp_path}/both.safetensors:0.5/-2", f"out={tmp_path}/apart.safetensors")
    by_half = {
        m: (-2 if half_of(m) == "temporal" else 0.5) * d for m, d in deltas(tmp_path / "both.safetensors").items()
    }
    assert apart(deltas(tmp_path / "apart.safetensors"), by_half) < 1e-6


@pytest.mark.parametrize("method", ["cat", "svd", "ties", "dare"])
def test_merge_tells_what_is_left_out(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    files = [f"{world}/diffusers.safetensors:0.8", f"{world}/second.safetensors:-0.5"]
    words = [] if method == "cat" else ["rank=3"]
    told = call(capsys, "merge", *files, f"method={method}", f"out={tmp_path}/m.safetensors", *words)
    first, second = deltas(world / "diffusers.safetensors"), deltas(world / "second.safetensors")
    if method == "cat":
        assert apart(deltas(tmp_path / "m.safetensors"), {m: 0.8 * first[m] - 0.5 * second[m] for m in first}) < 1e-6
    else:
        assert "left out: " in told
        assert {layer.rank for layer in read_adapter(tmp_path / "m.safetensors").layers.values()} == {3}


@pytest.mark.parametrize("name", ["dora", "loha", "lokr"])
def test_to_lora_tells_its_error(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    out = tmp_path / "lora.safetensors"
    told = call(capsys, "to-lora", f"{world}/{name}.safetensors", "base=nano", "keep=0.9999", f"out={out}")
    old, new = deltas(world / f"{name}.safetensors"), deltas(out)
    share = np.sqrt(sum(((old[m] - new[m]) ** 2).sum() for m in old) / sum((old[m] ** 2).sum() for m in old))
    assert f"left out: {share:.2%}" in told
    assert share < 0.0101
    assert read_adapter(out).info.kind == "lora"


def test_average_of_a_runs_saves(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "average", f"{world}/steps", "decay=0.5", f"out={tmp_path}/mean")
    saves = [read_adapter(world / "steps" / "adapters" / f"step-{step:06d}").layers for step in (20, 40, 60)]
    module = next(iter(saves[0]))
    made = read_adapter(tmp_path / "mean").layers[module]
    weights = (1 / 7, 2 / 7, 4 / 7)
    mean = sum(w * save[module].parts["lora_A.weight"] for w, save in zip(weights, saves, strict=True))
    assert made.parts["lora_A.weight"] == pytest.approx(mean, abs=1e-6)


def test_extract_finds_a_fine_tune(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from svdtrain.families.build import family_of_folder

    wanted = deltas(world / "diffusers.safetensors")
    tuned = family_of_folder(NANO.folder.parent).denoiser
    weights = adaptable_weights(tuned)
    for module, delta in wanted.items():
        weights[module].data += weights[module].new_tensor(delta)
    tuned.save_pretrained(tmp_path / "run" / "denoiser")  # type: ignore[operator]
    capsys.readouterr()
    told = call(capsys, "extract", f"{tmp_path}/run", "base=nano", "rank=4", f"out={tmp_path}/e.safetensors")
    assert apart(deltas(tmp_path / "e.safetensors"), wanted) < 1e-5
    assert "left out: 0.0" in told


def test_info_says_what_changes_where(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, "info", f"{world}/run", "base=nano", f"svg={tmp_path}/blocks.svg")
    assert "scale          2\n" in told
    assert "recipe         style_lora\n" in told
    changes = deltas(world / "diffusers.safetensors")
    row = next(line.split() for line in told.splitlines() if line.startswith("mid_block      temporal"))
    inside = [d for m, d in changes.items() if m.startswith("mid_block.") and half_of(m) == "temporal"]
    assert float(row[3]) == pytest.approx(np.sqrt(sum((d**2).sum() for d in inside)), rel=1e-3)
    drawn = (tmp_path / "blocks.svg").read_text()
    assert drawn.count("<rect") == 1 + 2 + len([line for line in told.splitlines() if "_block" in line[:14]])
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_diff_of_a_file_and_itself_is_nothing(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, "diff", f"{world}/diffusers.safetensors", f"{world}/comfyui.safetensors")
    assert told.splitlines()[-1].split()[-2:] == ["1.000", "0.0%"]
    told = call(capsys, "diff", f"{world}/diffusers.safetensors", f"{world}/second.safetensors")
    assert abs(float(told.splitlines()[-1].split()[-2])) < 0.5


def test_targets_lists_what_a_fit_would_adapt(capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, "targets", "config=style_lora", "model=svd_xt", "adapter.modules=attention", "adapter.rank=64")
    assert "192 of 574 modules, 19,668,992 trained parameters" in told  # design/svd_math.md 3.1: 19.669 M
    told = call(capsys, "targets", "config=style_lora", "adapter.pattern=.*mid_block.*to_q", "every=true")
    assert "mid_block.attentions.0.transformer_blocks.0.attn1.to_q\n" in told
    assert "4 of 165 modules" in told


def test_check_loads_and_samples_as_each_program_does(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, program in (("diffusers", "diffusers"), ("comfyui", "comfyui"), ("kohya", "kohya"), ("run", "peft")):
        file = world / ("run" if name == "run" else f"{name}.safetensors")
        told = call(capsys, "check", str(file), f"for={program}", "base=nano")
        assert "made for       nano: this base" in told
        assert f"\n{program:<14} differs from memory by" in told
        assert told.endswith("sound\n")


def test_tools_leave_no_private_words(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for metadata, private in (("minimal", False), ("full", True), ("none", False)):
        out = tmp_path / f"{metadata}.safetensors"
        call(capsys, "convert", f"{world}/run", "to=diffusers", f"out={out}", f"metadata={metadata}")
        assert (b"secret clips" in out.read_bytes()) == private
        assert (b"svdtrain." in out.read_bytes()) == (metadata != "none")
    assert (world / "run" / "adapter" / CONFIG).is_file()
    assert b"secret clips" in (world / "run" / "adapter" / WEIGHTS).read_bytes()
