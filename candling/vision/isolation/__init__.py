"""Isolation: which parts of an image a prediction uses.

`isolate` is the one way in. `Hierarchical`, the default, hides and shows windows from coarse to fine and
needs no gradient; `Mask` learns the smallest part that is enough; `Windows` slides one window, over donors
where there are some; `IntegratedGradients`, `GradCAM` and `Attention` are references from the literature.
"""

from candling.vision.isolation.evidence import evidence_share, faded, object_shapley
from candling.vision.isolation.fills import blurred_fill
from candling.vision.isolation.gradients import Attention, GradCAM, IntegratedGradients
from candling.vision.isolation.hierarchical import Hierarchical
from candling.vision.isolation.isolating import METHODS, Isolation, Method, isolate, method_named
from candling.vision.isolation.mask import Mask
from candling.vision.isolation.windows import Windows, window_size, windows_of

__all__ = [
    "METHODS",
    "Attention",
    "GradCAM",
    "Hierarchical",
    "IntegratedGradients",
    "Isolation",
    "Mask",
    "Method",
    "Windows",
    "blurred_fill",
    "evidence_share",
    "faded",
    "isolate",
    "method_named",
    "object_shapley",
    "window_size",
    "windows_of",
]
