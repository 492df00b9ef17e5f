"""Small models that are fitted, and perplexity held against the loss that transformers computes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from candling.errors import ModelError, ParamsError
from candling.language import LanguageModel, open_language_model
from candling.language.stories import draw_stories
from candling.language.training import (
    Network,
    TextSchedule,
    fit,
    fresh,
    perplexity,
    save_language_model,
    word_pieces,
)
from candling.models import folder_digest
from tests.language.conftest import small

STORIES = draw_stories(300, seed=0)
TINY = Network(layers=1, width=32, heads=2)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return fresh(word_pieces(STORIES), TINY, seed=0)


def test_words_come_back_and_a_text_begins_with_bos(model: LanguageModel) -> None:
    text = STORIES[0]
    assert model.decode(model.encode(text)) == text
    assert model.start == (model.tokenizer.bos_token_id,)
    assert model.tokenizer.encode(text) == [*model.start, *model.encode(text)]


def test_a_tokenizer_is_the_same_each_time_and_spells_what_is_rare() -> None:
    one, other = (word_pieces(STORIES, 160) for _ in range(2))
    assert one.get_vocab() == other.get_vocab()
    # A word of one letter is among the letters already.
    assert 150 < len(one) <= 160
    tokens = one.tokenize("brat was there")
    assert tokens[-2:] == ["was", "there"]
    assert all(len(token.removeprefix("##")) == 1 for token in tokens[:-2])
    assert one.decode(one.encode("was there", add_special_tokens=False)) == "was there"


def test_training_lowers_perplexity_and_leaves_the_model_as_it_was(model: LanguageModel) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    fitted = fit(model, STORIES, TextSchedule(steps=40), seed=0)
    assert perplexity(fitted, STORIES).value < 0.5 * perplexity(model, STORIES).value
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert not any(p.requires_grad for p in fitted.network.parameters())
    assert not fitted.network.training


def test_the_same_seed_fits_the_same(model: LanguageModel) -> None:
    one, other = (fit(model, STORIES, TextSchedule(steps=3), seed=1) for _ in range(2))
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])


def test_a_fresh_model_draws_from_its_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = fresh(word_pieces(STORIES), TINY, seed=3)
    assert torch.equal(torch.rand(3), expected)
    other = fresh(word_pieces(STORIES), TINY, seed=3)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])


def test_perplexity_is_that_of_transformers(model: LanguageModel) -> None:
    texts = STORIES[:7]
    total = count = 0.0
    for text in texts:
        ids = torch.tensor([[*model.begin, *model.encode(text), model.tokenizer.eos_token_id]])
        with torch.inference_mode():
            loss = float(model.network(input_ids=ids, labels=ids).loss)
        total += loss * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    found = perplexity(model, texts)
    assert found.value == pytest.approx(math.exp(total / count), rel=1e-4)
    assert found.low < found.value < found.high
    assert found.n == 7


def test_a_saved_model_is_the_same_and_so_is_its_digest(model: LanguageModel, tmp_path: Path) -> None:
    save_language_model(model, tmp_path / "made")
    again = open_language_model(tmp_path / "made")
    assert perplexity(again, STORIES[:5]) == perplexity(model, STORIES[:5])
    # Written twice from one folder, as a step does each time that it imports it.
    for name in ("a", "b"):
        save_language_model(open_language_model(tmp_path / "made"), tmp_path / name)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text("{}")
    assert folder_digest(tmp_path / "a") != folder_digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(width=30, heads=4), "not an even multiple"),
        (lambda: Network(layers=0), "must be at least 1"),
        (lambda: TextSchedule(steps=0), "at least 1"),
        (lambda: TextSchedule(learning_rate=0), "must lie above 0"),
        (lambda: word_pieces([]), "there are none"),
    ],
)
def test_bad_settings_are_told(make: object, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make()  # type: ignore[operator]


def test_training_that_explodes_says_so(model: LanguageModel) -> None:
    broken = fit(model, STORIES, TextSchedule(steps=1), seed=0)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="lower learning_rate"):
        fit(broken, STORIES, TextSchedule(steps=2), seed=0)
    with pytest.raises(ParamsError, match="no texts"):
        fit(model, [], seed=0)


def test_settings_that_a_model_is_sampled_by_keep_nobody_from_saving_it(tmp_path: Path) -> None:
    model = small("llama")
    network = copy.deepcopy(model.network)
    network.generation_config.temperature = 0.9  # without sampling, as some models ship it
    network.generation_config.eos_token_id = [0, 5]
    given = network.generation_config
    save_language_model(LanguageModel(network, model.tokenizer), tmp_path / "a")
    assert network.generation_config is given
    assert open_language_model(tmp_path / "a").ends == {0, 5}
