"""Small solids seen from a little above, and the layer of paint that they become.

A `Sketch` collects flat faces in the order in which they are painted.  Its solids live in a
right-handed world of metres or so: x along the object, y up, z away from the viewer, the ground
at y = 0.  `paint` lays sketches on a canvas finer than the picture and averages it down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from candling.vision.scenes.noise import Floats, blotches

Points = NDArray[np.float64]

# The canvas is this many times finer than the picture.
FINER = 3


class Material(IntEnum):
    """What a face is made of, for its texture."""

    PLAIN = 0
    CAMOUFLAGE = 1
    LEAVES = 2
    STONE = 3


@dataclass(frozen=True)
class Face:
    """One flat face, already projected: points (N, 2), x to the right and y up."""

    points: Points
    colour: Floats
    part: int
    material: Material


@dataclass
class Sketch:
    """Faces to paint, and the patch of ground on which the object stands.

    Attributes
    ----------
    yaw
        How far the object is turned, radians; positive shows the end at +x.
    tilt
        How far above the object the viewer stands, radians.
    sun
        Where the light comes from, from -1 (the left) to 1 (the right).
    part
        The part id that new faces get.
    """

    yaw: float = 0.0
    tilt: float = 0.15
    sun: float = 0.5
    part: int = 5
    faces: list[Face] = field(default_factory=list)
    ground: list[Points] = field(default_factory=list)

    def project(self, points: Points) -> Points:
        """Where points (..., 3) of the world are seen: (..., 2)."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
        away = z * np.cos(self.yaw) - x * np.sin(self.yaw)
        return np.stack([across, y * np.cos(self.tilt) + away * np.sin(self.tilt)], axis=-1)

    def flat(self, points: Points, colour: Floats, material: Material = Material.PLAIN) -> None:
        """Paint a polygon given as it is seen, (N, 2)."""
        self.faces.append(Face(points, colour, self.part, material))

    def face(self, points: Points, colour: Floats, material: Material = Material.PLAIN) -> None:
        """Paint a polygon of the world, (N, 3), lit by its slope, whichever side is seen."""
        normal = _normal(points)
        if normal @ self._viewer() < 0:
            normal = -normal
        self.flat(self.project(points), self._lit(colour, normal), material)

    def loft(
        self,
        first: Points,
        last: Points,
        colour: Floats,
        material: Material = Material.PLAIN,
        *,
        caps: bool = True,
    ) -> None:
        """Paint the seen faces of a convex solid between two polygons (N, 3)."""
        centre = (first.mean(axis=0) + last.mean(axis=0)) / 2
        quads = np.stack([first, np.roll(first, -1, axis=0), np.roll(last, -1, axis=0), last], axis=1)
        polygons = [*quads, first, last] if caps else [*quads]
        normals = np.stack([_normal(polygon) for polygon in polygons])
        outward = np.stack([polygon.mean(axis=0) for polygon in polygons]) - centre
        normals *= np.where((normals * outward).sum(axis=1) < 0, -1.0, 1.0)[:, None]
        # Of a convex solid the faces turned to the viewer hide all others and never overlap.
        for index in np.flatnonzero(normals @ self._viewer() > 1e-9):
            self.flat(self.project(polygons[index]), self._lit(colour, normals[index]), material)

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Floats,
        material: Material = Material.PLAIN,
    ) -> None:
        """Paint an upright box."""
        self.slab([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], z, colour, material)

    def slab(
        self,
        profile: Sequence[tuple[float, float]],
        z: tuple[float, float],
        colour: Floats,
        material: Material = Material.PLAIN,
    ) -> None:
        """Paint a solid whose side view, in x and y, is a convex polygon."""
        self.loft(side_view(profile, z[0]), side_view(profile, z[1]), colour, material)

    def wheel(self, x: float, y: float, z: float, radius: float, colour: Floats) -> None:
        """Paint the disc of a wheel that faces the viewer."""
        self.flat(self.project(side_view(_circle(x, y, radius), z)), colour)

    def stand_on(self, x: tuple[float, float], z: tuple[float, float], height: float) -> None:
        """Say where the object touches the ground, and how far its shadow reaches."""
        shift = -self.sun * 0.3 * height
        for away in (0.0, shift / 2, shift):
            corners = [(x[0] + away, z[0]), (x[1] + away, z[0])]
            corners += [(x[1] + away, z[1]), (x[0] + away, z[1])]
            self.ground.append(self.project(np.array([(px, 0.0, pz) for px, pz in corners])))

    def _viewer(self) -> Points:
        level = math.cos(self.tilt)
        return np.array([math.sin(self.yaw) * level, math.sin(self.tilt), -math.cos(self.yaw) * level])

    def _lit(self, colour: Floats, normal: Points) -> Floats:
        x, y, z = normal.tolist()
        towards = (0.55 * self.sun * x + 0.8 * y - 0.35 * z) / math.hypot(0.55 * self.sun, 0.8, 0.35)
        # From the deepest shade to full light; never black, for the sky lights all sides a little.
        return np.asarray(colour * np.float32(0.62 + 0.52 * max(0.0, towards)), np.float32)


