"""The rendered world of the demo sets: one textured shape that swims nose first over a periodic, grey-mean background;
in a third of the plain world's clips the shape rests and the camera pans instead, any of four ways.

The world is continuous in time: speed is set by motion_bucket_id, the moments that are drawn by fps. Every frame averages
to grey, because group norms in narrow networks can hardly carry a picture's mean colour.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

SIZE = 64
FRAMES = 8
SUPERSAMPLING = 2
KINDS = ("drop", "dart", "box", "disc", "ring")
TEXTURES = ("plain", "bars", "checks", "spots")
FPS = (5, 6, 7, 8, 10, 12)
WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1))
ZOOM_BUCKET, ZOOM_FPS = 96, 7
SETS: dict[str, dict[str, str]] = {
    "world": {"motion": "any"},
    "style": {"look": "woodcut"},
    "subject": {"kind": "character"},
    "motion": {"motion": "return"},
    "camera": {"motion": "zoom"},
}
"""What each set changes of the plain world."""


@dataclass(frozen=True)
class Scene:
    """One clip of the world: everything that its frames are a pure function of. Lengths in pixels of a SIZE x SIZE frame."""

    kind: str
    texture: str
    colour: tuple[float, float, float]
    radius: float
    centre: tuple[float, float]
    heading: float
    waves: tuple[tuple[int, int, float, tuple[float, float, float]], ...]
    motion_bucket_id: int
    fps: int
    motion: str = "forward"
    camera: tuple[int, int] = (1, 0)
    look: str = "plain"

    @property
    def speed(self) -> float:
        """Pixels per second: 15 at motion_bucket_id 127, proportional to it."""
        return 15.0 * self.motion_bucket_id / 127.0


def draw_scene(seed: int, *, motion: str = "forward", look: str = "plain", kind: str | None = None) -> Scene:
    """The scene of a seed: a pure function, so a set is rebuilt from its list of seeds."""
    rng, camera = np.random.default_rng(seed), (1, 0)
    if motion == "any":
        other = np.random.default_rng([seed, 1])
        motion, camera = str(other.choice(("forward", "forward", "pan"))), WAYS[int(other.integers(4))]
    bucket, fps = int(rng.integers(16, 256)), int(rng.choice(FPS))
    heading = float(rng.uniform(0, 2 * np.pi))
    radius = float(rng.uniform(10.5, 14.0))
    waves = tuple(
        (int(rng.integers(-1, 2)), int(rng.integers(1, 3)), float(rng.uniform(0, 2 * np.pi)), _colour(rng, 0.13))
        for _ in range(2)
    )
    scene = Scene(
        kind=kind or str(rng.choice(KINDS)),
        texture=str(rng.choice(TEXTURES)),
        colour=_colour(rng, 0.42),
        radius=radius,
        centre=(0.0, 0.0),
        heading=heading,
        waves=waves,
        motion_bucket_id=bucket,
        fps=fps,
        motion=motion,
        camera=camera,
        look=look,
    )
    if motion == "zoom":  # always the same move
        scene = replace(scene, motion_bucket_id=ZOOM_BUCKET, fps=ZOOM_FPS)
    return replace(scene, centre=_start(scene, rng))


def scene_of(source: str) -> Scene:
    """The scene of a clip by its source, SET/SPLIT/NUMBER; its seed is a pure function of that."""
    return draw_scene(zlib.crc32(source.encode()), **SETS[source.split("/")[0]])  # type: ignore[arg-type]


def render(scene: Scene) -> np.ndarray:
    """uint8 [FRAMES, SIZE, SIZE, 3] RGB frames at times k / fps."""
    return np.stack([_frame(scene, k / scene.fps) for k in range(FRAMES)])


def _colour(rng: np.random.Generator, amplitude: float) -> tuple[float, float, float]:
    """A colour's offset from grey, brighter than grey, saturated, of about the given length."""
    offset = rng.normal(size=3)
    offset -= offset.mean()
    offset = offset / (np.linalg.norm(offset) + 1e-9) * 0.75 + 0.38
    offset *= amplitude / np.abs(offset).max()
    return float(offset[0]), float(offset[1]), float(offset[2])


