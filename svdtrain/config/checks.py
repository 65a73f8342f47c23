"""What no single field can say: settings that contradict each other, and settings that cannot take effect."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from svdtrain.config.evaluation import ChooseConfig, Compared, EvaluateConfig
from svdtrain.config.fields import listed
from svdtrain.config.generation import GenerateConfig
from svdtrain.config.preparation import PrepareConfig
from svdtrain.config.schema import CacheConfig, FitConfig, SourceConfig, TargetsConfig
from svdtrain.config.selftest import SelftestConfig
from svdtrain.config.sweeping import Range, SweepConfig
from svdtrain.config.toolbox import ExportSettings, MergeConfig
from svdtrain.foundation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pydantic import BaseModel

    from svdtrain.config.schema import DataConfig, ModelConfig, NoiseLevels


def refuse_contradictions(config: BaseModel) -> None:
    """Raise UsageError for the first contradiction between settings."""
    if isinstance(config, FitConfig):
        _check_model(config.model)
        _check_fit(config)
    if isinstance(config, CacheConfig) and config.data.order == "stream":
        raise UsageError("data.order: stream lists no clips, and cache encodes every one", "data.order=exact")
    if isinstance(config, SweepConfig):
        _check_space(config)
    if isinstance(config, GenerateConfig):
        _check_model(config.model)
        _check_generate(config)
    if isinstance(config, EvaluateConfig):
        _check_model(config.model)
        _check_evaluate(config)
    if isinstance(config, ChooseConfig):
        _check_model(config.model)
        _check_choose(config)
    if isinstance(config, PrepareConfig):
        _check_prepare(config)


def idle_settings(config: BaseModel, given: Collection[str]) -> list[str]:
    """One sentence for each key of `given` (those the user typed) that has no effect beside the other settings."""
    causes = _causes_fit(config) if isinstance(config, FitConfig) else []
    if isinstance(config, GenerateConfig):
        causes = _causes_generate(config)
    if isinstance(config, PrepareConfig):
        causes = _causes_prepare(config)
    if isinstance(config, ExportSettings) and "merged" not in config.to:
        causes = [("strength", "only to=merged holds a strength")]
    if isinstance(config, Compared):
        causes = _causes_compared(config)
    if isinstance(config, MergeConfig):
        causes = _causes_merge(config)
    if isinstance(config, SelftestConfig):
        names = ("rows", "jobs") if config.test == "kills" else ("kill", "steps", "seed", "ranks")
        causes = [(name, f"the test is {config.test}") for name in names]
    return [
        f"{key} has no effect: {cause}"
        for prefix, cause in causes
        for key in sorted(given)
        if key == prefix or key.startswith(prefix + ".")
    ]


def _check_model(model: ModelConfig) -> None:
    step, frames = model.size_multiple, model.frame_multiple
    if frames > 1 and model.frames % frames != 1:
        below = max(1, (model.frames - 1) // frames) * frames + 1
        near = f"{below} or {below + frames}"
        raise UsageError(f"model.frames: {model.frames} is not {frames}k + 1", f"model.frames={near}")
    for name, size in (("height", model.height), ("width", model.width)):
        if size % step:
            near = f"{max(size // step, 1) * step} or {(size // step + 1) * step}"
            raise UsageError(f"model.{name}: {size} is not a multiple of {step}", f"model.{name}={near}")
    _check_levels("model.noise_levels", model.noise_levels)
    _check_levels("model.condition_noise", model.condition_noise)


def _check_levels(key: str, levels: NoiseLevels) -> None:
    if levels.minimum >= levels.maximum:
        raise UsageError(f"{key}.minimum: {levels.minimum:g} is not below {key}.maximum ({levels.maximum:g})")


def _check_fit(config: FitConfig) -> None:
    if not config.data.source and not isinstance(config, TargetsConfig):
        own = f"the words it was begun with, before resume={config.resume}; its run.json has them as overrides"
        hint = own if config.resume else "data.source=FOLDER of shards, or a recipe: config=style_lora"
        raise UsageError("data.source: is not set", hint)
    _check_streaming(config.data, config.model)
    if config.trainer.requeue and not (config.run_dir or config.resume):
        raise UsageError("trainer.requeue: the job that is queued again would begin a new run", "run_dir=FOLDER")
    if config.trainer.nodes > 1 and config.privacy == "airgapped":
        raise UsageError("trainer.nodes: ranks of several machines meet, and privacy is airgapped", "trainer.nodes=1")
    if config.memory.shard_base:
        _check_sharding(config)
    for key, what in (("buckets", "clips of many sizes"), ("stills", "clips of one frame")):
        if config.model.fixed_size and getattr(config.data, key):
            only = f"{config.model.frames} frames of {config.model.height} x {config.model.width}"
            raise UsageError(f"data.{key}: {what}, and this model knows {only} alone", f"data.{key}=false")
    warmup, steps = config.optimizer.warmup_steps, config.trainer.max_steps
    if warmup >= steps:
        raise UsageError(
            f"optimizer.warmup_steps: {warmup} leaves no step at the full rate of trainer.max_steps={steps}",
            f"optimizer.warmup_steps={steps // 10}",
        )
    if config.optimizer.lora_plus_ratio and config.adapter.kind not in ("lora", "rslora", "dora"):
        seen = f"optimizer.lora_plus_ratio: is about lora_B, and adapter.kind={config.adapter.kind} has none"
        raise UsageError(seen, "optimizer.lora_plus_ratio=null")


def _check_space(config: SweepConfig) -> None:
    for key in ("run_dir", "resume"):
        if getattr(config, key):
            raise UsageError(f"{key}: each fit of a sweep has a folder of its own", "out=FOLDER, for all of them")
    for key, one in config.space.items():
        if isinstance(one, Range) and one.low >= one.high:
            raise UsageError(f"space: {key}: low={one.low:g} is not below high={one.high:g}")
        if isinstance(one, Range) and one.log and one.low <= 0:
            raise UsageError(f"space: {key}: log, and low={one.low:g} is not above 0")


def _check_sharding(config: FitConfig) -> None:
    """What a base in parts cannot do."""
    if config.trainer.devices == 1:
        raise UsageError(
            "memory.shard_base: a machine's only GPU keeps all of it", "trainer.devices=2, or leave it out"
        )
    if config.adapter.kind == "full":
        raise UsageError("memory.shard_base: nothing is frozen where adapter.kind is full", "adapter.kind=lora")
    if config.speed.mode != "eager":
        raise UsageError(f"memory.shard_base: blocks in parts are not for speed={config.speed.mode}", "speed=eager")


def _check_streaming(data: DataConfig, model: ModelConfig) -> None:
    """What wants a list of all clips."""
    if data.order == "exact":
        return
    mixed = isinstance(data.source, list) and any(isinstance(one, SourceConfig) for one in data.source)
    wants = {
        "buckets": data.buckets,
        "cache": data.cache in ("disk", "memory"),
        "source: weights": mixed,
        "stills": data.stills and model.frames > 1,
    }
    if broken := next((name for name, wanted in wants.items() if wanted), None):
        raise UsageError(f"data.{broken}: wants every clip listed, and data.order is stream", "data.order=exact")


def _check_generate(config: GenerateConfig) -> None:
    adapters = listed(config.adapter)
    if not adapters and not config.base_only:
        raise UsageError("adapter: is not set", "adapter=RUN_OR_FILE, or base_only=true for the model alone")
    if config.text_to_image and config.image:
        raise UsageError("text_to_image: image is given, too, and a first frame is either drawn or read", "image=null")
    if config.text_to_image and not config.prompt:
        raise UsageError("prompt: is not set, and text_to_image draws what it says", "prompt=TEXT")
    if not config.image and not config.prompt:
        hint = "image=PICTURE or a folder of them; prompt=TEXT for models that read text, or with text_to_image=FOLDER"
        raise UsageError("image: is not set", hint)
    if not config.base_only:
        _check_strengths("strength", listed(config.strength), len(adapters))
    if config.image_adapter:
        key, count = "image_adapter_strength", len(listed(config.image_adapter))
        _check_strengths(key, listed(config.image_adapter_strength), count)


def _check_evaluate(config: EvaluateConfig) -> None:
    if config.adapter and config.adapters:
        raise UsageError("adapters: adapter is given, too", "adapters=A,B for several")
    if not config.adapter and not config.adapters:
        raise UsageError("adapter: is not set", "adapter=RUN_OR_FILE, or adapters=A,B")
    for key in ("adapters", "strengths", "seeds", "metrics", "motion_buckets"):
        if len(values := getattr(config, key) or []) > len(set(values)):
            raise UsageError(f"{key}: one of them is named twice", f"name each of {key} once")
    if config.shard and int(config.shard.partition("/")[0]) >= (parts := int(config.shard.partition("/")[2])):
        raise UsageError(f"shard: {config.shard}: there is no such part", f"shard=0/{parts} to {parts - 1}/{parts}")


def _check_choose(config: ChooseConfig) -> None:
    for before, after in pairwise(config.strengths):
        if not before < after:
            raise UsageError(f"strengths: {after} after {before}, and they are wanted rising", "strengths=0,0.5,1")


def _check_strengths(key: str, strengths: Sequence[object], adapters: int) -> None:
    if len(strengths) not in (1, adapters):
        raise UsageError(f"{key}: {len(strengths)} numbers for {adapters} adapters", "one for each, or one for all")


def _check_prepare(config: PrepareConfig) -> None:
    if config.least_seconds > config.seconds:
        seen = f"least_seconds: {config.least_seconds:g} is more than seconds={config.seconds:g}: no clip would be left"
        raise UsageError(seen, f"least_seconds={config.seconds:g} or less")
    if config.captions == "vlm" and not config.model:
        raise UsageError("model: is not set, and captions=vlm asks one", "model=FOLDER or a Hub id, or captions=files")
    if config.executor == "ray" and config.privacy == "airgapped":
        raise UsageError("executor: ray speaks to a cluster, and privacy is airgapped", "executor=local")


def _causes_fit(config: FitConfig) -> list[tuple[str, str]]:
    adapter = config.adapter
    causes = _causes_model(config.model)
    if adapter.kind == "full":
        cause = "adapter.kind is full, which trains every weight"
        halves = [f"{half}.{name}" for half in ("spatial", "temporal") for name in ("rank", "alpha")]
        names = ["targets", "modules", "pattern", "blocks", "factor", "rank", *halves]
        causes += [(f"adapter.{name}", cause) for name in names]
    elif adapter.pattern is not None:
        causes += [(f"adapter.{name}", "adapter.pattern says which modules") for name in ("targets", "modules")]
        causes.append(("adapter.temporal", "with adapter.pattern the settings are those of adapter.spatial"))
    else:
        idle = {"spatial": "temporal", "temporal": "spatial"}.get(adapter.targets)
        if config.model.halves == 1:
            cause = f"the attention of {config.model.name} is over space and time at once; adapter.spatial is about all of it"
            causes += [("adapter.temporal", cause), ("adapter.targets", cause)]
        elif idle:
            causes.append((f"adapter.{idle}", f"adapter.targets is {adapter.targets}"))
    if adapter.kind != "lokr":
        causes.append(("adapter.factor", f"adapter.kind is {adapter.kind}"))
    if config.memory.rung != "auto":
        causes.append(("memory.budget", f"memory is {config.memory.rung}; memory=auto keeps to a budget"))
    if config.logger.kind in ("none", "csv"):
        cause = f"logger.kind is {config.logger.kind}"
        causes += [(f"logger.{name}", cause) for name in ("project", "media", "patience")]
    if config.logger.kind == "tensorboard":
        causes.append(("logger.project", "tensorboard knows no projects"))
    return causes


def _causes_generate(config: GenerateConfig) -> list[tuple[str, str]]:
    causes = _causes_model(config.model)
    if config.base_only:
        names = ("adapter", "strength", "spatial_strength", "temporal_strength")
        causes += [(name, "base_only is true") for name in names]
    if not config.text_to_image:
        names = ("text_to_image_steps", "text_to_image_guidance", "image_adapter", "image_adapter_strength")
        causes += [(name, "text_to_image is not set") for name in names]
    elif not config.image_adapter:
        causes += [("image_adapter_strength", "image_adapter is not set")]
    return causes


def _causes_compared(config: Compared) -> list[tuple[str, str]]:
    causes = _causes_model(config.model)
    if not config.inputs:
        names = ("seeds", "steps", "metrics", "motion_buckets", "copies_of")
        causes += [(name, "inputs is 0, which makes no videos") for name in names]
    return causes + ([] if config.generic else [("generic_clips", "generic is not set")])


def _causes_merge(config: MergeConfig) -> list[tuple[str, str]]:
    cause = f"method is {config.method}"
    causes = [("rank", cause)] if config.method in ("cat", "linear") else []
    causes += [("density", cause)] if config.method not in ("ties", "dare") else []
    return causes + ([("seed", cause)] if config.method != "dare" else [])


def _causes_prepare(config: PrepareConfig) -> list[tuple[str, str]]:
    causes = [("model", "captions is files"), ("prompt", "captions is files")] if config.captions == "files" else []
    causes += [("short_side", "a clip is shrunk as its bucket wants")] if config.buckets else []
    causes += [("replace", "find is empty")] if not config.find else []
    causes += [("ray_address", "executor is local")] if config.executor == "local" else []
    causes += [("workers", "the cluster has its own")] if config.ray_address else []
    idle = [] if config.buckets else ["most_upscale", "most_crop"]
    return causes + [(name, "there are no buckets") for name in idle]


def _causes_model(model: ModelConfig) -> list[tuple[str, str]]:
    if not model.source:
        return []
    return [(key, "model.source names a local folder") for key in ("model.id", "model.revision")]