@dataclass(frozen=True)
class Placing:
    """Where a sketch goes in the picture, in shares of its side (y down, `scale` per metre)."""

    x: float
    y: float
    scale: float
    slope: float = 0.0
    mirrored: bool = False

    def pixels(self, points: Points, size: int) -> Points:
        """Pixel coordinates (N, 2) of points (N, 2) of a sketch, in a picture of `size`."""
        x = -points[:, 0] if self.mirrored else points[:, 0]
        y = points[:, 1]
        across = x * np.cos(self.slope) - y * np.sin(self.slope)
        up = x * np.sin(self.slope) + y * np.cos(self.slope)
        return np.stack([self.x + self.scale * across, self.y - self.scale * up], axis=-1) * size


@dataclass(frozen=True)
class Layer:
    """Paint to lay over a picture.

    Attributes
    ----------
    paint
        float32 (H, W, 3), the colours times `cover`.
    cover
        float32 (H, W), from 0 to 1.
    parts
        uint8 (H, W), the part that covers most of each pixel touched, else 0.
    shadow
        float32 (H, W), from 0 to 1.
    """

    paint: Floats
    cover: Floats
    parts: NDArray[np.uint8]
    shadow: Floats


def paint(
    placed: Sequence[tuple[Sketch, Placing]],
    size: int,
    rng: np.random.Generator,
    camouflage: Floats | None = None,
) -> Layer:
    """Paint sketches, the first farthest back, as a layer of `size` pixels a side.

    Parameters
    ----------
    placed
        The sketches and where they go.
    size
        Side of the picture in pixels.
    rng
        Draws the textures.
    camouflage
        What the colour of `Material.CAMOUFLAGE` is multiplied by in its blotches, (3,).
    """
    fine = size * FINER
    colours = Image.new("RGB", (fine, fine))
    codes = Image.new("L", (fine, fine))  # part and material in one, to draw it only once
    colour_brush, code_brush = ImageDraw.Draw(colours), ImageDraw.Draw(codes)
    for sketch, placing in placed:
        for face, outline in zip(sketch.faces, outlines(sketch, placing, fine), strict=True):
            red, green, blue = (min(255, int(c * 255 + 0.5)) for c in face.colour.tolist())
            colour_brush.polygon(outline, fill=(red, green, blue))
            code_brush.polygon(outline, fill=face.part * 8 + int(face.material))

    paint_layer = np.zeros((size, size, 3), np.float32)
    cover = np.zeros((size, size), np.float32)
    parts = np.zeros((size, size), np.uint8)
    shadow = _shadow(placed, size)
    box = codes.getbbox()
    if box is None:
        return Layer(paint_layer, cover, parts, shadow)

    # Work only where there is paint, on whole pixels of the picture.
    left, top = box[0] // FINER, box[1] // FINER
    right, bottom = -(-box[2] // FINER), -(-box[3] // FINER)
    crop = (left * FINER, top * FINER, right * FINER, bottom * FINER)
    code = np.asarray(codes.crop(crop), np.uint8)
    rgb = np.asarray(colours.crop(crop), np.float32) / np.float32(255)
    rgb = rgb * _texture(code & 7, rng, camouflage)
    here = (slice(top, bottom), slice(left, right))
    paint_layer[here] = _average(rgb)
    cover[here] = _average((code > 0).astype(np.float32))
    part = code >> 3
    ids = np.flatnonzero(np.bincount(part.ravel()))
    ids = ids[ids > 0].astype(np.uint8)
    shares = np.stack([_average((part == i).astype(np.float32)) for i in ids])
    parts[here] = np.where(shares.max(axis=0) > 0, ids[shares.argmax(axis=0)], 0)
    return Layer(paint_layer, cover, parts, shadow)


def outlines(sketch: Sketch, placing: Placing, size: int) -> list[list[float]]:
    """The outline of every face in a picture of `size`, as x, y, x, y, ... in pixels."""
    # All at once, as a call for each of a hundred small faces costs more than the drawing.
    points = placing.pixels(np.concatenate([face.points for face in sketch.faces]), size)
    flat = points.ravel().tolist()
    ends = np.cumsum([2 * len(face.points) for face in sketch.faces]).tolist()
    return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def silhouette(sketch: Sketch, placing: Placing, size: int) -> NDArray[np.bool_]:
    """Which pixels (size, size) a sketch covers, without its colours: quick."""
    image = Image.new("L", (size, size))
    brush = ImageDraw.Draw(image)
    for outline in outlines(sketch, placing, size):
        brush.polygon(outline, fill=1)
    return np.asarray(image, np.bool_)


def side_view(profile: Sequence[tuple[float, float]], z: float) -> Points:
    """A polygon of the world (N, 3) from its corners in x and y, all at depth `z`."""
    return np.array([(x, y, z) for x, y in profile])


def top_view(
    outline: Sequence[tuple[float, float]], y: float, turn: float = 0.0, about: float = 0.0
) -> Points:
    """A polygon of the world (N, 3) from its corners in x and z, turned about the point `about`."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array(
        [((x - about) * cos - z * sin + about, y, (x - about) * sin + z * cos) for x, z in outline]
    )


def _circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]


def _normal(polygon: Points) -> Points:
    # The diagonals of the first four corners also serve where two of them fall together.
    (ax, ay, az), (bx, by, bz) = (
        (polygon[2] - polygon[0]).tolist(),
        (polygon[-1] - polygon[1]).tolist(),
    )
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return np.array([x, y, z]) / (math.hypot(x, y, z) or 1.0)


def _average(fine: Floats) -> Floats:
    # Sums of slices are several times faster than a mean over two short axes.
    slices = [fine[i::FINER, j::FINER] for i in range(FINER) for j in range(FINER)]
    total = slices[0].copy()
    for values in slices[1:]:
        total += values
    return total / np.float32(FINER**2)


def _texture(
    material: NDArray[np.integer[Any]], rng: np.random.Generator, camouflage: Floats | None
) -> Floats:
    """What the flat colours are multiplied by: float32 (H, W, 3)."""
    height, width = material.shape
    fine = blotches(rng, width, height, 46)
    middle = blotches(rng, width, height, 18)
    coarse = blotches(rng, width, height, 9)
    texture = np.ones((height, width, 3), np.float32)
    texture += (0.14 * (fine - 0.5))[..., None]
    leaves, stone = material == Material.LEAVES, material == Material.STONE
    texture[leaves] += (0.6 * (fine[leaves] - 0.5) + 0.4 * (middle[leaves] - 0.5))[:, None]
    texture[stone] += (0.25 * (fine[stone] - 0.5) + 0.35 * (middle[stone] - 0.5))[:, None]
    if camouflage is not None:
        texture[(material == Material.CAMOUFLAGE) & (coarse > 0.55)] *= camouflage
    return texture


def _shadow(placed: Sequence[tuple[Sketch, Placing]], size: int) -> Floats:
    shade = Image.new("L", (size, size))
    brush = ImageDraw.Draw(shade)
    for sketch, placing in placed:
        for patch in sketch.ground:
            brush.polygon(placing.pixels(patch, size).ravel().tolist(), fill=255)
    soft = shade.filter(ImageFilter.GaussianBlur(size * 0.016))
    return np.asarray(soft, np.float32) / np.float32(255)
