"""Random streams, one per factor of a scene, and the soft noise that nature is painted with."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]  # float32 wherever it is large


class Factor(IntEnum):
    """The independent factors of a scene; the number is part of the data's identity."""

    HORIZON = 1
    SKY = 2
    GROUND = 3
    LIGHT = 4
    POSE = 5
    KIND = 6
    FORM = 7
    DISTRACTORS = 8
    SENSOR = 9


def stream(seed: int, factor: Factor, *more: int) -> np.random.Generator:
    """The random stream of one factor of the scene with this seed."""
    return np.random.default_rng([seed, int(factor), *more])


def colour(code: int) -> Floats:
    """A colour written as in ``0xRRGGBB``: float32 (3,), from 0 to 1."""
    return np.array([code >> 16 & 255, code >> 8 & 255, code & 255], np.float32) / np.float32(255)


def mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """Blend two colours (or pictures) by ``share``, (H, W) from 0, all first, to 1, all second."""
    return first + (second - first) * share[..., None]


def smoothstep(low: float, high: float, values: Floats) -> Floats:
    """0 below `low`, 1 above `high`, and a soft S between them."""
    t: Floats = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def fractal_noise(rng: np.random.Generator, u: Floats, v: Floats, octaves: int, gain: float = 0.5) -> Floats:
    """Fractal value noise at any points.

    Parameters
    ----------
    rng
        Fills the lattices; the same state gives the same noise, whatever the points.
    u, v
        Coordinates of the points, of one shape; a unit is one cell of the coarsest lattice.
    octaves
        How many lattices, each twice as fine as the one before.
    gain
        Weight of each octave relative to the one before.

    Returns
    -------
    float32, shape of `u`, from 0 to 1 with a mean near 0.5.
    """
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        # 64 x 64 and periodic: larger than any picture shows, so no repeat is seen.
        lattice = rng.random((64, 64), dtype=np.float32)
        shift_u, shift_v = rng.random(2, dtype=np.float32) * 64
        x = u * np.float32(2**octave) + shift_u
        y = v * np.float32(2**octave) + shift_v
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = x - x0, y - y0
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        left, top = x0.astype(np.int32) & 63, y0.astype(np.int32) & 63
        right, bottom = (left + 1) & 63, (top + 1) & 63
        upper = lattice[top, left] * (1 - fx) + lattice[top, right] * fx
        lower = lattice[bottom, left] * (1 - fx) + lattice[bottom, right] * fx
        total += np.float32(weight) * (upper * (1 - fy) + lower * fy)
        weights += weight
        weight *= gain
    return total / np.float32(weights)


def blotches(rng: np.random.Generator, width: int, height: int, cells: float) -> Floats:
    """Smooth noise (height, width) from 0 to 1, `cells` blotches along the longer side."""
    cell = max(width, height) / cells
    grid = rng.random((max(2, round(height / cell)), max(2, round(width / cell))), np.float32)
    smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(smooth), 0, 1))
