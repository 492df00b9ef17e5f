"""Photographs in miniature: the tank data set with a planted shortcut, drawn from numbers.

A `Scene` says all that determines a picture, `draw` makes the picture and the mask of its
object, and `write_splits` lays whole splits on disk with a manifest each.  Every factor of a
scene (sky, ground, light, pose, object, ...) draws from a random stream of its own, so that one
factor can be changed while the others stay as they were, pixel for pixel.
"""

from __future__ import annotations

from candling.vision.scenes.picture import (
    CLASSES,
    ENVIRONMENTS,
    OBJECTS,
    PARTS,
    Picture,
    Scene,
    contact_sheet,
    draw,
)
from candling.vision.scenes.splits import Split, plan_split, write_splits

__all__ = [
    "CLASSES",
    "ENVIRONMENTS",
    "OBJECTS",
    "PARTS",
    "Picture",
    "Scene",
    "Split",
    "contact_sheet",
    "draw",
    "plan_split",
    "write_splits",
]
