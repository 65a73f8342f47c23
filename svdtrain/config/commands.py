"""The command table: what there is to run, with which config and schema, in one sentence and a few examples."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class Command:
    """A row of the command table."""

    name: str
    module: str
    """Holds `run(config, overrides) -> exit code or None`."""
    config_name: str
    """The primary file under configs/."""
    schema: str
    """MODULE.CLASS under svdtrain/config/."""
    summary: str
    examples: tuple[str, ...]
    light: bool = False
    """Of many small matrices, on which several threads of a BLAS only get into each other's way."""
    bare: str = ""
    """The key that words without `=` are values of: `adapter info FILE` is `adapter info file=FILE`."""

    def settings(self) -> type[BaseModel]:
        """Its schema, imported now."""
        module, _, name = self.schema.partition(".")
        return getattr(import_module(f"svdtrain.config.{module}"), name)


COMMANDS = (
    Command(
        "fit",
        "svdtrain.commands.launch",
        "fit",
        "schema.FitConfig",
        "train an adapter on clips, with a before/after video at the end",
        (
            "config=style_lora",
            "config=motion_lora model=svd_xt data.source=shards/ logger=wandb",
            "config=style_lora adapter.rank=32 optimizer.learning_rate=5e-4 name=rank32",
            "-m config=style_lora adapter.rank=4,16,64",
            "config=my_recipe --config-dir my_configs     # reads my_configs/config/my_recipe.yaml",
        ),
    ),
    Command(
        "generate",
        "svdtrain.commands.generate",
        "generate",
        "generation.GenerateConfig",
        "make videos from pictures or prompts, with an adapter or with the base alone",
        (
            "adapter=runs/style_lora/TIME image=a.png out=b.mp4",
            "adapter=RUN image=pictures/ out=videos/ seed=[1,2,3]",
            "adapter=RUN prompt=TEXT text_to_image=FOLDER out=b.mp4     # the first frame is drawn, too",
            "adapter=RUN image=a.png out=b.mp4 strength=0.5",
            "adapter=[RUN1,RUN2] strength=[1.0,0.7] image=a.png out=b.mp4",
            "base_only=true image=a.png out=base.mp4 motion_bucket_id=200",
        ),
    ),
    Command(
        "evaluate",
        "svdtrain.commands.evaluate",
        "evaluate",
        "evaluation.EvaluateConfig",
        "measure what an adapter changes: losses, videos beside the base's, a verdict",
        (
            "adapter=runs/style_lora/TIME",
            "adapter=FILE data=shards/ generic=others/ strengths=0.5,1",
            "adapters=RUN1,RUN2 data=shards/ inputs=16 seeds=0,1 motion_buckets=60,127,200",
            "adapter=RUN shard=0/4     # one process of four; none waits for another",
        ),
    ),
    Command(
        "report",
        "svdtrain.commands.report",
        "report",
        "reporting.ReportConfig",
        "make a page about a run: verdict, videos beside the base's, curves, cost, how to use it",
        (
            "runs/style_lora/TIME",
            "RUN out=report.html price=0.4",
            "RUN evaluation=compared/     # an evaluation that is kept elsewhere",
        ),
        bare="run",
    ),
    Command(
        "prepare",
        "svdtrain.commands.prepare",
        "prepare",
        "preparation.PrepareConfig",
        "make shards of a folder of videos and stills",
        (
            "source=videos/ out=shards/",
            "source=videos/ out=shards/ fps=10 short_side=320 seconds=3",
            "source=videos/ out=shards/ buckets=[[576,1024,25],[1024,576,25]] fps=7",
            "source=videos/ out=shards/ part=3/16     # one job of an array",
        ),
    ),
    Command(
        "cache",
        "svdtrain.commands.cache",
        "cache",
        "schema.CacheConfig",
        "encode every clip once, so that fit trains without its frozen encoders",
        (
            "config=style_lora data.source=shards/ model=svd_xt     # then fit, with the same words",
            "config=style_lora data.source=shards/ data.windows=4 part=2/8",
        ),
    ),
    Command(
        "inspect",
        "svdtrain.commands.inspect",
        "inspect",
        "schema.InspectConfig",
        "make a page that shows what is in a dataset, what is wrong with it and how to mend it",
        (
            "source=demo:style",
            "source=shards/ out=page.html model=svd_xt data.fps=7",
            "source=videos/     # before they are prepared",
        ),
    ),
    Command(
        "plan",
        "svdtrain.commands.plan",
        "plan",
        "planning.PlanConfig",
        "foretell a fit's memory, time and cost on any card, without weights or a GPU",
        (
            "config=style_lora model=svd_xt",
            "config=motion_lora model=svd_xt card=rtx4090 price=0.4",
            "config=style_lora model=cogvideox_5b card=h100,h200 format=json",
        ),
    ),
    Command(
        "sweep",
        "svdtrain.commands.sweep",
        "sweep",
        "sweeping.SweepConfig",
        "find settings: several fits, chosen one after the other for the least held-out loss",
        (
            "config=style_lora trials=12",
            "config=style_lora space=adapter trials=30 out=sweeps/style     # the same words again go on",
            "config=style_lora space=rate data.source=shards/ model=svd_xt validation.sample_inputs=0",
        ),
    ),
    Command(
        "selftest",
        "svdtrain.commands.selftest",
        "selftest",
        "selftest.SelftestConfig",
        "see for yourself: kills that cost no byte, faults that get their exit code and one line",
        ("kill=20", "kill=50 ranks=2 out=selftest/", "faults", "faults rows=3,31"),
        bare="test",
    ),
    Command(
        "export",
        "svdtrain.commands.export",
        "export",
        "schema.ExportConfig",
        "write an adapter for other programs, and prove that they read it",
        (
            "adapter=runs/style_lora/TIME to=diffusers,comfyui",
            "adapter=RUN to=comfyui dtype=bf16 out=exports/style card=true",
            "adapter=RUN to=merged     # a whole diffusers pipeline",
        ),
    ),
    Command(
        "push",
        "svdtrain.commands.push",
        "push",
        "publishing.PushConfig",
        "put an export on the Hugging Face Hub, private unless told otherwise",
        (
            "folder=exports/style repo=me/style dry_run=true     # says what would leave, and sends nothing",
            "folder=exports/style repo=me/style",
            "folder=exports/style repo=me/style private=false revision=v2",
        ),
    ),
    Command(
        "adapter info",
        "svdtrain.commands.adapter.info",
        "adapter_info",
        "toolbox.InfoConfig",
        "what is in a file: rank, size, what it changes, block by block",
        ("FILE", "FILE svg=blocks.svg base=nano"),
        light=True,
        bare="file",
    ),
    Command(
        "adapter check",
        "svdtrain.commands.adapter.check",
        "adapter_check",
        "toolbox.CheckConfig",
        "whether programs read a file: names, alpha, numbers, base",
        ("FILE", "FILE for=comfyui base=FOLDER"),
        light=True,
        bare="file",
    ),
    Command(
        "adapter convert",
        "svdtrain.commands.adapter.convert",
        "adapter_convert",
        "toolbox.ConvertConfig",
        "the same adapter in another program's format",
        ("FILE to=comfyui out=NEW.safetensors", "FILE to=peft out=FOLDER dtype=bf16"),
        bare="file",
    ),
    Command(
        "adapter merge",
        "svdtrain.commands.adapter.merge",
        "adapter_merge",
        "toolbox.MergeConfig",
        "one adapter of several",
        ("STYLE:0.8 MOTION:0.5 out=NEW.safetensors", "A:1 B:1 method=ties rank=16 out=NEW.safetensors"),
        bare="files",
    ),
    Command(
        "adapter slice",
        "svdtrain.commands.adapter.slice",
        "adapter_slice",
        "toolbox.SliceConfig",
        "a part of an adapter: its motion, its look, some blocks",
        ("FILE half=temporal out=MOTION.safetensors", "FILE blocks=[up_blocks] out=UP.safetensors"),
        bare="file",
    ),
    Command(
        "adapter resize",
        "svdtrain.commands.adapter.resize",
        "adapter_resize",
        "toolbox.ResizeConfig",
        "a smaller rank, and what it costs",
        ("FILE rank=8 out=SMALL.safetensors", "FILE keep=0.95 out=SMALL.safetensors"),
        bare="file",
    ),
    Command(
        "adapter extract",
        "svdtrain.commands.adapter.extract",
        "adapter_extract",
        "toolbox.ExtractConfig",
        "the LoRA between a full fine-tune and its base",
        ("RUN base=FOLDER rank=32 out=NEW.safetensors",),
        bare="tuned",
    ),
    Command(
        "adapter to-lora",
        "svdtrain.commands.adapter.to_lora",
        "adapter_to_lora",
        "toolbox.ToLoraConfig",
        "a plain LoRA of a DoRA, LoHa or LoKr, and what it costs",
        ("FILE rank=16 out=NEW.safetensors", "DORA base=nano out=NEW.safetensors"),
        bare="file",
    ),
    Command(
        "adapter average",
        "svdtrain.commands.adapter.average",
        "adapter_average",
        "toolbox.AverageConfig",
        "the moving average of the adapters that a run kept",
        ("RUN out=NEW.safetensors", "A B C decay=0.8 out=NEW.safetensors"),
        bare="files",
    ),
    Command(
        "adapter diff",
        "svdtrain.commands.adapter.diff",
        "adapter_diff",
        "toolbox.DiffConfig",
        "how alike two adapters are, block by block",
        ("A B",),
        light=True,
        bare="files",
    ),
    Command(
        "adapter targets",
        "svdtrain.commands.adapter.targets",
        "adapter_targets",
        "schema.TargetsConfig",
        "what a fit with these words would adapt, module by module; trains nothing",
        ("config=style_lora model=svd_xt", "config=style_lora adapter.pattern='.*attn1.*'"),
    ),
)
