"""Entanglement: does the prototype of class c also excite class k, and more than chance has it?

    e(c→k) = mean over prototypes p of c of  z_k(p) / z_c(p)
    m(c,k) = min(e(c→k), e(k→c))

where z_k(x) is the centred logit of k (logit minus the mean over classes) in standard deviations from its
mean over natural pictures. Neither changes when logits are scaled or shifted. 1 means that c's prototype
excites k as much as c itself, 0 not at all; with two classes e is -1 by construction.

`entanglement` computes both with intervals over seeds and tests every pair against the prototypes of
unrelated classes (`null`); `surprising` lists pairs that names, embeddings or a hierarchy do not explain
(`explained`); `rank_correlation` holds the matrix against confusions and costs of attacks (`validation`);
`draw` shows it.
"""

from candling.vision.entanglement.embedding import head_weights
from candling.vision.entanglement.explained import (
    embedding_similarity,
    hierarchy_similarity,
    name_similarity,
    surprise,
    surprising,
)
from candling.vision.entanglement.heatmap import clustered, draw
from candling.vision.entanglement.matrix import Entanglement, entanglement
from candling.vision.entanglement.null import FEWEST, beyond_unrelated, discovered, pairs_beyond_unrelated
from candling.vision.entanglement.tables import TOP, directed_table, pair_table
from candling.vision.entanglement.validation import confusions, rank_correlation

__all__ = [
    "FEWEST",
    "TOP",
    "Entanglement",
    "beyond_unrelated",
    "clustered",
    "confusions",
    "directed_table",
    "discovered",
    "draw",
    "embedding_similarity",
    "entanglement",
    "head_weights",
    "hierarchy_similarity",
    "name_similarity",
    "pair_table",
    "pairs_beyond_unrelated",
    "rank_correlation",
    "surprise",
    "surprising",
]
