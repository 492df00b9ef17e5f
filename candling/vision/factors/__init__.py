"""Factors that are not places (light, colour, focus, size): does raising one move predictions one way?"""

from candling.vision.factors.explaining import explained, most_outside, through_places
from candling.vision.factors.results import DoseSettings, FactorTest, Point
from candling.vision.factors.testing import dose_response, evaluations
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
    "most_outside",
    "through_places",
]
