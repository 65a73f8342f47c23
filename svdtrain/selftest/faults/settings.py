"""Rows 18 to 27: wrong settings, base models that are not whole, and runs that would go on as something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from svdtrain.selftest.faults.place import Place, fit
from svdtrain.selftest.faults.row import Fault, Run, Runs

if TYPE_CHECKING:
    from collections.abc import Callable

UNET = "unet/diffusion_pytorch_model.safetensors"


def refused(*words: tuple[str, str]) -> Callable[[Place], Runs]:
    """A row of words that are refused before anything is read, each with what is said of it."""

    def runs(_: Place) -> Runs:
        for word, said in words:
            yield Run(fit(*word.split()), 2, (said,))

    return runs


typo = refused(
    ("trainer.max_step=3", "trainer.max_step: no such key; did you mean 'trainer.max_steps'?"),
    ("optimiser.learning_rate=1e-3", "did you mean 'optimizer.learning_rate'?"),
    ("config=stile_lora", "did you mean 'style_lora'?"),
)
wrong_type = refused(
    ("trainer.max_steps=many", "trainer.max_steps: 'many' is not allowed; wanted a whole number"),
    ("optimizer.betas=0.9", "optimizer.betas: 0.9 is not allowed"),
    ("adapter.targets=[spatial]", "adapter.targets: "),
)
impossible = refused(
    ("optimizer.learning_rate=-1", "optimizer.learning_rate: -1 is not allowed; wanted "),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate: nan is not allowed; wanted "),
    ("trainer.max_steps=-5", "trainer.max_steps: -5 is not allowed; wanted "),
    ("adapter.rank=0", "adapter.rank: 0 is not allowed; wanted "),
    ("model.frames=1", "model.frames: 1 is not allowed; wanted "),
    ("model.height=65", "model.height: 65 is not a multiple of 16"),
)
added = refused(("+foo=1", "foo: no such key"), ("+trainer.max_steps=3", "keys cannot be added"))
contradiction = refused(
    ("trainer.max_steps=5 optimizer.warmup_steps=50", "optimizer.warmup_steps: 50 leaves no step"),
    ("trainer.precision=16-mixed", "trainer.precision: 16-mixed needs a GPU, and trainer.device is cpu"),
    ("data.order=stream data.cache=disk", "data.cache: wants every clip listed, and data.order is stream"),
    ("model.noise_levels.minimum=700", "model.noise_levels.minimum: 700 is not below "),
)


def _base_model(place: Place) -> Runs:
    place.copy("prepared")
    yield Run(fit("model.source=nothing"), 4, ("model.source=nothing: there is no such folder",))
    revision = "0" * 40
    unfetched = fit("model=svd_xt", f"model.revision={revision}", "model.height=64", "model.width=64")
    yield Run(unfetched, 4, (f"{revision} is not in the Hub cache",))
    weights = place.copy("model") / UNET
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    yield Run(fit("model.source=model"), 4, ("model: 'unet' cannot be loaded",))
    weights.unlink()
    yield Run(fit("model.source=model"), 4, ("model: 'unet' cannot be loaded",))
    places = {"conv_in.weight": "part-00001-of-00002.safetensors", "conv_in.bias": "part-00002-of-00002.safetensors"}
    index = weights.with_name(f"{weights.name}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    yield Run(fit("model.source=model"), 4, ("model: 'unet' cannot be loaded",))
    index.unlink()
    weights.write_bytes(content)
    (place.folder / "model/model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    yield Run(fit("model.source=model"), 4, ("model", "WanPipeline"))


def _changed_settings(place: Place) -> Runs:
    place.copy("prepared")
    place.copy("run")
    more = ("resume=run", "trainer.max_steps=3")
    faster = fit(*more, "optimizer.learning_rate=1e-4")
    yield Run(faster, 2, ("the run cannot go on: ", "learning_rate was ", "now it is "))
    harmless = fit(*more, "trainer.log_every=2", "trainer.save_every=3")
    yield Run(harmless, 0, ("step 3/3",), ("run/*",))
    allowed = fit(
        "resume=run", "trainer.max_steps=4", "optimizer.learning_rate=1e-4", "change=[optimizer.learning_rate]"
    )
    yield Run(allowed, 0, ("step 4/4",), ("run/*",))


def _other_batch(place: Place) -> Runs:
    place.copy("prepared")
    place.copy("run")
    more = ("resume=run", "trainer.max_steps=3")
    yield Run(fit(*more, "data.batch_size=2"), 3, ("data.batch_size x devices was 1, now it is 2",))
    yield Run(fit(*more, "trainer.devices=2"), 3, ("data.batch_size x devices was 1, now it is 2",), seconds=120)


def _no_module(place: Place) -> Runs:
    place.copy("prepared")
    yield Run(fit("adapter.pattern=.*attn7.*"), 4, ("adapter.pattern=.*attn7.*: matches 0 of ",))
    yield Run(fit("adapter.blocks=[down_blocks.9]"), 4, ("adapter.blocks: no block 'down_blocks.9'",))


def _taken_folder(place: Place) -> Runs:
    place.copy("prepared")
    place.copy("run")
    yield Run(fit("run_dir=run"), 2, ("resume=run: the run is complete at step 2",))
    place.write("mine/notes.txt", "mine")
    yield Run(fit("run_dir=mine"), 2, ("run_dir=mine: the folder is not empty",))


ROWS = (
    Fault(18, "a key with a typing error", typo),
    Fault(19, "a value of the wrong type", wrong_type),
    Fault(20, "an impossible value", impossible),
    Fault(21, "a key that is added", added),
    Fault(22, "settings that contradict each other", contradiction),
    Fault(23, "a base model that is missing, cut or another's", _base_model),
    Fault(24, "a resume with other settings", _changed_settings),
    Fault(25, "a resume on another number of clips a step", _other_batch),
    Fault(26, "a pattern that matches no module", _no_module),
    Fault(27, "a run folder that is taken", _taken_folder),
)
