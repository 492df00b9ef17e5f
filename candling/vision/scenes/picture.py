"""A scene, and the picture that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from candling.vision.scenes import backdrop
from candling.vision.scenes.noise import Factor, Floats, stream
from candling.vision.scenes.objects import DISTRACTORS, MAKERS
from candling.vision.scenes.sketch import Layer, Placing, Sketch, paint, silhouette

CLASSES = ("no_tank", "tank")
ENVIRONMENTS = ("overcast", "grass", "snow", "forest")
PARTS = ("barrel", "turret", "hull", "tracks")
OBJECTS = tuple(MAKERS)

# Share of the picture that the object covers; the same for all objects, so size tells nothing.
_COVERED = (0.11, 0.17)
_WIDEST, _TALLEST = 0.86, 0.72


@dataclass(frozen=True)
class Scene:
    """All that determines a picture.

    Attributes
    ----------
    seed
        Not negative; every factor draws from a stream of its own under it.
    label
        One of `CLASSES`, or "" for a scene that belongs to none.
    environment
        One of `ENVIRONMENTS`.
    sky, ground
        Environments that override that factor alone.
    tint
        What red, green and blue are multiplied by, each positive; None for no tint.
    object
        "auto" chooses by label and seed, else one of `OBJECTS`; None leaves the object out, its
        shadow included, and the rest as it was.
    distractors
        Whether small things may stand in the background.

    Raises
    ------
    ValueError
        For a value outside these; the message names it.
    """

    seed: int
    label: str
    environment: str
    sky: str | None = None
    ground: str | None = None
    tint: tuple[float, float, float] | None = None
    object: str | None = "auto"
    distractors: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative: use 0 or more")
        _check("label", self.label, (*CLASSES, ""))
        _check("environment", self.environment, ENVIRONMENTS)
        _check("sky", self.sky, (None, *ENVIRONMENTS))
        _check("ground", self.ground, (None, *ENVIRONMENTS))
        _check("object", self.object, (None, "auto", *OBJECTS))
        if self.object == "auto" and not self.label:
            raise ValueError("object 'auto' goes by the label, and the label is '': name an object")
        if self.tint is not None and not (
            len(self.tint) == 3 and all(0 < part < float("inf") for part in self.tint)
        ):
            raise ValueError(f"tint {self.tint} is not three positive numbers")


@dataclass(frozen=True)
class Picture:
    """A drawn scene.

    Attributes
    ----------
    image
        uint8 (H, W, 3), RGB.
    mask
        uint8 (H, W): 0 the background, 1 to 4 the `PARTS` in their order, 5 another object.  It
        holds every pixel that the object touches; shadows are background.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def draw(scene: Scene, size: int = 96) -> Picture:
    """Draw a scene.

    Parameters
    ----------
    scene
        What to draw; the same scene gives the same bytes.
    size
        Side of the picture in pixels, at least 16.

    Raises
    ------
    ValueError
        If `size` is too small.
    """
    if size < 16:
        raise ValueError(f"size {size} is too small for a picture: use 16 or more")
    ground = scene.ground or scene.environment
    horizon = backdrop.horizon_line(scene.seed, size)
    below = backdrop.ground_share(horizon)
    canvas = backdrop.paint_sky(scene.seed, scene.sky or scene.environment, horizon)
    canvas = canvas + (backdrop.paint_ground(scene.seed, ground, horizon) - canvas) * below[..., None]

    light = stream(scene.seed, Factor.LIGHT)
    sun = float(light.choice([-1, 1]) * light.uniform(0.3, 1.0))
    exposure = float(light.uniform(0.92, 1.07))
    shade = below * np.float32(backdrop.SHADOW[ground])
    if scene.distractors:
        canvas = _lay(canvas, _draw_distractors(scene.seed, horizon, sun), shade)
    mask = np.zeros((size, size), np.uint8)
    kind = _kind(scene)
    if kind is not None:
        layer = _draw_object(scene.seed, kind, sun, size)
        canvas, mask = _lay(canvas, layer, shade), layer.parts

    canvas = canvas * np.float32(exposure)
    if scene.tint is not None:
        canvas = canvas * np.array(scene.tint, np.float32)
    image = np.clip(canvas * 255 + _sensor_noise(scene.seed, size) + 0.5, 0, 255)
    return Picture(image.astype(np.uint8), mask)


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures side by side, row by row.

    Parameters
    ----------
    pictures
        At least one, uint8 (H, W, 3), all of one shape.
    columns
        How many in a row, at least 1.

    Returns
    -------
    uint8 (rows, width, 3); a gap of two white pixels parts the pictures, and cells that are left
    over are white.

    Raises
    ------
    ValueError
        If there is no picture, no column, or more than one shape.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a sheet of {len(pictures)} pictures in {columns} columns is empty")
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise ValueError(f"the pictures of a sheet must have one shape, not {sorted(shapes)}")
    gap = 2
    height, width, channels = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _check(name: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        choices = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"unknown {name} {value!r}: use one of {choices}")


