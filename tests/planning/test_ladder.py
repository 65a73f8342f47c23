"""`memory=auto` takes the fastest rung that is predicted to fit, and predicts each as a fit on that rung."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile

from svdtrain.acceleration.recompute import RUNGS, recompute
from svdtrain.commands import fit
from svdtrain.config.schema import FitConfig
from svdtrain.families.build import build_family
from svdtrain.foundation.errors import UsageError
from svdtrain.foundation.out_of_memory import shown_size
from svdtrain.planning.ladder import bytes_of, settle, with_rung
from svdtrain.planning.memory import measure_step
from svdtrain.planning.training_step import _batch, _loss, plain, predict_fit, predict_rungs
from svdtrain.reporting.run_record import RunRecord
from svdtrain.training.build import build_module
from tests.planning.settings import settings_of, tiny
from tests.tiny_models import save_tiny_svd
from tests.tiny_pipelines import save_tiny_cogvideox
from tests.tiny_runs import fit_config, save_tiny_dataset

AUTO = ["memory=auto", "data.cache=none"]


def test_a_cpu_without_a_budget_keeps_all_and_predicts_nothing(tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    rung = settle(settings_of("svd", tmp_path, *AUTO), never)
    assert rung
    assert (rung.name, rung.predicted) == ("none", None)
    assert settle(settings_of("svd", tmp_path, "memory=blocks"), never) is None


def test_the_first_rung_that_fits_is_taken_to_the_byte(tmp_path: Path) -> None:
    config = settings_of("svd", tmp_path, *AUTO)
    peaks = {name: predicted.peak for name, predicted in predict_rungs(config, build_module, RUNGS)}
    assert len(set(peaks.values())) > 2
    least = min(peaks.values())
    for room in (peaks["none"], peaks["none"] - 1, peaks["blocks"], least):
        rung = settle(within(config, room), build_module)
        assert rung
        assert rung.name == next(name for name in RUNGS if peaks[name] <= room)
        assert rung.predicted
        assert rung.predicted.peak == peaks[rung.name]
    with pytest.raises(UsageError, match="the least is"):
        settle(within(config, least - 1), build_module)


def test_of_a_base_in_parts_two_whole_blocks_are_here_at_a_time(tmp_path: Path) -> None:
    base = save_tiny_cogvideox(tmp_path / "cogvideox_2b", num_layers=8) / "transformer"
    weights = load_file(base / "diffusion_pytorch_model.safetensors")
    block = sum(tensor.nbytes for name, tensor in weights.items() if name.startswith("transformer_blocks.0."))
    whole = predict_fit(tiny("cogvideox_2b", tmp_path, "trainer.devices=2"), build_module)
    parts = predict_fit(tiny("cogvideox_2b", tmp_path, "trainer.devices=2", "memory.shard_base=true"), build_module)
    assert whole.weights - parts.weights == (8 // 2 - 2) * block, (
        "the other rank has four of eight, and two are fetched"
    )
    each = dict(
        predict_rungs(
            tiny("cogvideox_2b", tmp_path, "trainer.devices=2", "memory.shard_base=true"), build_module, RUNGS
        )
    )
    assert {predicted.weights for predicted in each.values()} == {parts.weights}


def within(config: FitConfig, room: int) -> FitConfig:
    budget = config.memory.model_copy(update={"budget": f"{room / 1e6:.6f}MB"})
    return config.model_copy(update={"memory": budget})


@pytest.mark.parametrize("rung", [name for name in RUNGS if name != "offload"])
def test_each_rung_is_predicted_as_a_fit_on_it(rung: str, tmp_path: Path) -> None:
    config = settings_of("svd", tmp_path, *AUTO)
    [(_, predicted)] = predict_rungs(config, build_module, [rung])
    assert predicted == predict_fit(with_rung(config, rung), build_module)


@pytest.mark.parametrize("rung", RUNGS)
def test_the_allocator_gives_out_what_each_rung_was_predicted(rung: str, tmp_path: Path) -> None:
    """Its own record of a real step, to 2 %; beside the tensors that were there before and stay."""
    config = settings_of("svd", tmp_path, *AUTO)
    family = build_family(config.model)
    build_module(plain(config), family)
    recompute(family.denoiser, rung, family.spec.repeated_blocks)
    others = [t for network in family.frozen().values() for t in (*network.parameters(), *network.buffers())]
    frozen = [t for t in (*family.denoiser.parameters(), *family.denoiser.buffers()) if not t.requires_grad]
    before = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in (*others, *frozen)}.values())
    size = (config.model.frames, config.model.height, config.model.width)
    gc.collect()  # else what other tests left is freed during the record
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        measure_step(family.denoiser, lambda: _loss(family, _batch(config, size), config), beside=others)
    kineto: Any = record.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    in_use = most = before
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        most = max(most, in_use)
    [(_, predicted)] = predict_rungs(config, build_module, [rung])
    assert predicted.peak == pytest.approx(most, rel=0.02)


def test_ranks_take_the_rung_of_the_one_with_the_least_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings_of("svd", tmp_path, *AUTO, "memory.budget=1GiB")
    rung, data = settle(config, build_module), SimpleNamespace(sizes=())
    assert rung
    for others, wanted in ((["none", "none"], "none"), (["none", "blocks", "feed_forward"], "blocks")):
        monkeypatch.setattr(fit, "of_all", lambda _, others=others: others)
        agreed = fit._agreed(rung, config, data)  # type: ignore[arg-type]
        assert agreed
        assert (agreed.name, "another rank" in agreed.why) == (wanted, wanted != "none")
    assert agreed.predicted == settle(with_rung(config, "blocks"), build_module).predicted  # type: ignore[union-attr]


def test_a_budget_that_no_rung_meets_names_the_least_and_a_mend(tmp_path: Path) -> None:
    config = settings_of("svd", tmp_path, *AUTO, "memory.budget=1MiB")
    with pytest.raises(UsageError) as raised:
        settle(config, build_module)
    message = raised.value.message
    assert re.fullmatch(
        r"memory=auto: no rung fits memory\.budget=1MiB; the least is \d+ MiB, by memory=(blocks|nested|offload)",
        message,
    )
    assert raised.value.hint


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [("24GiB", 24 * 2**30), ("1.5 GB", 1.5e9), ("300MiB", 300 * 2**20), ("7 MB", 7e6)],
)
def test_a_budget_is_bytes(budget: str, wanted: float) -> None:
    assert bytes_of(budget) == wanted


def test_a_fit_trains_on_the_rung_and_keeps_the_settings_as_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, dataset = save_tiny_svd(tmp_path / "model"), save_tiny_dataset(tmp_path / "dataset")
    words = ["memory=auto", "data.cache=none", f"run_dir={tmp_path}/run"]
    config = fit_config(model, dataset, *words)
    peaks = dict(predict_rungs(config, build_module, ["none", "feed_forward"]))
    room = (peaks["none"].peak + peaks["feed_forward"].peak) / 2
    fit.run(fit_config(model, dataset, *words, f"memory.budget={room / 2**20:.3f}MiB"), [])
    record = RunRecord.reopen(tmp_path / "run")
    assert record.fields["rung"] == "feed_forward"
    assert record.config()["memory"]["rung"] == "auto"
    said = capsys.readouterr().out
    assert "memory         feed_forward: predicted" in said
    peak = peaks["feed_forward"].peak
    times = {"step_seconds": None, "table_seconds": None}
    assert record.fields["plan"] == {"peak_bytes": peak, "model": "nano", **times}
    assert record.fields["speed"]["peak_bytes"] is None, "a CPU keeps no record of it"
    each = record.fields["speed"]["seconds_per_batch"]
    assert f"predicted      {shown_size(peaks['feed_forward'].peak)}; {each:.2f} s a batch\n" in said
