"""The schema of `prepare`: what a folder of videos and stills becomes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from svdtrain.config.fields import Part, Positive, Private, Share


class PrepareConfig(Private):
    """`python -m svdtrain prepare`."""

    source: str
    """A folder of videos, pictures and captions, or of video2dataset's or img2dataset's shards."""
    out: str
    """The dataset's folder. Started again, a broken job goes on there."""
    fps: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)] | None
    """Frames per second of the clips; null: each video's own."""
    seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
    """Length of a clip."""
    least_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
    """What a scene's last, shorter piece must have."""
    scenes: bool
    """Cut at scene cuts."""
    short_side: Annotated[int, Field(ge=16, le=8192)] | None
    """Shrink pictures to this short side; null: as they are, or as their bucket wants."""
    buckets: list[tuple[Positive, Positive, Positive]]
    """[height, width, frames] of each; a clip goes into the nearest, shrunk until it just covers it. []: no buckets."""
    most_upscale: Annotated[float, Field(ge=1, le=16, allow_inf_nan=False)]
    """How much a picture may be enlarged to fill its bucket."""
    most_crop: Share
    """Share of a picture that its bucket may crop away."""
    letterbox: Literal["crop", "reject", "keep"]
    """What becomes of videos with black bars on both sides."""
    crf: Annotated[int, Field(ge=0, le=51)]
    """x264's quality: lower is better and larger."""
    most_black: Share
    """Clips with a larger share of black frames are rejected."""
    most_frozen: Share
    """Likewise of steps that change nothing."""
    most_clipped: Share
    """Likewise of pixels that are fully dark or fully bright."""
    most_repeated: Share
    """Likewise of frames that the video does not have, at an uneven rate."""
    least_sharpness: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Variance of the Laplacian below which a clip is blurred; 0 keeps all."""
    least_motion: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Mean optical flow in % of the width per second below which a clip is rejected; 0 keeps all."""
    most_motion: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    """Likewise above which; null keeps all."""
    duplicate_bits: Annotated[int, Field(ge=0, le=32)] | None
    """Near duplicates differ by at most so many of 64 bits in three frames, and one of them is kept; null keeps all."""
    motion_bucket_id: Literal["score"] | Annotated[int, Field(ge=0, le=255)]
    """score: 1 to 255 by the clip's rank in motion, 127 at the median; or one number for every clip."""
    captions: Literal["files", "vlm"]
    """vlm: clips without a caption in the folder get one from a local vision-language model."""
    model: str | None
    """That model: a folder, or a Hub id in the Hub's cache."""
    prompt: str
    """What it is asked."""
    trigger: str
    """A word that begins every caption; empty: none."""
    find: str
    """Text that is replaced in every caption; empty: none."""
    replace: str
    """By this."""
    shard_megabytes: Positive
    """A shard that has reached this size is closed."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None
    """Processes; null: one for each core."""
    executor: Literal["local", "ray"]
    """ray: on a Ray cluster whose machines see `source` and `out` under the same paths."""
    ray_address: str | None
    """Of the cluster, or `auto`; null: a Ray is started on this machine."""
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Seconds without a finished stage or clip after which a source is given up."""
    part: Part | None
    """i/n: only every n-th source from the i-th on, for array jobs on one file system; the last one to end assembles."""
