"""Attacks: changes of a picture that a person does not see, and for which a model sees another class.

A goal says what each row is to be taken for (`Targeted`) or no longer (`Untargeted`), a method how it gets
there: `GradientDescent`, the textbook's, or projected gradient descent within a ball, `LinfPGD` and `L2PGD`.
`attack` runs rows through a method, `smallest_epsilon` finds the smallest ball in which each row succeeds;
`candling.vision.tricking` is both for one picture, as a result that shows itself.

Normalisation is the model's own (`candling.models.Classifier`) and pictures stay in [0, 1]. By default the
model sees each picture as it would be saved, in 8 bits, in every step, so that what fooled it is the very
PNG that is written.
"""

from candling.vision.adversarial.attacking import Attacked, attack
from candling.vision.adversarial.goals import Goal, Targeted, Untargeted
from candling.vision.adversarial.methods import L2PGD, GradientDescent, LinfPGD, Method
from candling.vision.adversarial.smallest import Smallest, every_pair, smallest_epsilon

__all__ = [
    "Attacked",
    "Goal",
    "GradientDescent",
    "L2PGD",
    "LinfPGD",
    "Method",
    "Smallest",
    "Targeted",
    "Untargeted",
    "attack",
    "every_pair",
    "smallest_epsilon",
]
