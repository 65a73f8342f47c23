"""What a model card says of an export: the header of its adapter in the words of a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svdtrain.reporting.licences import licence_of
from svdtrain.reporting.model_card import MOTION_BUCKET, CardFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


STRENGTHS = "1.0 as trained; 0 is the base, 0.5 to 1.2 is worth trying"


def card_facts(
    *,
    title: str,
    base: str,
    base_name: str,
    pipeline_class: str,
    component: str,
    image_to_video: bool,
    tags: tuple[str, ...],
    files: Mapping[str, str],
    frames: int,
    info: Mapping[str, str],
    results: Mapping[str, Any],
    samples: Sequence[str],
    strength: str | None,
    trigger: str | None,
    consent: str | None,
) -> CardFacts:
    """`info`: an adapter's header; `results`: its held-out loss ratio, in all and by noise level; `strength`: when baked in."""
    settings = {
        "frames": str(frames),
        "size": info.get("resolution", ""),
        "frames per second": "that of the clip" if info.get("fps") == "clip" else info.get("fps", ""),
        MOTION_BUCKET: info.get("motion_bucket", ""),
        "strength": f"{strength}, in its weights" if strength is not None else STRENGTHS,
    }
    training = {
        "recipe": info.get("recipe", ""),
        "kind": info.get("kind", ""),
        "targets": info.get("targets", ""),
        "rank": info.get("rank", ""),
        "alpha": info.get("alpha", ""),
        "steps": info.get("steps", ""),
        "dataset fingerprint": info.get("dataset", ""),
        "changed since by": info.get("made_by", ""),
        "svdtrain": info.get("version", ""),
    }
    if results:
        levels = ", ".join(f"{ratio:.2f} at {level}" for level, ratio in results["by_noise_level"].items())
        training["held-out loss, of the base's"] = f"{results['held_out_loss_ratio']:.2f} (by noise level: {levels})"
    return CardFacts(
        title=title,
        base=base,
        base_name=base_name,
        licence=licence_of(base or base_name),
        pipeline_tag="image-to-video" if image_to_video else "text-to-video",
        pipeline_class=pipeline_class,
        component=component,
        files=files,
        settings={name: value for name, value in settings.items() if value},
        training={name: value for name, value in training.items() if value},
        samples=tuple(samples),
        tags=tags,
        trigger=trigger,
        consent=consent,
    )
