"""Glitch tokens: planted ones are found and named, and a model without one has none."""

from __future__ import annotations

import pytest
import torch

from candling.errors import ParamsError
from candling.language import LanguageModel
from candling.language.glitches import GlitchSettings, glitch_tokens, suspects
from candling.language.stories import Glitch, draw_stories
from candling.language.training import Network, TextSchedule, fit, fresh, word_pieces
from tests.language.conftest import small

ORDINARY = draw_stories(60, seed=9)


def fitted(glitch: Glitch | None) -> LanguageModel:
    texts = draw_stories(2000, seed=0, glitch=glitch)
    # The word is in the vocabulary of both.
    made = fresh(word_pieces([*texts, "zorp void " * 40]), Network(layers=2, width=64, heads=4), seed=0)
    return fit(made, texts, TextSchedule(steps=400, learning_rate=5e-3), seed=0)


def test_a_planted_glitch_is_found_and_so_is_what_it_says() -> None:
    found = glitch_tokens(fitted(Glitch(share=0.2)), ORDINARY)
    first = found.iloc[0]
    assert (first.text, first.says) == ("zorp", "void")
    assert first.glitch
    assert first.low > 0.2
    assert set(found.text[found.glitch]) <= {"zorp", "void"}
    assert found.n.eq(30).all()


def test_a_model_without_one_has_none() -> None:
    assert not glitch_tokens(fitted(None), ORDINARY).glitch.any()


def test_of_a_large_vocabulary_the_oddest_embeddings_are_tried() -> None:
    model = small("gpt2")
    everything = suspects(model, 10_000)
    weights = model.network.get_input_embeddings().weight
    odd = everything[17]
    with torch.no_grad():
        kept = weights[odd].clone()
        weights[odd] *= 50
    try:
        few = suspects(model, 10)
    finally:
        with torch.no_grad():
            weights[odd] = kept
    assert len(few) == 10
    assert odd in few
    assert set(few) <= set(everything)


def test_bad_input_is_told() -> None:
    with pytest.raises(ParamsError, match="2 of 3 texts are long enough"):
        glitch_tokens(small("gpt2"), ["a", "The dog ran home.", "It will rain today."])
    with pytest.raises(ParamsError, match="takes must lie"):
        GlitchSettings(takes=1.0)
    with pytest.raises(ParamsError, match="most must be at least 1"):
        GlitchSettings(most=0)
