"""Faithfulness: whether a map shows what the model uses.

`curves` adds and takes away pixels in the order of a map; `over_controls` holds that against maps that know
nothing of the model, random ones and the centre. `rise_in_complexity` sees whether a map depends on what the
model has learned, `stability` whether it stays where the prediction does. Where objects have masks, `located`
tells how much of a map lies on them, beside chance. Every score is checked to lie in its range.
"""

from candling.vision.faithfulness.controls import OverControls, centre_gaussian, over_controls, random_maps
from candling.vision.faithfulness.curves import Baseline, Curves, curves, insertion_minus_deletion
from candling.vision.faithfulness.location import (
    Located,
    located,
    pointing_game,
    rank_accuracy,
    relevance_mass,
)
from candling.vision.faithfulness.sanity import (
    Randomised,
    Stability,
    complexity,
    randomised,
    rise_in_complexity,
    stability,
)
from candling.vision.isolation.order import order_of

__all__ = [
    "Baseline",
    "Curves",
    "Located",
    "OverControls",
    "Randomised",
    "Stability",
    "centre_gaussian",
    "complexity",
    "curves",
    "insertion_minus_deletion",
    "located",
    "order_of",
    "over_controls",
    "pointing_game",
    "random_maps",
    "randomised",
    "rank_accuracy",
    "relevance_mass",
    "rise_in_complexity",
    "stability",
]