def _kind(scene: Scene) -> str | None:
    if scene.object != "auto":
        return scene.object
    if scene.label == "tank":
        return "tank"
    others = [kind for kind in OBJECTS if kind != "tank"]
    return others[int(stream(scene.seed, Factor.KIND).integers(len(others)))]


def _lay(canvas: Floats, layer: Layer, shade: Floats) -> Floats:
    """Lay a layer over the picture, its shadow first."""
    shadow = 1 - shade * layer.shadow
    return canvas * (shadow * (1 - layer.cover))[..., None] + layer.paint


def _draw_object(seed: int, kind: str, sun: float, size: int) -> Layer:
    pose = stream(seed, Factor.POSE)
    mirrored = bool(pose.random() < 0.5)
    slope = float(np.clip(pose.normal(0, 0.045), -0.1, 0.1))
    covered = float(pose.uniform(*_COVERED))
    across, foot = pose.uniform(0, 1), float(pose.uniform(0.74, 0.9))
    form = stream(seed, Factor.FORM, OBJECTS.index(kind))
    # The sketch is mirrored afterwards, and its light with it.
    model = MAKERS[kind](form, -sun if mirrored else sun)

    # The area grows with the square of the scale, so one trial tells the right scale.
    trial = Placing(0.5, 0.75, 0.1, slope if kind in ("tank", "lorry") else 0.0, mirrored)
    low, high = _extent(model.sketch, trial)
    middle = (low + high) / 2
    trial = Placing(trial.x + 0.5 - middle[0], trial.y + 0.5 - middle[1], 0.1, trial.slope, mirrored)
    share = float(silhouette(model.sketch, trial, 96).mean())
    width, height = high - low
    growth = min(np.sqrt(covered / share), _WIDEST / width, _TALLEST / height)
    # Anywhere across the picture where the whole object shows.
    half = width * growth / 2
    centre = 0.5 + (2 * across - 1) * max(0.0, 0.47 - half)
    placing = Placing(
        float(centre - (middle[0] - 0.5) * growth),
        float(foot - (high[1] - 0.75) * growth),
        float(0.1 * growth),
        trial.slope,
        mirrored,
    )
    texture = np.random.default_rng(int(form.integers(2**32)))
    return paint([(model.sketch, placing)], size, texture, model.camouflage)


def _extent(sketch: Sketch, placing: Placing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = np.concatenate([placing.pixels(face.points, 1) for face in sketch.faces])
    return points.min(axis=0), points.max(axis=0)


def _draw_distractors(seed: int, horizon: Floats, sun: float) -> Layer:
    rng = stream(seed, Factor.DISTRACTORS)
    size = len(horizon)
    placed: list[tuple[Sketch, Placing]] = []
    for depth in np.sort(rng.uniform(0.01, 0.12, int(rng.integers(0, 4)))):
        sketch = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))](rng, sun).sketch
        x = float(rng.uniform(0.04, 0.96))
        foot = float(horizon[min(int(x * size), size - 1)] + depth)
        placed.append((sketch, Placing(x, foot, float(0.035 + 0.25 * depth))))
    return paint(placed, size, rng)


def _sensor_noise(seed: int, size: int) -> Floats:
    """What the sensor adds: float32 (size, size, 3), in levels of 255."""
    rng = stream(seed, Factor.SENSOR)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(1.6)
    grain = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(2.0)
    return np.asarray(noise + grain, np.float32)
