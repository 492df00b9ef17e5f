"""The tank, and the things that are not a tank, as sketches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from candling.vision.scenes.noise import Floats, colour
from candling.vision.scenes.sketch import Material, Points, Sketch, side_view, top_view

BARREL, TURRET, HULL, TRACKS, OTHER = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Model:
    """A sketch, and what its camouflage colour is multiplied by in the blotches, if any."""

    sketch: Sketch
    camouflage: Floats | None = None


Maker = Callable[[np.random.Generator, float], Model]

_DARK = colour(0x24241F)
_TANK_PAINTS = [
    (0x818C56, 0x5D673F),  # olive drab and dark green
    (0xB39F6C, 0x7A6238),  # sand and brown
    (0x8A9086, 0x666D68),  # field grey
    (0x6F8556, 0x9A885A),  # green and earth
    (0x9C9062, 0x69754A),  # khaki and green
]


def tank(rng: np.random.Generator, sun: float) -> Model:
    """A tank that drives to the right, seen from the side or from a quarter."""
    base_code, blotch_code = _TANK_PAINTS[int(rng.integers(len(_TANK_PAINTS)))]
    base = colour(base_code) * np.float32(rng.uniform(0.92, 1.1))
    camouflage = colour(blotch_code) / colour(base_code) if rng.random() < 0.65 else None
    sketch = Sketch(_quarter(rng), float(rng.uniform(0.1, 0.24)), sun)

    half = float(rng.uniform(1.65, 1.95))  # half the length
    width = float(rng.uniform(0.85, 1.0))  # half the width
    belt = 0.42  # width of a track
    height = float(rng.uniform(0.72, 0.86))  # of the tracks
    deck = height + float(rng.uniform(0.22, 0.34))

    _track(sketch, half, (width - belt, width), height)
    sketch.part = HULL
    lower = [(-half + 0.2, 0.3), (half - 0.3, 0.3), (half - 0.05, 0.6), (-half, 0.6)]
    sketch.slab(lower, (-width + belt, width - belt), base * np.float32(0.8))
    _track(sketch, half, (-width, -width + belt), height)
    _wheels(sketch, half, -width, height, base, count=int(rng.integers(5, 7)))

    sketch.part = HULL
    nose = float(rng.uniform(0.5, 0.95))  # length of the sloping front
    upper = [
        (-half + 0.02, height - 0.08),
        (half - 0.02, height - 0.08),
        (half + 0.03, height),
        (half - nose, deck),
        (-half + 0.18, deck),
        (-half - 0.02, height + 0.02),
    ]
    sketch.slab(upper, (-width, width), base, Material.CAMOUFLAGE)
    if rng.random() < 0.35:  # skirts over the upper run of the tracks
        panels = np.linspace(-half + 0.25, half - 0.35, 5)
        for left, right in pairwise(panels):
            corners = [(left, height - 0.36), (right - 0.05, height - 0.36)]
            corners += [(right - 0.05, height - 0.05), (left, height - 0.05)]
            sketch.face(side_view(corners, -width - 0.02), base, Material.CAMOUFLAGE)
    if rng.random() < 0.6:  # a stowage box behind
        sketch.box((-half + 0.1, -half + 0.6), (deck, deck + 0.18), (-0.6, 0.6), base * 0.85)

    turn = float(rng.uniform(-0.3, 0.3))
    seat = float(rng.uniform(-0.35, 0.1))
    pieces = [_turret, _barrel]
    if sketch.yaw - turn < 0:  # the gun points away, so the turret hides where it begins
        pieces.reverse()
    for piece in pieces:
        piece(sketch, rng, base, seat, turn, deck)
    sketch.stand_on((-half, half), (-width, width), deck + 0.5)
    return Model(sketch, camouflage)


def _track(sketch: Sketch, half: float, z: tuple[float, float], height: float) -> None:
    sketch.part = TRACKS
    profile = [
        (-half + 0.5, 0.0),
        (half - 0.5, 0.0),
        (half - 0.22, 0.1),
        (half - 0.02, 0.36),
        (half, 0.55),
        (half - 0.1, height - 0.08),
        (half - 0.25, height),
        (-half + 0.25, height),
        (-half + 0.1, height - 0.08),
        (-half, 0.55),
        (-half + 0.02, 0.36),
        (-half + 0.22, 0.1),
    ]
    sketch.slab(profile, z, colour(0x37352F))
    middle = np.array([0.0, height / 2])
    inner = [tuple(middle + (np.array(p) - middle) * (0.955, 0.8)) for p in profile]
    sketch.face(side_view(inner, z[0]), colour(0x1C1B18))


def _wheels(sketch: Sketch, half: float, z: float, height: float, base: Floats, count: int) -> None:
    rim, hub = base * np.float32(0.72), base * np.float32(0.42)
    radius = min(0.29, (half - 0.42) / count)
    road = [(x, radius + 0.1, radius) for x in np.linspace(-half + 0.68, half - 0.68, count)]
    ends = [(-half + 0.27, 0.5, 0.21), (half - 0.27, 0.5, 0.21)]
    for x, y, size in [*ends, *road]:
        sketch.wheel(float(x), y, z - 0.01, size, rim)
        sketch.wheel(float(x), y, z - 0.02, size * 0.4, hub)


def _turret(
    sketch: Sketch, rng: np.random.Generator, base: Floats, seat: float, turn: float, deck: float
) -> None:
    sketch.part = TURRET
    long = float(rng.uniform(0.8, 0.98))
    wide = float(rng.uniform(0.66, 0.78))
    tall = float(rng.uniform(0.48, 0.62))
    outline = [(1.0, -0.45), (1.0, 0.45), (0.45, 1.0), (-0.7, 1.0)]
    outline += [(-1.05, 0.6), (-1.05, -0.6), (-0.7, -1.0), (0.45, -1.0)]
    foot = [(seat + long * x, wide * z) for x, z in outline]
    roof = [(seat - 0.05 + 0.74 * long * x, 0.74 * wide * z) for x, z in outline]
    paint = base * np.float32(1.06)
    sketch.loft(
        top_view(foot, deck, turn, seat),
        top_view(roof, deck + tall, turn, seat),
        paint,
        Material.CAMOUFLAGE,
    )
    ring = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    hatch = [(seat - 0.25 + 0.24 * np.cos(a), -0.12 + 0.24 * np.sin(a)) for a in ring]
    sketch.loft(
        top_view(hatch, deck + tall, turn, seat),
        top_view(hatch, deck + tall + 0.13, turn, seat),
        paint,
    )


def _barrel(
    sketch: Sketch, rng: np.random.Generator, base: Floats, seat: float, turn: float, deck: float
) -> None:
    sketch.part = BARREL
    length = float(rng.uniform(1.75, 2.4))
    rise = float(np.radians(rng.uniform(-2, 16)))
    thick = float(rng.uniform(0.085, 0.11))
    start = np.array([seat + 0.72, deck + 0.27, 0.0])
    ahead = np.array([np.cos(rise), np.sin(rise), 0.0])
    cos, sin = np.cos(turn), np.sin(turn)

    def at(distance: float) -> Points:
        x, y, z = start + ahead * distance - (seat, 0, 0)
        return sketch.project(np.array([x * cos - z * sin + seat, y, x * sin + z * cos]))

    def tube(near: float, far: float, radius: float) -> None:
        first, last = at(near), at(far)
        along = (last - first) / np.linalg.norm(last - first)
        up = np.array([-along[1], along[0]]) * radius
        # A lit upper and a shaded lower half make it round.
        sketch.flat(np.stack([first, last, last + up, first + up]), base * np.float32(1.05))
        sketch.flat(np.stack([first - up, last - up, last, first]), base * np.float32(0.55))

    tube(0.0, length, thick)
    tube(0.0, 0.3, thick * 1.7)  # the mantlet
    if rng.random() < 0.6:
        tube(length - 0.28, length, thick * 1.6)  # the muzzle brake


def lorry(rng: np.random.Generator, sun: float) -> Model:
    """A lorry that drives to the right."""
    sketch = Sketch(_quarter(rng), float(rng.uniform(0.1, 0.22)), sun, OTHER)
    paints = [0xB8352B, 0x2F5E9E, 0xE2E0D8, 0x56713F, 0xE0A62E, 0x7C8278]
    cab = colour(paints[int(rng.integers(len(paints)))])
    covers = [0xD9D4C4, 0x9AA08C, 0xC4CBD2, 0x7E7455]
    cover = colour(covers[int(rng.integers(len(covers)))])
    half, width = float(rng.uniform(1.75, 2.05)), 0.72
    top = float(rng.uniform(1.7, 2.0))
    front = half - float(rng.uniform(1.0, 1.2))  # where the load ends and the cab begins
    wheels = [-half + 0.45, half - 0.5] + ([-half + 1.2] if rng.random() < 0.6 else [])

    for x in wheels:
        sketch.wheel(x, 0.34, width, 0.34, _DARK)
    sketch.box((-half, half - 0.1), (0.35, 0.58), (-width + 0.1, width - 0.1), _DARK)
    if rng.random() < 0.5:  # a canvas tilt, else a box body
        arch = [(-width, 0.58), (width, 0.58), (width, top - 0.25), (0.4, top), (-0.4, top)]
        arch += [(-width, top - 0.25)]
        first, last = (np.array([(x, y, z) for z, y in arch]) for x in (-half, front - 0.08))
        sketch.loft(first, last, cover)
        for x in np.linspace(-half, front - 0.08, 5)[1:-1]:
            rib = [
                (x - 0.03, 0.62),
                (x + 0.03, 0.62),
                (x + 0.03, top - 0.25),
                (x - 0.03, top - 0.25),
            ]
            sketch.face(side_view(rib, -width - 0.01), cover * np.float32(0.8))
    else:
        sketch.box((-half, front - 0.08), (0.58, top), (-width, width), cover)
    roof = float(rng.uniform(1.45, 1.6))
    shape = [(front, 0.4), (half, 0.4), (half, 0.95), (half - 0.22, roof), (front, roof)]
    sketch.slab(shape, (-width, width), cab)
    glass = colour(0x26333F)
    window = [(front + 0.2, 0.98), (half - 0.16, 0.98), (half - 0.33, roof - 0.1)]
    sketch.face(side_view([*window, (front + 0.2, roof - 0.1)], -width - 0.01), glass)
    if sketch.yaw > 0:
        screen = [(half + 0.01, 1.0, -0.6), (half + 0.01, 1.0, 0.6)]
        screen += [(half - 0.19, roof - 0.08, 0.6), (half - 0.19, roof - 0.08, -0.6)]
        sketch.face(np.array(screen), glass)
    for x in wheels:
        sketch.wheel(x, 0.36, -width - 0.02, 0.38, _DARK)
        sketch.wheel(x, 0.36, -width - 0.03, 0.18, colour(0xA9A9A4))
    sketch.stand_on((-half, half), (-width, width), top)
    return Model(sketch)


def house(rng: np.random.Generator, sun: float) -> Model:
    """A house with a pitched roof, its long side to the viewer."""
    sketch = Sketch(_quarter(rng, 0.2, 0.65), float(rng.uniform(0.12, 0.24)), sun, OTHER)
    walls = [0xE9DFC6, 0xB5644A, 0xF0EEE8, 0xC9B48A, 0xA9B3B8]
    roofs = [0x9A3B2C, 0x5B4A42, 0x4C5158, 0xB4573A]
    wall = colour(walls[int(rng.integers(len(walls)))])
    tiles = colour(roofs[int(rng.integers(len(roofs)))])
    half, deep = float(rng.uniform(1.3, 1.7)), float(rng.uniform(0.85, 1.05))
    eaves = float(rng.uniform(1.05, 1.3))
    ridge = eaves + float(rng.uniform(0.75, 1.05))

    gable = [(-deep, 0.0), (-deep, eaves), (0.0, ridge), (deep, eaves), (deep, 0.0)]
    first, last = (np.array([(x, y, z) for z, y in gable]) for x in (-half, half))
    sketch.loft(first, last, wall)
    pane, door = colour(0x2E3A46), colour(0x5A3A26)
    frame = colour(0xF3F1EA)
    spots = np.linspace(-half, half, 4)
    for index, x in enumerate((spots[:-1] + spots[1:]) / 2):
        if index == 1:
            sketch.face(_panel(x, 0.24, 0.0, 0.85, -deep - 0.01), door)
        else:
            sketch.face(_panel(x, 0.3, 0.36, 0.92, -deep - 0.01), frame)
            sketch.face(_panel(x, 0.23, 0.43, 0.85, -deep - 0.02), pane)
    over = 0.14  # the roof juts out
    drop = (ridge - eaves) / deep * over
    slope = [(-deep - over, eaves - drop + 0.06), (0.0, ridge + 0.06)]
    slope += [(deep + over, eaves - drop + 0.06)]
    first, last = (np.array([(x, y, z) for z, y in slope]) for x in (-half - over, half + over))
    sketch.loft(first, last, tiles, caps=False)
    if rng.random() < 0.8:
        x = float(rng.uniform(-0.7, 0.7)) * half
        sketch.box((x - 0.16, x + 0.16), (ridge - 0.3, ridge + 0.4), (-0.14, 0.14), colour(0x8A4C3C))
    sketch.stand_on((-half, half), (-deep, deep), ridge)
    return Model(sketch)


def _panel(x: float, half: float, low: float, high: float, z: float) -> Points:
    return side_view([(x - half, low), (x + half, low), (x + half, high), (x - half, high)], z)


def tree(rng: np.random.Generator, sun: float) -> Model:
    """A broad-leaved tree or a conifer."""
    sketch = Sketch(0.0, 0.15, sun, OTHER)
    bark = colour(0x5B4632)
    if rng.random() < 0.5:
        _conifer(sketch, rng, bark)
    else:
        _crown(sketch, rng, bark)
    return Model(sketch)


def _crown(sketch: Sketch, rng: np.random.Generator, bark: Floats) -> None:
    leaf = _leaf_colour(rng)
    trunk = float(rng.uniform(0.9, 1.2))
    wide, tall = float(rng.uniform(1.0, 1.25)), float(rng.uniform(0.85, 1.05))
    middle = trunk + 0.72 * tall
    sketch.flat(
        np.array(
            [
                (-0.22, -0.04),
                (0.22, -0.04),
                (0.13, 0.3),
                (0.12, middle),
                (-0.12, middle),
                (-0.13, 0.3),
            ]
        ),
        bark,
    )
    sketch.flat(np.array([(0.0, -0.04), (0.22, -0.04), (0.12, middle), (0.0, middle)]), bark * 0.7)
    for end in (-0.6, 0.55):  # two boughs
        limb = [(-0.06, trunk * 0.75), (0.06, trunk * 0.75), (end * wide, middle)]
        sketch.flat(np.array(limb), bark * np.float32(0.85))
    _foliage(sketch, rng, (0.0, middle), (wide, tall), leaf, puffs=26)
    sketch.stand_on((-0.6 * wide, 0.6 * wide), (-0.3, 0.3), 1.4)


def _conifer(sketch: Sketch, rng: np.random.Generator, bark: Floats) -> None:
    leaf = colour([0x2F5A38, 0x3B6B3C, 0x2C5148][int(rng.integers(3))])
    sketch.flat(np.array([(-0.13, -0.04), (0.13, -0.04), (0.1, 0.7), (-0.1, 0.7)]), bark)
    wide, tall = float(rng.uniform(1.0, 1.2)), float(rng.uniform(2.9, 3.3))
    tiers = 6
    for tier in range(tiers):
        low = 0.42 + (tall - 0.55) * tier / tiers
        high = low + tall * (0.42 - 0.025 * tier)
        reach = wide * (1 - tier / (tiers + 0.6))
        tips = np.linspace(-reach, reach, 9)
        # Every other point of the hem is drawn in, as boughs hang down.
        hem = [
            (float(x), low + (0.16 if i % 2 else 0.0) + 0.12 * abs(float(x)) + rng.uniform(0, 0.05))
            for i, x in enumerate(tips)
        ]
        shade = np.float32(0.78 + 0.09 * tier)
        top = (0.0, min(high, 0.42 + tall))
        sketch.flat(np.array([*hem, top]), leaf * shade, Material.LEAVES)
        lit = hem[4:] if sketch.sun > 0 else hem[:5]
        sketch.flat(np.array([*lit, top]), leaf * shade * np.float32(1.25), Material.LEAVES)
    sketch.stand_on((-0.7 * wide, 0.7 * wide), (-0.35, 0.35), 1.4)


def bushes(rng: np.random.Generator, sun: float) -> Model:
    """A row of bushes that grows into one clump."""
    sketch = Sketch(0.0, 0.15, sun, OTHER)
    leaf = _leaf_colour(rng)
    count = int(rng.integers(3, 5))
    places = np.linspace(-1.15, 1.15, count) + rng.uniform(-0.12, 0.12, count)
    for x in rng.permutation(places):
        wide, tall = float(rng.uniform(0.62, 0.8)), float(rng.uniform(0.46, 0.66))
        _foliage(sketch, rng, (float(x), 0.85 * tall), (wide, tall), leaf, puffs=15)
    sketch.stand_on((-1.7, 1.7), (-0.35, 0.35), 0.8)
    return Model(sketch)


def bush(rng: np.random.Generator, sun: float) -> Model:
    """One small bush."""
    sketch = Sketch(0.0, 0.15, sun, OTHER)
    _foliage(sketch, rng, (0.0, 0.5), (0.75, 0.55), _leaf_colour(rng), puffs=9)
    sketch.stand_on((-0.7, 0.7), (-0.25, 0.25), 0.8)
    return Model(sketch)


def _leaf_colour(rng: np.random.Generator) -> Floats:
    greens = [0x4C7F34, 0x5F8F3A, 0x3F6F3F, 0x7B8F3C, 0xA07C34]
    return colour(greens[int(rng.integers(len(greens)))]) * np.float32(rng.uniform(0.95, 1.1))


def _foliage(
    sketch: Sketch,
    rng: np.random.Generator,
    middle: tuple[float, float],
    reach: tuple[float, float],
    leaf: Floats,
    puffs: int,
) -> None:
    """Leaves as puffs within an ellipse, dark below and behind, light above and in front."""
    angle = rng.uniform(0, 2 * np.pi, puffs)
    radius = np.sqrt(rng.random(puffs)) * 0.72
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    light = 0.5 + 0.36 * y + 0.3 * sketch.sun * x
    around = np.linspace(0, 2 * np.pi, 13, endpoint=False)
    body = np.stack([np.cos(around) * 0.86, np.sin(around) * 0.86], axis=-1)
    sketch.flat(body * reach + middle, leaf * np.float32(0.55), Material.LEAVES)
    for index in np.argsort(light):
        size = rng.uniform(0.3, 0.44) * (1 + rng.uniform(-0.14, 0.14, len(around)))
        outline = np.stack([x[index] + size * np.cos(around), y[index] + size * np.sin(around)], -1)
        strength = np.float32(0.5 + 0.85 * light[index])
        sketch.flat(outline * reach + middle, leaf * strength, Material.LEAVES)


def rocks(rng: np.random.Generator, sun: float) -> Model:
    """A few boulders in a heap."""
    sketch = Sketch(0.2, 0.2, sun, OTHER)
    stones = [0x9A958C, 0x8A8680, 0xA3907A]
    stone = colour(stones[int(rng.integers(len(stones)))])
    _boulder(sketch, rng, (0.35 * float(rng.uniform(-1, 1)), 0.5), (1.15, 0.8, 1.25), stone)
    side = 1.0 if rng.random() < 0.5 else -1.0
    _boulder(sketch, rng, (side * 1.0, 0.0), (0.85, 0.65, 0.85), stone * np.float32(0.94))
    _boulder(sketch, rng, (-side * 1.0, -0.15), (0.65, 0.5, 0.6), stone * np.float32(1.04))
    _boulder(sketch, rng, (-side * 0.15, -0.7), (0.42, 0.36, 0.34), stone)
    sketch.stand_on((-1.6, 1.6), (-0.7, 0.7), 1.0)
    return Model(sketch)


def rock(rng: np.random.Generator, sun: float) -> Model:
    """One boulder."""
    sketch = Sketch(0.2, 0.2, sun, OTHER)
    _boulder(sketch, rng, (0.0, 0.0), (0.8, 0.6, 0.7), colour(0x94908A))
    sketch.stand_on((-0.7, 0.7), (-0.4, 0.4), 0.7)
    return Model(sketch)


def _boulder(
    sketch: Sketch,
    rng: np.random.Generator,
    place: tuple[float, float],
    reach: tuple[float, float, float],
    stone: Floats,
) -> None:
    """A faceted stone at (x, z), reaching so far along x and z, and up."""
    around = np.linspace(0, 2 * np.pi, 7, endpoint=False) + rng.uniform(0, 0.9)
    rings = []
    for share, height in ((0.92, 0.0), (1.0, 0.4), (0.72, 0.8), (0.3, 1.0)):
        bumps = share * (1 + rng.uniform(-0.1, 0.1, len(around)))
        xs = place[0] + reach[0] * bumps * np.cos(around)
        zs = place[1] + reach[1] * bumps * np.sin(around)
        ys = reach[2] * (height + (rng.uniform(-0.06, 0.06, len(around)) if height else 0))
        rings.append(np.stack([xs, np.broadcast_to(ys, xs.shape), zs], axis=-1))
    for lower, upper in pairwise(rings):
        sketch.loft(lower, upper, stone, Material.STONE)


def _quarter(rng: np.random.Generator, low: float = 0.08, high: float = 0.55) -> float:
    """A yaw that shows a side, and a little or much of the front or the rear."""
    side = 1.0 if rng.random() < 0.65 else -1.0
    return side * float(rng.uniform(low, high))


MAKERS: dict[str, Maker] = {
    "tank": tank,
    "lorry": lorry,
    "house": house,
    "tree": tree,
    "rocks": rocks,
    "bushes": bushes,
}
DISTRACTORS: tuple[Maker, ...] = (bush, rock, tree)
