"""The schemas of `export` and of the tools of `python -m svdtrain adapter`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from svdtrain.config.fields import Positive, Private, Strict
from svdtrain.config.strengths import StrengthSetting

Format = Literal["diffusers", "comfyui", "peft", "kohya", "motion_lora"]
Dtype = Literal["fp32", "fp16", "bf16"]
Metadata = Literal["minimal", "full", "none"]
Keep = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Rank = Annotated[int, Field(ge=1, le=4096)]


class Told(Strict):
    """A schema whose fields' meanings --help shows."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Tool(Told):
    """What the tools have in common."""

    comma_lists: ClassVar = ("for", "files", "blocks")
    """Keys whose A,B is a list: nobody sweeps over them."""
    texts: ClassVar = ("base", "file", "out", "svg", "tuned", "pattern")
    """Keys whose values are taken letter by letter, whatever they mean in Hydra's grammar."""

    base: str | None
    """The model that the adapter is for: a diffusers folder, a Hub id in the cache (OWNER/NAME or OWNER/NAME@REVISION), nano.
    null: the published model whose modules have these names, without its weights."""


class WritingTool(Tool):
    """A tool that writes an adapter."""

    out: str
    """A .safetensors file; for to=peft a folder. Nothing is overwritten."""
    to: Format | None
    """null: the format of what it was made of; diffusers' where that is peft's, and out is one file. motion_lora holds the
    attention of motion modules alone."""
    dtype: Dtype | None
    """null: of what it was made of, where nothing is computed; else fp32."""
    metadata: Metadata
    """minimal: no path, caption, user or host name; full: all that is known; none: only what loading needs."""


class InfoConfig(Tool):
    """`adapter info`."""

    file: str
    """A run, a folder or a file."""
    svg: str | None
    """Also draw the changes, block by block."""


class CheckConfig(Tool):
    """`adapter check`."""

    file: str
    """A run, a folder or a file, also one made elsewhere."""
    programs: Annotated[list[Format], Field(min_length=1)] | None = Field(alias="for")
    """All of these must read it whole; null: one must."""
    sample: bool | None
    """Load the file into a fresh pipeline as each program does, and compare what it makes; null: where base is given."""


class ConvertConfig(WritingTool):
    """`adapter convert`."""

    file: str
    """A run, a folder or a file."""


class MergeConfig(WritingTool):
    """`adapter merge`."""

    files: Annotated[list[str], Field(min_length=1)]
    """FILE:WEIGHT, FILE:SPATIAL/TEMPORAL for one of each half, or FILE for a weight of 1."""
    method: Annotated[str, Field(pattern=r"^(cat|linear|svd|ties|dare)$")]
    """cat: exact, ranks add up; linear: adds factors; svd: the exact sum, cut to a rank; ties, dare: peft's."""
    rank: Rank | None
    """null: the highest that goes in."""
    density: Keep
    """ties, dare: the share of numbers that is kept."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """dare: of the numbers that are dropped."""


class SliceConfig(WritingTool):
    """`adapter slice`."""

    file: str
    """A run, a folder or a file."""
    half: Literal["spatial", "temporal"] | None
    """temporal: the motion; spatial: the look."""
    blocks: Annotated[list[str], Field(min_length=1)] | None
    """Modules under these: down_blocks.1, mid_block, up_blocks."""
    pattern: str | None
    """A regular expression over full module names."""


class ResizeConfig(WritingTool):
    """`adapter resize`."""

    file: str
    """A run, a folder or a file."""
    rank: Rank | None
    """At most this."""
    keep: Keep | None
    """The share of each change's energy (squared singular values) that is kept at least."""


class ExtractConfig(WritingTool):
    """`adapter extract`."""

    tuned: str
    """A run of adapter=full, or a diffusers folder."""
    rank: Rank | None
    """At most this; 32 where keep is null, too."""
    keep: Keep | None
    """The share of each change's energy (squared singular values) that is kept at least."""
    pattern: str
    """A regular expression over full module names: what is looked at."""


class ToLoraConfig(ResizeConfig):
    """`adapter to-lora`; keep=0.999 where neither rank nor keep is set."""


class AverageConfig(WritingTool):
    """`adapter average`."""

    files: Annotated[list[str], Field(min_length=1)]
    """Oldest first; or one run with trainer.keep_adapters=true."""
    decay: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    """Each weighs this many times as much as the one after it."""


class DiffConfig(Tool):
    """`adapter diff`."""

    files: Annotated[list[str], Field(min_length=2, max_length=2)]
    """Two runs, folders or files."""


class ExportSettings(Told, Private):
    """`python -m svdtrain export`, without its model."""

    comma_lists: ClassVar = ("to",)
    texts: ClassVar = ("adapter", "out", "trigger", "consent")

    adapter: str
    """A run folder or an adapter file."""
    to: Annotated[list[Format | Literal["merged"]], Field(min_length=1)]
    """One or several; motion_lora: the attention of motion modules alone; merged: a whole diffusers pipeline, the adapter in
    its weights."""
    dtype: Dtype
    """Of the weights that are written; fp16 keeps 11 bits and is as small as bf16, which keeps 8 and has more range."""
    out: str | None
    """A folder; null: RUN/export."""
    title: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None
    """Names the files; null: the recipe's name."""
    metadata: Metadata
    """minimal: no path, caption, user or host name; full: all that is known; none: only what loading needs."""
    card: bool
    """Also write README.md, a model card for the Hub."""
    trigger: str | None
    """The word that calls it up, for the card of a model that reads text."""
    consent: str | None
    """Whose clips these are and why they may be used, for the card."""
    strength: StrengthSetting
    """Of a merged adapter, 0.8/0.5 for its spatial and temporal half; also what is proved."""
    verify: bool
    """Load each file as its program does, sample, and compare with the adapter in memory."""
    steps: Positive
    """Of that sample."""
    device: Literal["auto", "cpu", "cuda"]
    """Of the proof."""
