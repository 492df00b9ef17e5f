"""Twelve classes of drawn things, some pairs of which are made to look alike on purpose.

Things are put together from solids and stand on the backdrops of the scene generator. In each of
`PAIRS` two share something that no other class has: their parts (a bus has the lorry's wheels and box), or
their colour (a crate is as red as a kiosk). `LONERS` share nothing with anyone. Everything else (where,
how large, from which side, in which weather) is drawn alike for all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candling.models import Classifier, ModelSpec, build_model
from candling.vision.scenes import ENVIRONMENTS, backdrop
from candling.vision.scenes.noise import Factor, Floats, colour, stream
from candling.vision.scenes.sketch import Layer, Material, Placing, Sketch, outlines, paint, side_view
from candling.vision.training import Schedule, train

__all__ = ["CLASSES", "PAIRS", "SIDE", "draw", "pictures", "trained"]

SIDE = 48  # pixels

PAIRS: tuple[tuple[str, str], ...] = (
    ("lorry", "bus"),  # wheels under a long box
    ("lighthouse", "chimney"),  # a tall tower with bands
    ("crate", "kiosk"),  # red
    ("dune", "haystack"),  # yellow
)
LONERS = ("tent", "boulder", "arch", "pond")
CLASSES: tuple[str, ...] = tuple(sorted([*(name for pair in PAIRS for name in pair), *LONERS]))

_LIVERIES = (0x4F7FB5, 0xD8D8D0, 0x7A5A8C, 0x5F9A7A, 0xB98A5A, 0x8A8F96)
_RED, _YELLOW = 0xD0302A, 0xE0B030
_COVERED = (0.05, 0.1)  # share of the picture, the same for all
_WIDEST, _TALLEST = 0.84, 0.62

Maker = Callable[[np.random.Generator, Sketch], None]


def _livery(rng: np.random.Generator) -> Floats:
    return colour(_LIVERIES[int(rng.integers(len(_LIVERIES)))])


def _near(rng: np.random.Generator, code: int) -> Floats:
    return colour(code) * np.float32(rng.uniform(0.88, 1.08))


def _wheels(sketch: Sketch, places: tuple[float, ...]) -> None:
    for x in places:
        sketch.wheel(x, 0.28, -0.72, 0.28, colour(0x1E1E1C))
        sketch.wheel(x, 0.28, -0.73, 0.11, colour(0x9A9A96))


def _lorry(rng: np.random.Generator, sketch: Sketch) -> None:
    """A box on wheels, and a cab before it."""
    body = _livery(rng)
    sketch.box((-1.6, 0.7), (0.35, 1.5), (-0.7, 0.7), body)
    sketch.box((0.78, 1.5), (0.35, 1.15), (-0.65, 0.65), body * np.float32(0.7))
    sketch.face(side_view([(1.0, 0.75), (1.4, 0.75), (1.4, 1.05), (1.0, 1.05)], -0.68), colour(0x222A30))
    _wheels(sketch, (-1.1, -0.4, 1.1))


def _bus(rng: np.random.Generator, sketch: Sketch) -> None:
    """The same box, longer, with a few windows."""
    sketch.box((-1.6, 1.5), (0.35, 1.45), (-0.7, 0.7), _livery(rng))
    for left in np.linspace(-0.2, 0.95, 3):
        corners = [(left, 0.9), (left + 0.42, 0.9), (left + 0.42, 1.25), (left, 1.25)]
        sketch.face(side_view(corners, -0.73), colour(0x222A30))
    _wheels(sketch, (-1.1, -0.4, 1.1))


def _tower(sketch: Sketch, body: Floats, band: Floats, bands: int) -> None:
    edges = np.linspace(0.0, 3.0, 2 * bands)
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        a, b = 0.5 - 0.07 * low, 0.5 - 0.07 * high
        profile = [(-a, low), (a, low), (b, high), (-b, high)]
        sketch.slab(profile, (-0.4, 0.4), band if number % 2 else body)


def _lighthouse(rng: np.random.Generator, sketch: Sketch) -> None:
    """A banded tower with a lantern."""
    _tower(sketch, colour(0xE8E6E0), _livery(rng), 3)
    sketch.box((-0.2, 0.2), (3.0, 3.3), (-0.2, 0.2), colour(0xF4E9A0))
    sketch.slab([(-0.32, 3.3), (0.32, 3.3), (0.05, 3.6), (-0.05, 3.6)], (-0.3, 0.3), colour(0x303438))


def _chimney(rng: np.random.Generator, sketch: Sketch) -> None:
    """A banded tower that ends in a rim."""
    _tower(sketch, colour(0xE8E6E0), _livery(rng), 3)
    sketch.box((-0.36, 0.36), (3.0, 3.16), (-0.36, 0.36), colour(0x55524C))


def _crate(rng: np.random.Generator, sketch: Sketch) -> None:
    """A red box."""
    sketch.box((-0.9, 0.9), (0.0, 1.2), (-0.7, 0.7), _near(rng, _RED))


def _kiosk(rng: np.random.Generator, sketch: Sketch) -> None:
    """A red hut with a roof."""
    red = _near(rng, _RED)
    sketch.box((-0.9, 0.9), (0.0, 0.9), (-0.7, 0.7), red)
    sketch.slab([(-1.0, 0.9), (1.0, 0.9), (0.0, 1.35)], (-0.8, 0.8), red * np.float32(0.9))


def _dune(rng: np.random.Generator, sketch: Sketch) -> None:
    """A yellow heap with a crest."""
    sketch.slab([(-1.2, 0.0), (1.0, 0.0), (0.3, 1.2)], (-0.6, 0.6), _near(rng, _YELLOW))


def _haystack(rng: np.random.Generator, sketch: Sketch) -> None:
    """A yellow heap."""
    heap = [(-0.9, 0.0), (0.9, 0.0), (0.8, 0.6), (0.4, 1.2), (0.0, 1.5), (-0.4, 1.2), (-0.8, 0.6)]
    sketch.slab(heap, (-0.6, 0.6), _near(rng, _YELLOW))


def _tent(rng: np.random.Generator, sketch: Sketch) -> None:
    """A dark green ridge tent with a black opening."""
    sketch.slab([(-1.1, 0.0), (1.1, 0.0), (0.0, 1.2)], (-0.9, 0.9), _near(rng, 0x2F6B4A))
    sketch.face(side_view([(-0.35, 0.0), (0.35, 0.0), (0.0, 0.75)], -0.93), colour(0x101410))


def _boulder(rng: np.random.Generator, sketch: Sketch) -> None:
    """A grey stone of many sides."""
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radii = rng.uniform(0.75, 1.1, len(angles))
    outline = [(1.2 * r * np.cos(a), 0.8 + 0.8 * r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    sketch.face(side_view(outline, 0.0), _near(rng, 0x77736C), Material.STONE)


def _arch(rng: np.random.Generator, sketch: Sketch) -> None:
    """Two white pillars and a lintel."""
    white = _near(rng, 0xEFEDE6)
    for left in (-1.1, 0.7):
        sketch.box((left, left + 0.4), (0.0, 1.6), (-0.25, 0.25), white)
    sketch.box((-1.25, 1.25), (1.6, 1.95), (-0.3, 0.3), white)


def _pond(rng: np.random.Generator, sketch: Sketch) -> None:
    """A flat blue sheet of water."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radii = rng.uniform(0.85, 1.1, len(angles))
    shore = np.array(
        [(1.8 * r * np.cos(a), 0.45 * r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    )
    sketch.flat(shore, _near(rng, 0x3C6EA8))
    sketch.flat(0.6 * shore, _near(rng, 0x5F97C8))


_MAKERS: dict[str, Maker] = {
    "lorry": _lorry, "bus": _bus, "lighthouse": _lighthouse, "chimney": _chimney, "crate": _crate,
    "kiosk": _kiosk, "dune": _dune, "haystack": _haystack, "tent": _tent, "boulder": _boulder,
    "arch": _arch, "pond": _pond,
}  # fmt: skip


def draw(name: str, seed: int) -> NDArray[np.uint8]:
    """A picture of a class, uint8 (SIDE, SIDE, 3); the same seed gives the same bytes."""
    form = stream(seed, Factor.FORM, CLASSES.index(name))
    weather = ENVIRONMENTS[int(form.integers(len(ENVIRONMENTS)))]
    horizon = backdrop.horizon_line(seed, SIDE)
    below = backdrop.ground_share(horizon)
    canvas = backdrop.paint_sky(seed, weather, horizon)
    canvas = canvas + (backdrop.paint_ground(seed, weather, horizon) - canvas) * below[..., None]
    layer = _layer(name, seed, form)
    shadow = 1 - below * np.float32(backdrop.SHADOW[weather]) * layer.shadow
    canvas = canvas * (shadow * (1 - layer.cover))[..., None] + layer.paint
    noise = 8 * stream(seed, Factor.SENSOR).standard_normal((SIDE, SIDE, 3), dtype=np.float32)
    light = np.float32(stream(seed, Factor.LIGHT).uniform(0.8, 1.1))
    return np.clip(255 * light * canvas + noise + 0.5, 0, 255).astype(np.uint8)


def _layer(name: str, seed: int, form: np.random.Generator) -> Layer:
    """The thing, standing somewhere on the ground."""
    sun = float(form.uniform(-1, 1))
    sketch = Sketch(float(form.uniform(-0.45, 0.45)), float(form.uniform(0.1, 0.24)), sun)
    _MAKERS[name](form, sketch)
    sketch.stand_on((-0.8, 0.8), (-0.5, 0.5), 1.0)
    pose = stream(seed, Factor.POSE)
    points = np.array(sum(outlines(sketch, Placing(0, 0, 1), 1), [])).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    width, height = high - low
    scale = min(np.sqrt(pose.uniform(*_COVERED) / (0.7 * width * height)), _WIDEST / width, _TALLEST / height)
    room = max(0.0, 0.48 - scale * width / 2)
    centre = 0.5 + room * pose.uniform(-1, 1)
    foot = pose.uniform(0.72, 0.92)
    mirrored = bool(pose.random() < 0.5)
    middle = scale * (low[0] + high[0]) / 2
    placing = Placing(
        float(centre + (middle if mirrored else -middle)), float(foot - scale * high[1]), float(scale),
        mirrored=mirrored,
    )  # fmt: skip
    return paint([(sketch, placing)], SIDE, np.random.default_rng(int(form.integers(2**32))))


def pictures(each: int, seed: int) -> tuple[Tensor, Tensor]:
    """`each` pictures of every class, uint8 (12 · each, 3, SIDE, SIDE), and their labels (12 · each,).

    Pictures of different seeds, up to a million pictures, share nothing.
    """
    labels = np.repeat(np.arange(len(CLASSES)), each)
    rows = [draw(CLASSES[label], 1_000_000 * seed + row) for row, label in enumerate(labels.tolist())]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def trained(seed: int = 0, *, each: int = 80, steps: int = 400) -> Classifier:
    """A small residual network that learns from `each` pictures of each class, in half a minute."""
    spec = ModelSpec("residual_cnn", CLASSES, (SIDE, SIDE), arguments={"widths": [16, 32, 48]})
    images, labels = pictures(each, seed=1)
    return train(build_model(spec, seed=seed), images, labels, Schedule(steps=steps), seed=seed)
