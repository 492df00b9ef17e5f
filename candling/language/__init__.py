"""The engine for language models: what makes them say something, and what in a prompt made them say it.

`open_language_model` reads a causal language model. `search_prompts` finds, over and over from new starts,
short prompts after which it says a target, and `associations` tells what such prompts share beyond those of
controls (`association_table`), confirmed in templates. `attribute` tells which parts of a given prompt drive
an output.
"""

from candling.language.associations import MapSettings, association_table, items_of
from candling.language.attribution import Attribution, attribute
from candling.language.continuous import Continuous
from candling.language.loading import LanguageModel, open_language_model
from candling.language.mapping import AssociationMap, associations, matched_controls
from candling.language.prompts import Prompts, search_prompts
from candling.language.scoring import log_probabilities, says
from candling.language.search import Discrete
from candling.language.targets import Target, read_lexicon, spelled, target_of

__all__ = [
    "AssociationMap",
    "Attribution",
    "Continuous",
    "Discrete",
    "LanguageModel",
    "MapSettings",
    "Prompts",
    "Target",
    "association_table",
    "associations",
    "attribute",
    "items_of",
    "log_probabilities",
    "matched_controls",
    "open_language_model",
    "read_lexicon",
    "says",
    "search_prompts",
    "spelled",
    "target_of",
]
