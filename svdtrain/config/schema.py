"""The schema of every command's config. Hydra composes YAML; these models check it: an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from svdtrain.config.fields import Beta, Level, NoiseLevels, Part, Positive, Private, Rate, Share, Strict
from svdtrain.config.resources import MemoryConfig, SpeedConfig
from svdtrain.config.toolbox import ExportSettings
from svdtrain.config.training import TrainerConfig, ValidationConfig


class ModelConfig(Strict):
    """One checkpoint of a family, its geometry, and how much training it wants."""

    name: str
    family: str
    id: str | None
    """Hub id; null: the package carries the weights."""
    revision: str | None
    """Commit (40 hex digits) of the Hub id."""
    source: str | None = None
    """A local diffusers folder instead of the Hub id."""
    variant: str | None = None
    """Weight file variant, for example fp16."""
    motion_adapter: str | None = None
    """For picture models that are to move: a folder, or a Hub id and its commit as ID@COMMIT."""
    licence: str
    frames: Annotated[int, Field(ge=2, le=512)]
    height: Annotated[int, Field(ge=16, le=8192)]
    width: Annotated[int, Field(ge=16, le=8192)]
    size_multiple: Positive = 64
    """What heights and widths are multiples of: how much the VAE and the denoiser shrink them."""
    frame_multiple: Positive = 1
    """Of frames after the first: with 4, there are 4k + 1 of them."""
    fixed_size: bool = False
    """The checkpoint knows this height and width alone."""
    fps: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)]
    data_fps: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)] | None = None
    """The rate at which frames of training clips are taken; null: each clip's own. data.fps refers to it."""
    motion_bucket_id: Annotated[int, Field(ge=0, le=255)] = 127
    """Of samples."""
    data_motion_bucket: Literal["clip"] | Annotated[int, Field(ge=0, le=255)] = "clip"
    """What training clips are said to have; clip: what the dataset says of each. data.motion_bucket refers to it. Stable Video
    Diffusion's own ids are of a measure that was not published: one for all clips leaves their meaning alone."""
    guidance: Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)] = 3.0
    """Of samples; where it rises from frame to frame, at the last."""
    noise_levels: NoiseLevels
    """Of training, for families of continuous levels; others draw the steps of their checkpoint's schedule."""
    offset_noise: Share = 0.0
    """Noise that is one number for all pixels of a clip's channel, added in training."""
    condition_noise: NoiseLevels = NoiseLevels(mean=-3.0, std=0.5, minimum=1e-6, maximum=10.0)
    """Noise added to the condition image, in pixel units of [-1, 1]."""
    image_dropout: Share = 0.0
    """Of clips, whose picture (where the model also has its latent: its embedding) is dropped, besides condition dropout."""
    halves: Literal[1, 2] = 2
    """Of its attention: over space and over time apart, or one over both, which adapter.spatial is about."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Of adapters of this model; adapter.rank refers to it."""
    learning_rate: Rate
    """What an adapter of that rank wants; recipes and optimizers refer to it."""
    max_steps: Positive
    """What a small adapter wants; recipes refer to it."""
    batch_size: Positive
    validate_every: Positive
    validation_clips: Positive = 6
    preview_every: Positive = 1000
    previews: Annotated[int, Field(ge=0)] = 1
    """Inputs that sample videos are made of; validation.… refers to these four."""
    sampling_steps: Positive = 25


class SourceConfig(Strict):
    """One of several datasets that are mixed."""

    source: str | Annotated[list[str], Field(min_length=1)]
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    """Its share of the clips, relative to the others'; each source keeps its own epochs."""


class DataConfig(Strict):
    """Where clips come from and how they become tensors."""

    source: str | list[str] | list[SourceConfig] | None
    """A dataset folder, a shard, an http(s), s3, gs or hf address, or demo:NAME for a packaged set; a list of them; or
    [{source: …, weight: …}, …] to mix several."""
    fps: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)] | None
    """Frames are taken at this rate; null: at each clip's own."""
    motion_bucket: Literal["clip"] | Annotated[int, Field(ge=0, le=255)]
    """A number for every clip, or `clip`: what the clip's metadata says (127 when it says nothing)."""
    batch_size: Positive
    workers: Annotated[int, Field(ge=0, le=256)]
    horizontal_flip: bool
    trigger: str = ""
    """A word put before every caption, for models that read text; clips without a caption then have it alone."""
    cache: Literal["auto", "disk", "memory", "none"]
    """disk: encodings come from where `cache` has put them; memory: what was encoded is kept, up to 2 GiB; auto: disk where
    there is one of these very settings, else memory; none: every clip is encoded each time."""
    cache_dir: str | None = None
    """Where that is; null: a folder of ~/.cache/svdtrain/latents, named by the model and the source."""
    cache_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Of the encodings on disk."""
    windows: Positive | None = None
    """Places in a clip where its window may start, evenly spread; null: wherever it fits. A cache on disk holds them all."""
    buckets: bool = False
    """Each clip at the size and length that prepare assigned, one bucket to a batch; false: all at the model's."""
    stills: bool = False
    """Pictures are clips of one frame, in batches of their own; false: they are left out."""
    order: Literal["exact", "stream"] = "exact"
    """exact: every clip is listed first, and the order is a pure function of the seed; stream: shards are read as they come,
    which starts at once with any number of unindexed shards, and cannot be resumed exactly."""
    shuffle_shards: Positive = 16
    """Clips are shuffled within so many shards at a time: memory and disk hold no more of them."""
    on_bad_sample: Literal["fail", "skip"] = "fail"
    """skip: another clip stands in, and RUN/bad_samples.jsonl says why."""
    max_bad_fraction: Share = 0.01
    """Of a rank's samples: more bad ones (ten or more) end the run."""
    verify: Literal["size", "full"] = "size"
    """Shards that a manifest lists are compared with it at the start: by size, or by sha256, which reads them all."""
    allow_change: bool = False
    """Resume although the dataset is another."""
    shard_cache: str = "~/.cache/svdtrain/shards"
    """Where shards of other machines are kept, shared by all processes of a node."""
    shard_cache_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50
    """What it may hold; shards not used for longest are removed first."""
    decode_deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 30
    """Seconds for one clip that prepare has not verified: it is decoded in a process of its own. null: without either."""


