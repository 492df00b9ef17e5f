"""Soft prompts climb, are pulled to tokens, and hand on the best whole tokens that they passed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from candling.errors import ParamsError
from candling.language import target_of
from candling.language.continuous import Continuous, relax
from candling.language.objective import Objective
from candling.language.search import random_prompts
from tests.language.conftest import small

SEEDS = [0, 1, 2, 3]


def given(length: int = 4) -> tuple[Objective, torch.Tensor, torch.Tensor]:
    model = small("gpt2")
    may = torch.zeros(model.vocabulary, dtype=torch.bool)
    may[2:300] = True
    return Objective(model, [target_of(model, " girl")]), random_prompts(length, may, SEEDS), may


@pytest.mark.parametrize(
    "settings",
    [
        Continuous(steps=40),
        Continuous(steps=40, begin="centroids"),
        Continuous(steps=40, begin="tokens"),
        Continuous(steps=60, form="gumbel"),
    ],
    ids=["random", "centroids", "tokens", "gumbel"],
)
def test_prompts_climb_and_the_best_whole_tokens_are_kept(settings: Continuous) -> None:
    asked, starts, may = given()
    found = relax(asked, starts, may, settings, SEEDS)
    assert may[found.tokens].all()
    again = Objective(asked.model, asked.targets).scores(found.tokens)
    torch.testing.assert_close(found.scores, again, atol=1e-4, rtol=0)
    first = Objective(asked.model, asked.targets).scores(starts)
    assert (found.scores >= first - 1e-5).all()
    # Between tokens whose embeddings are drawn at random a soft prompt gets far and near no better token.
    assert found.soft.mean() > first.mean() + 0.5
    if settings.form == "gumbel":
        assert found.scores.mean() > first.mean() + 0.5


def test_soft_prompts_get_further_than_whole_tokens_do() -> None:
    asked, starts, may = given()
    found = relax(asked, starts, may, Continuous(steps=60, pull=0.0), SEEDS)
    assert found.soft.mean() > found.scores.mean()


def test_the_pull_brings_them_to_tokens() -> None:
    asked, starts, may = given()
    free = relax(asked, starts, may, Continuous(steps=60, pull=0.0), SEEDS)
    pulled = relax(asked, starts, may, Continuous(steps=60, pull=30.0), SEEDS)
    assert free.soft.mean() >= pulled.soft.mean()


@pytest.mark.parametrize("form", ["embeddings", "gumbel"])
def test_a_row_is_the_same_alone(form: Any) -> None:
    asked, starts, may = given()
    settings = Continuous(steps=10, form=form)
    together = relax(asked, starts, may, settings, SEEDS)
    alone = relax(asked, starts[2:3], may, settings, SEEDS[2:3])
    assert torch.equal(alone.tokens[0], together.tokens[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "waves"}, "form 'waves' is not known"),
        ({"begin": "zero"}, "begin 'zero' is not known"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"pull": -1.0}, "pull at 0 or above"),
    ],
)
def test_bad_settings_are_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        Continuous(**change)
