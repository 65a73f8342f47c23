"""What trackers are told of a real fit, read back from what they keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from svdtrain.commands import fit
from svdtrain.training.callbacks import guard
from svdtrain.training.module import FineTuning
from svdtrain.types import ClipBatch
from tests.tiny_runs import fit_config
from tests.training.wandb_file import Kept, read

ROOT = Path(__file__).parents[2]
EVERY_STEP = [
    "validation.every=1",
    "validation.sample_every=1",
    "validation.sample_inputs=1",
    "trainer.save_every=1",
    "trainer.keep_checkpoints=2",
    "trainer.on_nonfinite=skip",
]
SECRET, KEY = "hf_SecretOfAProjectName0", "0123abcd" * 5


@dataclass(frozen=True)
class Tracked:
    """A fit of three steps, the second of them skipped, and what W&B has of it; then it went on for a fourth, with
    logger.media=all."""

    run: Path
    kept: Kept
    resumed: Kept


def files_of(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def tracked(model: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    run = tmp_path_factory.mktemp("tracked") / "run"
    words = [*EVERY_STEP, "logger=wandb", "logger.patience=240", f"logger.project={SECRET}"]
    real = FineTuning.training_step

    def step(self: FineTuning, batch: ClipBatch, batch_idx: int) -> torch.Tensor:
        loss = real(self, batch, batch_idx)
        return loss * (float("nan") if self.global_step == 1 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setattr(FineTuning, "training_step", step)
        patch.setattr(guard, "ENOUGH", 0)
        patch.setattr(guard, "SPIKE", 0.5)  # every clip's loss is one
        patch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
        assert fit.run(fit_config(model, dataset, *words, "trainer.max_steps=3", f"run_dir={run}"), []) == 0
        words += ["logger.media=all", "trainer.max_steps=4", f"resume={run}"]
        assert fit.run(fit_config(model, dataset, *words), []) == 0
    first, second = files_of(run)
    return Tracked(run, read(first), read(second))


def test_the_config_is_whole_and_holds_no_secret(tracked: Tracked) -> None:
    config = tracked.kept.config
    assert config["adapter"]["spatial"]["rank"] == 2
    assert config["trainer"]["max_steps"] == 3
    for file in tracked.run.glob("wandb/**/*"):
        data = file.read_bytes() if file.is_file() else b""
        assert not any(secret.encode() in data for secret in (SECRET, KEY)), file


@pytest.mark.parametrize(
    "prefix",
    [
        "loss",
        "loss_sigma_below_",
        "share_sigma_below_",
        "val_sigma_0.5",
        "val_ratio",
        "val_ratio_10",
        "learning_rate_spatial",
        "learning_rate_temporal",
        "gradient_norm",
        "adapter_norm_spatial",
        "adapter_norm_temporal",
        "steps_per_second",
        "clips_per_second",
        "memory_resident_gib",
    ],
)
def test_its_numbers_are_there_over_steps(tracked: Tracked, prefix: str) -> None:
    rows = [row for row in tracked.kept.history if any(name.startswith(prefix) for name in row)]
    assert [row["trainer/global_step"] for row in rows][-1] == 3
    assert all(isinstance(value, float | int) for row in rows for name, value in row.items() if name.startswith(prefix))


def test_an_adapters_norms_grow_from_zero(tracked: Tracked) -> None:
    for half in ("spatial", "temporal"):
        norms = tracked.kept.values(f"adapter_norm_{half}")
        assert 0 < norms[0] < norms[-1]


def test_each_look_has_the_bases_video_beside_the_adapters(tracked: Tracked) -> None:
    looks = tracked.kept.values("samples/input-0")
    assert len(looks) == 3
    assert [look["captions"] for look in looks][-1] == ["base", "with adapter, step 3"]
    [folder] = {file.parent for file in files_of(tracked.run)[:1]}
    for look in looks:
        assert [(folder / "files" / one["path"]).read_bytes()[4:8] for one in look["videos"]] == [b"ftyp"] * 2


def test_the_table_compares_every_look(tracked: Tracked) -> None:
    for kept, size in ((tracked.kept, (3, 5)), (tracked.resumed, (4, 7))):
        [told] = kept.values("samples/table")
        assert (told["nrows"], told["ncols"]) == size
    [table] = [one for one in tracked.kept.artifacts if one.type == "run_table"]
    videos = [entry.path for entry in table.manifest.contents if entry.path.endswith(".mp4")]
    assert len(videos) == 3, "the base's and the adapter's, who at the skipped step is as before"
    [listed] = [entry for entry in table.manifest.contents if entry.path.endswith(".table.json")]
    rows = json.loads(Path(listed.local_path).read_text())
    assert rows["columns"] == ["step", "input", "base", "with adapter", "held-out ratio"]
    assert [row[0] for row in rows["data"]] == [1, 2, 3]
    assert all(isinstance(row[4], float) for row in rows["data"])


def test_each_save_is_a_version_of_the_model(tracked: Tracked) -> None:
    ratios = json.loads((tracked.run / "run.json").read_text())["validation_ratios"]
    best = None
    for kept, steps in ((tracked.kept, [1, 2, 3]), (tracked.resumed, [4])):
        models = [one for one in kept.artifacts if one.type == "model"]
        assert len(models) == len(steps)
        for one, step in zip(models, steps, strict=True):
            about = json.loads(one.metadata)
            assert (about["step"], about["held_out_loss_ratio"]) == (step, pytest.approx(ratios[str(step)]))
            assert len(about["base_fingerprint"]) > 8
            best = min(ratios[str(step)], best or 9.0)
            expected = {"latest", f"step-{step}"} | ({"best"} if ratios[str(step)] == best else set())
            assert set(one.aliases) == expected
            assert {entry.path for entry in one.manifest.contents} == {
                "adapter_model.safetensors",
                "adapter_config.json",
            }


def test_a_version_is_the_adapter_of_its_step_without_its_private_header(tracked: Tracked) -> None:
    *_, last = [one for one in tracked.resumed.artifacts if one.type == "model"]
    [weights] = [one.local_path for one in last.manifest.contents if one.path.endswith("safetensors")]
    with (
        safe_open(weights, "pt") as public,
        safe_open(tracked.run / "adapter" / "adapter_model.safetensors", "pt") as own,
    ):
        assert set(own.metadata()) - set(public.metadata()) == {"svdtrain.data_source", "svdtrain.source"}
        assert public.metadata()["svdtrain.steps"] == "4"
        assert all(torch.equal(public.get_tensor(name), own.get_tensor(name)) for name in own.keys())  # noqa: SIM118
    assert not list(tracked.run.glob(".tracked-*")), "copies are gone when they are told"


def test_the_run_uses_the_dataset_by_fingerprint_and_counts(tracked: Tracked) -> None:
    [data] = [one for one in tracked.kept.artifacts if one.type == "dataset"]
    assert data.use_after_commit, "what use_artifact of a new artifact writes"
    [file] = data.manifest.contents
    told = json.loads(Path(file.local_path).read_text())
    assert (told["train_clips"], told["held_out_clips"]) == (5, 2)
    assert told["fingerprint"] == json.loads((tracked.run / "run.json").read_text())["dataset"]["fingerprint"]
    assert set(told) == {"fingerprint", "train_clips", "held_out_clips", "shards", "bytes"}


def test_alerts_tell_of_nan_spike_and_end(tracked: Tracked) -> None:
    titles = [title for title, _ in tracked.kept.alerts]
    assert {"NaN", "spike", "end"} == set(titles)
    assert titles[-1] == "end"
    texts = dict(tracked.kept.alerts)
    assert texts["NaN"].startswith("step 1 is skipped")
    assert texts["end"].startswith("done at step 3: ")
    assert "the loss of a clip at step" in texts["spike"], "without the name of a file"


def test_a_resumed_run_goes_on_in_the_same_one(tracked: Tracked) -> None:
    assert tracked.kept.identity == tracked.resumed.identity
    assert json.loads((tracked.run / "run.json").read_text())["tracker_run"] == tracked.kept.identity
    assert tracked.resumed.values("trainer/global_step")[-1] == 4


def test_nothing_of_the_data_is_there_unless_it_is_asked_for(tracked: Tracked) -> None:
    """No clip's file, no frame of it as a picture, no caption and no name."""
    made = {path.read_bytes() for path in tracked.run.glob("samples/step-*/*.mp4")}
    [truth] = [path.read_bytes() for path in tracked.run.glob("samples/held-out/*.mp4")]
    for file, kept, asked in zip(files_of(tracked.run), (tracked.kept, tracked.resumed), (False, True), strict=True):
        media = [path for path in file.parent.glob("files/media/**/*") if path.is_file()]
        packed = [Path(entry.local_path) for one in kept.artifacts for entry in one.manifest.contents]
        data = {path.read_bytes() for path in [*media, *packed]}
        videos = {one for one in data if one[4:8] == b"ftyp"}
        assert (truth in videos, videos - made == {truth}) == (asked, asked)
        assert {path.suffix for path in media} == {".mp4", ".json"}
        assert not any(one.startswith((b"\x89PNG", b"\xff\xd8")) for one in data), "no picture"
        assert (b"clip-" in file.read_bytes()) == asked, "the alert of a spike names it"