class HalfConfig(Strict):
    """The adapter's settings for one half of the network."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
    learning_rate: Rate


class AdapterConfig(Strict):
    """What is trained: an adapter over chosen modules, or (kind: full) every weight of the denoiser."""

    kind: Literal["lora", "rslora", "dora", "loha", "lokr", "full"]
    """rslora: alpha / sqrt(rank) as scale, for high ranks; dora: magnitude apart from direction; loha, lokr: Hadamard and
    Kronecker products. What each can be exported to: docs/reference/adapter-files.md."""
    targets: Literal["spatial", "temporal", "both"]
    modules: Literal["attention", "attention_and_feed_forward"]
    pattern: str | None = None
    """A regular expression over full module names, instead of targets and modules. `adapter targets` lists what matches."""
    blocks: Annotated[list[str], Field(min_length=1)] | None = None
    """Only modules under these: down_blocks.1, mid_block, up_blocks."""
    factor: Annotated[int, Field(ge=2, le=1024)] | Literal[-1] = -1
    """lokr: the size of the first Kronecker factor; -1: both about as large."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Both halves' rank unless a half states its own: what is trained is spatial.rank and temporal.rank."""
    spatial: HalfConfig
    temporal: HalfConfig


class OptimizerConfig(Strict):
    """AdamW and its schedule."""

    learning_rate: Rate
    betas: tuple[Beta, Beta]
    weight_decay: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    warmup_steps: Annotated[int, Field(ge=0)]
    schedule: Literal["constant", "cosine"]
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] | None = None
    """LoRA+ (arXiv 2402.12354): lora_B learns so many times faster than lora_A; 4 to 16 is usual."""
    gradient_clip: Level | None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    """Also keep an exponential moving average of the trained weights; it is what is validated, sampled and saved."""


class LoggerConfig(Strict):
    """Where metrics go besides the run folder's metrics.jsonl."""

    kind: Literal["none", "csv", "wandb", "tensorboard", "trackio"]
    project: str
    media: Literal["none", "samples", "all"] = "samples"
    """Which videos a tracker gets. samples: generated ones alone; all: held-out clips and captions of the data, too."""
    patience: Annotated[float, Field(ge=1, le=86400, allow_inf_nan=False)] = 60
    """Seconds that the end of a run waits for a tracker which has not taken everything yet."""


class FitConfig(Private):
    """`python -m svdtrain fit`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    run_dir: str | None
    """null: runs/NAME/TIME."""
    resume: str | None
    """A run folder to go on with, or `auto`: the newest run of this name."""
    supervise: Annotated[int, Field(ge=0, le=1000)] = 0
    """How often a run that died or stands still is started again from its last save; not where it failed by a mistake."""
    change: list[str] = []
    """Keys that may differ from the settings of the run that goes on: change=[optimizer.learning_rate]."""
    model: ModelConfig
    data: DataConfig
    adapter: AdapterConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    memory: MemoryConfig
    speed: SpeedConfig
    validation: ValidationConfig
    logger: LoggerConfig

    @property
    def autocast(self) -> bool:
        """Whether a step in half precision runs under torch's autocast: not where an adapter's layers do without."""
        return not (self.speed.fused_lora and self.adapter.kind in ("lora", "rslora"))


class CacheConfig(FitConfig):
    """`python -m svdtrain cache`: the settings of the fit that is to follow."""

    part: Part | None
    """i/n: only every n-th shard from the i-th on, for array jobs and several GPUs."""


class InspectConfig(Private):
    """`python -m svdtrain inspect`."""

    source: str
    """A dataset, a shard, demo:NAME, or a plain folder of videos."""
    out: str
    """The page: an html file."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Of the batch that is shown: fit with this seed begins with it."""
    model: ModelConfig
    """Whose pictures the batch is made for."""
    data: DataConfig
    """As in fit; data.source is source."""
    most_probed: Positive
    """Headers that are read where there is no index, spread over all."""
    most_decoded: Positive
    """Clips that are decoded, likewise; measured, too, where no index has scores."""
    most_shown: Annotated[int, Field(ge=0)]
    """Of these, how many are shown as samples."""
    duplicate_bits: Annotated[int, Field(ge=0, le=32)]
    """Clips look alike when each of three hashes of 64 bits differs by at most so many."""


class ExportConfig(ExportSettings):
    """`python -m svdtrain export`."""

    model: ModelConfig


class TargetsConfig(FitConfig):
    """`adapter targets`: the settings of a fit."""

    every: bool
    """Name every module, not only each block's count."""
