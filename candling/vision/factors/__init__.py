"""Factors that are not places (light, colour, focus, size): does raising one move predictions one way?"""

from candling.vision.factors.explaining import explained
from candling.vision.factors.testing import (
    DoseSettings,
    FactorTest,
    Point,
    dose_response,
    evaluations,
)
from candling.vision.factors.transforms import FACTORS, Factor

__all__ = [
    "FACTORS",
    "DoseSettings",
    "Factor",
    "FactorTest",
    "Point",
    "dose_response",
    "evaluations",
    "explained",
]