def _start(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """A start from which the whole path stays in the frame."""
    middle = SIZE / 2
    length = scene.speed * (FRAMES - 1) / scene.fps if scene.motion not in ("pan", "zoom") else 0.0
    slack = max(0.0, SIZE - 2 * scene.radius - length) / 2
    along = np.array([np.cos(scene.heading), np.sin(scene.heading)])
    start = middle - along * length / 2 + rng.uniform(-1, 1, 2) * min(slack, 14.0)
    return float(start[0]), float(start[1])


def _pose(scene: Scene, seconds: float) -> tuple[float, float, float, float]:
    """Shape centre x, y and camera x, y at a time."""
    x, y = scene.centre
    away = scene.speed * seconds
    if scene.motion == "pan":
        return x, y, scene.camera[0] * away, scene.camera[1] * away
    if scene.motion == "zoom":
        return x, y, 0.0, 0.0
    if scene.motion == "return":  # the same speed, but home again at the end
        length = scene.speed * (FRAMES - 1) / scene.fps
        away = min(away, length - away)
    return x + np.cos(scene.heading) * away, y + np.sin(scene.heading) * away, 0.0, 0.0


def _frame(scene: Scene, seconds: float) -> np.ndarray:
    n = SIZE * SUPERSAMPLING
    axis = (np.arange(n) + 0.5) / SUPERSAMPLING
    screen_x, screen_y = np.meshgrid(axis, axis)
    x, y, camera_x, camera_y = _pose(scene, seconds)
    if scene.motion == "zoom":  # the frame's edge is passed at the scene's speed
        nearer = np.exp(-scene.speed * seconds / (SIZE / 2))
        screen_x, screen_y = (SIZE / 2 + (screen - SIZE / 2) * nearer for screen in (screen_x, screen_y))
    world_x, world_y = screen_x + camera_x, screen_y + camera_y
    offset = np.zeros((n, n, 3))
    for kx, ky, phase, colour in scene.waves:
        wave = np.cos(2 * np.pi * (kx * world_x + ky * world_y) / SIZE + phase)
        offset += wave[..., None] * np.asarray(colour)
    dx, dy = world_x - x, world_y - y
    if scene.motion == "pan":  # the world wraps round, as its background does: a shape comes back in on the other side
        dx, dy = ((d + SIZE / 2) % SIZE - SIZE / 2 for d in (dx, dy))
    u = (np.cos(scene.heading) * dx + np.sin(scene.heading) * dy) / scene.radius
    w = (-np.sin(scene.heading) * dx + np.cos(scene.heading) * dy) / scene.radius
    inside, shade = _character(u, w) if scene.kind == "character" else _shape(scene, u, w)
    offset = np.where(inside[..., None], shade, offset)
    if scene.look == "woodcut":
        offset = _woodcut(offset, inside, screen_x, screen_y)
    small = (0.5 + offset).reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3).mean((1, 3))
    return np.clip(np.rint(small * 255), 0, 255).astype(np.uint8)


def _shape(scene: Scene, u: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask and colour offset; the nose half is the bright colour, the tail half its complement."""
    inside = {
        "drop": (u**2 + w**2 < 0.72) | ((u > 0) & (u < 1.25) & (np.abs(w) < 0.85 * (1 - u / 1.25))),
        "dart": (u > -0.85) & (np.abs(w) < 0.95 * (1 - (u + 0.85) / 2.05)),
        "box": (np.abs(u) < 0.95) & (np.abs(w) < 0.62),
        "disc": u**2 + w**2 < 0.85,
        "ring": (u**2 + w**2 < 1.0) & (u**2 + w**2 > 0.16),
    }[scene.kind]
    pattern = {
        "plain": np.ones_like(u),
        "bars": np.where(np.sin(9.0 * w) > 0, 1.0, 0.55),
        "checks": np.where(np.sin(6.5 * u) * np.sin(6.5 * w) > 0, 1.0, 0.55),
        "spots": np.where((np.sin(7.0 * u) > 0.2) & (np.sin(7.0 * w) > 0.2), 0.4, 1.0),
    }[scene.texture]
    return inside, (np.where(u > 0, 1.0, -1.0) * pattern)[..., None] * np.asarray(scene.colour)


def _character(u: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The subject of the subject set: a four-coloured beetle with two eyes, always the same; its nose is bright too."""
    body = (u / 1.05) ** 2 + (w / 0.9) ** 2 < 1.0
    nose = np.where((w > 0)[..., None], [0.4, 0.0, 0.2], [0.2, 0.3, -0.1])
    quarters = np.where((u > 0)[..., None], nose, -nose)
    eyes = ((u - 0.5) ** 2 + (np.abs(w) - 0.38) ** 2) < 0.07
    seam = (np.abs(w) < 0.12) & (u < 0.1)
    shade = np.where(seam[..., None], [0.3, 0.3, 0.3], quarters)
    shade = np.where(eyes[..., None], [-0.3, -0.3, -0.3], shade)
    return body, shade


def _woodcut(offset: np.ndarray, inside: np.ndarray, screen_x: np.ndarray, screen_y: np.ndarray) -> np.ndarray:
    """Two inks over grey: hatching fixed to the page, its strokes swelling with brightness; shapes cut solid."""
    luma = offset @ np.array([0.35, 0.45, 0.2])
    hatch = np.cos(2 * np.pi * 6 * (screen_x + screen_y) / SIZE)
    ink = np.where(inside, np.tanh(14.0 * luma), 0.75 * np.tanh(4.0 * (0.8 * luma + 0.3 * hatch)))
    return ink[..., None] * np.array([0.42, 0.30, 0.14])
