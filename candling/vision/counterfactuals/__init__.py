"""Counterfactuals: pictures that differ in one thing, to see whether the prediction follows it.

`swaps` cuts out objects with their masks. `suspect` needs no masks: evidence maps are pooled into candidates,
each is removed and transplanted, and told as confirmed only where it beats its placebos.
"""

from candling.vision.counterfactuals.candidates import Candidate, propose
from candling.vision.counterfactuals.inpainting import inpaint
from candling.vision.counterfactuals.places import Bench, PlaceTest, Route, Settings, examine_place
from candling.vision.counterfactuals.suspicion import (
    Tested,
    most_evaluations,
    predicts_in_groups,
    suspect,
)
from candling.vision.counterfactuals.swaps import (
    Swaps,
    associated_backgrounds,
    feathered,
    flat_background,
    pair_swaps,
    paste,
)

__all__ = [
    "Bench",
    "Candidate",
    "PlaceTest",
    "Route",
    "Settings",
    "Swaps",
    "Tested",
    "associated_backgrounds",
    "examine_place",
    "feathered",
    "flat_background",
    "inpaint",
    "most_evaluations",
    "pair_swaps",
    "paste",
    "predicts_in_groups",
    "propose",
    "suspect",
]
