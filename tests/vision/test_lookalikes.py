"""Classes that were made to look alike come out as entangled, and are those that are confused."""

from __future__ import annotations

import pytest
import torch

from benchmarks.entanglement import lookalikes
from benchmarks.lookalikes import CLASSES, PAIRS, SIDE, draw, pictures
from candling.vision.entanglement import rank_correlation


def test_pictures_are_of_their_seed_and_class() -> None:
    images, labels = pictures(2, seed=5)
    assert images.shape == (2 * len(CLASSES), 3, SIDE, SIDE)
    assert labels.bincount().tolist() == [2] * len(CLASSES)
    again, _ = pictures(2, seed=5)
    assert torch.equal(images, again)
    assert len({image.numpy().tobytes() for image in images}) == len(images)
    same_place = {draw(name, 7).tobytes() for name in CLASSES}
    assert len(same_place) == len(CLASSES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_made_pairs_rank_first_and_are_confused() -> None:
    found, counts = lookalikes()
    made = {tuple(sorted((CLASSES.index(a), CLASSES.index(b)))) for a, b in PAIRS}
    assert {tuple(pair) for pair in found.pairs()[: len(made)].tolist()} == made
    significant = {tuple(pair) for pair in found.significant().tolist()}
    assert len(significant & made) >= 3
    assert len(significant - made) <= 1
    correlation = rank_correlation(found.mutual, counts=counts)
    assert correlation is not None
    assert correlation.low > 0
