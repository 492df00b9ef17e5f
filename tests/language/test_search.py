"""The objective says what single passes say, and what it costs; the search finds what trying all finds."""

from __future__ import annotations

import itertools

import pytest
import torch

from candling.errors import ParamsError
from candling.language import LanguageModel, log_probabilities, target_of
from candling.language.objective import Objective
from candling.language.search import Discrete, climb, random_prompts
from tests.language.conftest import small


def objective(model: LanguageModel, *texts: str, fluency: float = 0.0) -> Objective:
    return Objective(model, [target_of(model, text) for text in texts], fluency=fluency)


def prompts(count: int = 5, length: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 358, (count, length), generator=torch.Generator().manual_seed(seed))


def test_scores_are_the_log_probabilities_of_the_target(each_model: LanguageModel) -> None:
    asked, some = objective(each_model, " a book"), prompts()
    wanted = log_probabilities(each_model, some.tolist(), each_model.encode(" a book"))
    torch.testing.assert_close(asked.scores(some), wanted, atol=1e-4, rtol=0)
    tail = len(each_model.encode(" a book")) - 1
    assert asked.meter.total == 5 * (len(each_model.start) + 4 + tail)


def test_a_set_counts_each_of_its_targets_once() -> None:
    model, some = small(), prompts()
    asked = objective(model, " girl", " boy", " girl", " boy and")
    parts = [
        log_probabilities(model, some.tolist(), model.encode(text)).double() for text in (" girl", " boy")
    ]
    torch.testing.assert_close(
        asked.scores(some).double(), torch.stack(parts).logsumexp(0), atol=1e-4, rtol=0
    )


def test_a_swap_is_scored_as_the_whole_prompt_and_costs_what_follows_it(each_model: LanguageModel) -> None:
    asked, some = objective(each_model, " the boy"), prompts()
    rows = asked.rows(some)
    row, tokens = torch.tensor([0, 3, 3, 1]), torch.tensor([17, 40, 300, 5])
    before = asked.meter.total
    for place in (0, 2, 3):
        changed = some[row].clone()
        changed[:, place] = tokens
        found = asked.swaps(rows, row, place, tokens)
        torch.testing.assert_close(
            found, objective(each_model, " the boy").scores(changed), atol=1e-4, rtol=0
        )
    tail = len(each_model.encode(" the boy")) - 1
    assert asked.meter.total - before == 4 * ((4 - 0) + (4 - 2) + (4 - 3) + 3 * tail)


def test_slopes_are_those_of_finite_differences() -> None:
    model = small("llama")
    model.network.double()
    asked, some = objective(model, " girl"), prompts(2, 3)
    embed = model.network.get_input_embeddings()
    scores, slopes = asked.slopes(some)
    assert slopes.shape == (2, 3, 384)
    torch.testing.assert_close(scores.float(), asked.scores(some).float(), atol=1e-4, rtol=0)
    step = 3e-3
    for row, place, token in ((0, 1, 9), (1, 2, 200)):
        ends = []
        for way in (1, -1):
            moved = embed(some).detach()
            moved[row, place] += way * step * embed.weight[token]
            ends.append(float(asked.slopes_of(moved)[0][row]))
        rise = (ends[0] - ends[1]) / (2 * step)
        assert rise == pytest.approx(float(slopes[row, place, token]), rel=0.02)


def test_fluency_adds_the_mean_log_probability_of_the_prompt() -> None:
    model, some = small(), prompts()
    plain, fluent = objective(model, " girl"), objective(model, " girl", fluency=0.5)
    own = log_probabilities(model, [[]] * len(some), some.tolist(), start=model.begin) / some.shape[1]
    torch.testing.assert_close(fluent.scores(some), plain.scores(some) + 0.5 * own, atol=1e-4, rtol=0)


def allowed(model: LanguageModel, count: int) -> torch.Tensor:
    found = torch.zeros(model.vocabulary, dtype=torch.bool)
    found[2 : 2 + count] = True
    return found


def test_short_prompts_are_as_good_as_can_be() -> None:
    model = small("gpt2")
    asked, may = objective(model, " the boy"), allowed(model, 40)
    every = torch.tensor(list(itertools.product(range(2, 42), repeat=2)))
    best = asked.scores(every).max()
    seeds = list(range(6))
    found = climb(asked, random_prompts(2, may, seeds), may, Discrete(width=16, budget=6000), seeds)
    assert found.scores.max().item() == pytest.approx(best.item(), abs=1e-4)
    assert may[found.tokens].all()


def test_a_row_does_the_same_alone_and_never_gets_worse() -> None:
    model = small("llama")
    may, seeds = allowed(model, 300), [3, 4, 5]
    settings = Discrete(width=12, budget=3000, together=2)
    starts = random_prompts(4, may, seeds)
    together = climb(objective(model, " girl"), starts, may, settings, seeds)
    for row, seed in enumerate(seeds):
        alone = climb(objective(model, " girl"), starts[row : row + 1], may, settings, [seed])
        assert torch.equal(alone.tokens[0], together.tokens[row])
    first = objective(model, " girl").scores(starts)
    assert (together.scores >= first).all()
    again = objective(model, " girl").scores(together.tokens)
    torch.testing.assert_close(together.scores, again, atol=1e-4, rtol=0)


def test_the_budget_holds_and_is_what_went_through_the_model() -> None:
    for fluency in (0.0, 0.3):
        model = small("gpt2")
        asked, may, seeds = objective(model, " girl", " boy", fluency=fluency), allowed(model, 300), [0, 1, 2]
        settings = Discrete(width=8, budget=2000, together=2, enough=9.0)
        found = climb(asked, random_prompts(4, may, seeds), may, settings, seeds)
        first = 3 * asked.tokens_of(4)  # of the starts
        assert int(found.spent.sum()) + first == asked.meter.total
        assert ((found.spent >= 2000) & (found.spent < 2600)).all()


def test_rows_that_are_good_enough_or_stay_stuck_leave() -> None:
    model = small("gpt2")
    asked, may, seeds = objective(model, "!"), allowed(model, 30), list(range(5))
    starts = random_prompts(2, may, seeds)
    told: list[tuple[int, int]] = []
    found = climb(
        asked, starts, may, Discrete(width=8, budget=10**9, patience=3), seeds,
        progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert (found.kicks >= 3).all()
    assert told[-1] == (5, 5)
    easy = climb(asked, starts, may, Discrete(width=8, budget=10**9, enough=-1e3), seeds)
    assert (easy.kicks == 0).all()


def test_bad_settings_are_told() -> None:
    with pytest.raises(ParamsError, match="width must be at least 1"):
        Discrete(width=0)
    with pytest.raises(ParamsError, match="kick must lie in"):
        Discrete(kick=0.0)
    with pytest.raises(ParamsError, match="there is no target"):
        Objective(small(), [])
