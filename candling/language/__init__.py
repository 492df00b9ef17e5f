"""The engine for language models: what makes them say something, and what in a prompt made them say it.

`open_language_model` reads a causal language model, `attribute` tells which parts of a prompt drive an
output.
"""

from candling.language.attribution import Attribution, attribute
from candling.language.loading import LanguageModel, open_language_model
from candling.language.scoring import log_probabilities, says
from candling.language.targets import Target, read_lexicon, target_of

__all__ = [
    "Attribution",
    "LanguageModel",
    "Target",
    "attribute",
    "log_probabilities",
    "open_language_model",
    "read_lexicon",
    "says",
    "target_of",
]
