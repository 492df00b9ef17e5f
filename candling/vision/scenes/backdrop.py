"""What stands behind the object: a sky above the horizon and a ground below it.

Both are painted over the whole square and joined along the horizon, so that a sky never depends
on the ground beneath it, nor a ground on its sky.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from candling.vision.scenes.noise import (
    Factor,
    Floats,
    colour,
    fractal_noise,
    mix,
    smoothstep,
    stream,
)

Painter = Callable[[np.random.Generator, Floats, Floats], Floats]

# How dark the object's shadow is on each ground: sharp sun on grass, almost none under cloud.
SHADOW = {"overcast": 0.6, "grass": 0.68, "snow": 0.5, "forest": 0.7}


def horizon_line(seed: int, size: int) -> Floats:
    """Height of the horizon in each column: float32 (size,), 0 the top edge and 1 the bottom."""
    rng = stream(seed, Factor.HORIZON)
    middle = rng.uniform(0.36, 0.5)
    tilt = rng.normal(0, 0.012)
    x = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(size)
    waves = fractal_noise(rng, x * 2, np.zeros_like(x), 2)
    return np.asarray(middle + tilt * (x - 0.5) + 0.05 * (waves - 0.5), np.float32)


def ground_share(horizon: Floats) -> Floats:
    """Share of each pixel that lies below the horizon: float32 (size, size), 0 to 1."""
    size = len(horizon)
    rows = np.arange(size, dtype=np.float32)[:, None] + 1
    return np.clip(rows - horizon[None, :] * np.float32(size), 0, 1)


def paint_sky(seed: int, environment: str, horizon: Floats) -> Floats:
    """Everything above the horizon: float32 (size, size, 3), 0 to 1."""
    size = len(horizon)
    x, y = _pixel_centres(size)
    height = np.clip(1 - y / np.maximum(horizon[None, :], 0.05), 0, 1)
    return _SKIES[environment](stream(seed, Factor.SKY), x, np.asarray(height, np.float32))


def paint_ground(seed: int, environment: str, horizon: Floats) -> Floats:
    """Everything below the horizon: float32 (size, size, 3), 0 to 1."""
    size = len(horizon)
    x, y = _pixel_centres(size)
    nearness = np.clip((y - horizon[None, :]) / (1 - horizon[None, :]), 0, 1)
    return _GROUNDS[environment](stream(seed, Factor.GROUND), x, np.asarray(nearness, np.float32))


def _pixel_centres(size: int) -> tuple[Floats, Floats]:
    centres = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(size)
    return np.broadcast_to(centres, (size, size)), np.broadcast_to(centres[:, None], (size, size))


# --- skies: x from 0 to 1, height from 0 at the horizon to 1 at the top edge -------------------


def _clouds(
    rng: np.random.Generator, x: Floats, height: Floats, scale: float, flatness: float = 1.0
) -> Floats:
    # A flat layer of cloud seen from below: smaller and closer together towards the horizon.
    distance = 1 / (height + np.float32(0.35))
    across, away = (x - 0.5) * distance * np.float32(scale), distance * np.float32(scale * flatness)
    return fractal_noise(rng, across, away, 5)


def _far_hills(rng: np.random.Generator, x: Floats, height: Floats, top: float) -> Floats:
    """Share of a far ridge or tree line in each pixel."""
    ridge = fractal_noise(rng, x[0] * 4, np.zeros_like(x[0]), 4, gain=0.6)
    outline = np.float32(top) * (0.4 + ridge)
    return np.clip((outline[None, :] - height) * 30, 0, 1)


def _overcast_sky(rng: np.random.Generator, x: Floats, height: Floats) -> Floats:
    cover = _clouds(rng, x, height, 2.2)
    sky = mix(colour(0x868A8E), colour(0xD3D5D6), smoothstep(0.27, 0.72, cover))
    sky = mix(sky, colour(0xC6C8C7), 0.6 * (1 - height) ** 3)
    hills = _far_hills(rng, x, height, 0.1)
    return mix(sky, colour(0x6E7268), 0.85 * hills)


def _blue_sky(rng: np.random.Generator, x: Floats, height: Floats) -> Floats:
    sky = mix(colour(0xB4D8F2), colour(0x3C84D4), height**0.8)
    amount = float(rng.uniform(0.49, 0.56))
    density = _clouds(rng, x, height, 4.2, 0.55)
    cover = smoothstep(amount, amount + 0.2, density)
    body = mix(colour(0xDCE4EE), colour(0xFFFFFF), smoothstep(amount, amount + 0.18, density))
    sky = sky + (body - sky) * (0.95 * cover)[..., None]
    hills = _far_hills(rng, x, height, 0.1)
    return mix(sky, colour(0x5D8C6C), 0.85 * hills)


def _pale_sky(rng: np.random.Generator, x: Floats, height: Floats) -> Floats:
    sky = mix(colour(0xE9EDF1), colour(0xB3C6DA), height)
    sky = mix(sky, colour(0xF3F4F5), 0.7 * smoothstep(0.4, 0.7, _clouds(rng, x, height, 1.8)))
    hills = _far_hills(rng, x, height, 0.12)
    return mix(sky, colour(0x8B9AA8), 0.75 * hills)


def _woods(rng: np.random.Generator, x: Floats, height: Floats) -> Floats:
    size = len(x)
    canopy = fractal_noise(rng, x * 7, height * 4, 4, gain=0.65)
    woods = mix(colour(0x0E1D11), colour(0x33502C), smoothstep(0.25, 0.75, canopy))
    # Far trunks first, pale in the haze; near ones last, dark and thick.
    trunks = Image.new("L", (2 * size, 2 * size))
    brush = ImageDraw.Draw(trunks)
    count = int(rng.integers(11, 17))
    for index, (place, lean, shade) in enumerate(rng.random((count, 3))):
        near = (index + 1) / count
        half = size * (0.006 + 0.018 * near)
        left, drift = 2 * size * place, size * 0.12 * (lean - 0.5)
        feet = [(left - 1.2 * half, 2 * size), (left + 1.2 * half, 2 * size)]
        head = [(left + drift + 0.8 * half, 0), (left + drift - 0.8 * half, 0)]
        brush.polygon(feet + head, fill=int(70 + 110 * near + 70 * shade))
    bark = np.asarray(trunks.reduce(2), np.float32) / 255
    wood = mix(colour(0x5A6450), colour(0x33281D), smoothstep(0.3, 0.9, bark))
    leaves = fractal_noise(rng, x * 12, height * 8, 3, gain=0.7)
    bare = 1 - smoothstep(0.55, 0.75, leaves + 0.28 * height)
    woods = woods + (wood - woods) * (smoothstep(0.1, 0.3, bark) * bare)[..., None]
    gaps = smoothstep(0.58, 0.85, leaves) * smoothstep(0.3, 0.9, height)
    woods = mix(woods, colour(0x8FA873), 0.7 * gaps)
    mist = 0.3 * np.exp(-((height / np.float32(0.25)) ** 2))
    return mix(woods, colour(0x54684E), mist)


_SKIES: dict[str, Painter] = {
    "overcast": _overcast_sky,
    "grass": _blue_sky,
    "snow": _pale_sky,
    "forest": _woods,
}


# --- grounds: x from 0 to 1, nearness from 0 at the horizon to 1 at the bottom edge -------------


def _plain(rng: np.random.Generator, x: Floats, nearness: Floats, scale: float) -> Floats:
    """Noise that lies flat on the ground and so shrinks towards the horizon."""
    distance = 1 / (nearness + np.float32(0.18))
    return fractal_noise(
        rng, (x - 0.5) * distance * np.float32(scale), distance * np.float32(2 * scale), 4, 0.6
    )


def _tufts(rng: np.random.Generator, x: Floats, nearness: Floats, fineness: float) -> Floats:
    """Tufts, a little taller than wide and finer towards the horizon, centred on 0."""
    distance = np.float32(fineness) / (nearness + np.float32(0.5))
    return fractal_noise(rng, (x - 0.5) * distance, distance * np.float32(0.6), 2, 0.7) - 0.5


def _rough(ground: Floats, tufts: Floats, nearness: Floats) -> Floats:
    """The ground with its tufts lighter and its hollows darker, most of all close by."""
    return np.asarray(ground * (1 + tufts * (0.4 + nearness))[..., None])


def _field(rng: np.random.Generator, x: Floats, nearness: Floats) -> Floats:
    patches = _plain(rng, x, nearness, 2.4)
    ground = mix(colour(0x6B5D40), colour(0x949067), smoothstep(0.3, 0.68, patches))
    ground = mix(ground, colour(0x9A9780), 0.55 * (1 - nearness) ** 4)
    return _rough(ground, 0.42 * _tufts(rng, x, nearness, 42), nearness)


def _grass(rng: np.random.Generator, x: Floats, nearness: Floats) -> Floats:
    patches = _plain(rng, x, nearness, 2.0)
    ground = mix(colour(0x4A9A2C), colour(0x8BCB4A), smoothstep(0.3, 0.7, patches))
    ground = mix(ground, colour(0x9CCB6C), 0.5 * (1 - nearness) ** 4)
    return _rough(ground, 0.5 * _tufts(rng, x, nearness, 46), nearness)


def _snow(rng: np.random.Generator, x: Floats, nearness: Floats) -> Floats:
    drifts = _plain(rng, x, nearness, 1.4)
    ground = mix(colour(0xCBD6E4), colour(0xF8FAFC), smoothstep(0.28, 0.6, drifts))
    # Here and there a tuft of last year's grass comes through.
    tufts = smoothstep(0.2, 0.34, _tufts(rng, x, nearness, 34)) * (1 - smoothstep(0.3, 0.5, drifts))
    return mix(ground, colour(0x8F8A78), 0.6 * tufts)


def _forest_floor(rng: np.random.Generator, x: Floats, nearness: Floats) -> Floats:
    patches = _plain(rng, x, nearness, 3.0)
    ground = mix(colour(0x25281A), colour(0x3F5429), smoothstep(0.3, 0.68, patches))
    sunlit = smoothstep(0.56, 0.72, _plain(rng, x, nearness, 1.6))
    ground = mix(ground, colour(0x74854A), 0.4 * sunlit)
    return _rough(ground, 0.6 * _tufts(rng, x, nearness, 36), nearness)


_GROUNDS: dict[str, Painter] = {
    "overcast": _field,
    "grass": _grass,
    "snow": _snow,
    "forest": _forest_floor,
}
