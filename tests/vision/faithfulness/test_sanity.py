"""Randomised parameters and noise: what depends on them must say so, and nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from candling.errors import DataError, ModelError, ParamsError
from candling.vision.faithfulness import complexity, randomised, rise_in_complexity, stability


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(),
                         nn.Linear(8 * 64, 3))  # fmt: skip


def pictures(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Spot(nn.Module):
    """Weights on a single pixel, as if that had been learned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 16, 16))
        with torch.no_grad():
            self.weight[:, 3:5, 3:5] = 1.0
            self.weight[:, 8:, 8:] = 0.05 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        score = (images * self.weight).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


def test_complexity_is_the_entropy_of_the_histogram() -> None:
    spread = torch.arange(1000.0).view(1, 20, 50)
    assert float(complexity(spread)) == pytest.approx(np.log(100), abs=1e-6)
    assert float(complexity(torch.ones(1, 20, 50))) == 0
    spot = torch.zeros(1, 20, 50)
    spot[0, 3, 3] = 1.0
    shares = np.array([0.999, 0.001])
    assert float(complexity(spot)) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)
    noise = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(complexity(noise), complexity(noise * 5 + 3), atol=0.02)


def test_what_was_learned_is_less_complex_than_its_random_copy() -> None:
    model = Spot()
    found = rise_in_complexity(model, lambda one: one.weight.detach().sum(0)[None])  # type: ignore[operator, union-attr]
    assert float(found.rise) > 0
    assert torch.allclose(found.rise, (found.after - found.before) / found.before)


def test_a_map_that_ignores_the_model_does_not_rise() -> None:
    images = pictures()
    found = rise_in_complexity(network(), lambda _: images.mean(1))
    assert torch.equal(found.rise, torch.zeros(4, dtype=found.rise.dtype))
    constant = rise_in_complexity(network(), lambda _: torch.ones(4, 8, 8))
    assert torch.isnan(constant.rise).all()


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_comes_back_bit_for_bit(error: type[BaseException] | None) -> None:
    model = network()
    model[0].weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = []

    def explain(one: nn.Module) -> Tensor:
        calls.append(all(torch.equal(value, before[name]) for name, value in one.state_dict().items()))
        if len(calls) == 2 and error is not None:
            raise error("on purpose")
        return pictures().mean(1)

    if error is None:
        rise_in_complexity(model, explain)
    else:
        with pytest.raises(error, match="on purpose"):
            rise_in_complexity(model, explain)
    assert calls == [True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]


def test_random_parameters_are_the_same_values_in_another_order() -> None:
    model = network()
    before = model[4].weight.detach().clone()  # type: ignore[union-attr, operator]
    with randomised(model, seed=3):
        first = model[4].weight.detach().clone()  # type: ignore[union-attr, operator]
        assert not torch.equal(first, before)
        assert torch.equal(first.flatten().sort().values, before.flatten().sort().values)
    with randomised(model, seed=3):
        assert torch.equal(model[4].weight, first)  # type: ignore[arg-type]
    with randomised(model, seed=4):
        assert not torch.equal(model[4].weight, first)  # type: ignore[arg-type]


def test_a_model_without_parameters_cannot_be_randomised() -> None:
    with pytest.raises(ModelError, match="no parameters"):
        rise_in_complexity(nn.Flatten(), lambda _: torch.ones(1, 8, 8))
    with pytest.raises(DataError, match=r"maps \(N, H, W\)"):
        rise_in_complexity(network(), lambda _: torch.ones(1, 2, 8, 8))


def test_stability_is_spearmans_correlation_and_the_overlap() -> None:
    model, images = network().eval(), pictures()
    seen: list[Tensor] = []

    def explain(given: Tensor, classes: Tensor) -> Tensor:
        seen.append(given)
        return given.mean(1)

    found = stability(model, images, explain, model(images).argmax(1), noise=0.05, draws=1, top=0.25)
    kept = [row for row in range(4) if torch.isfinite(found.rank[row])]
    for place, row in enumerate(kept):
        one, other = images[row].mean(0).flatten().numpy(), seen[1][place].mean(0).flatten().numpy()
        assert float(found.rank[row]) == pytest.approx(spearmanr(one, other).statistic, abs=1e-6)
        common = set(np.argsort(-one)[:16]) & set(np.argsort(-other)[:16])
        assert float(found.overlap[row]) == pytest.approx(len(common) / 16)
        assert 0 < (seen[1][place] - images[row]).abs().max() < 0.05 * 5
    assert kept


def test_a_map_that_stays_is_stable_and_one_of_noise_is_at_chance() -> None:
    model, images = network().eval(), pictures(8)
    classes = model(images).argmax(1)
    fixed = torch.arange(64.0).view(8, 8)
    same = stability(model, images, lambda given, _: fixed.expand(len(given), -1, -1), classes)
    assert torch.allclose(same.rank[torch.isfinite(same.rank)], torch.tensor(1.0))
    assert (same.overlap[torch.isfinite(same.overlap)] == 1).all()
    generator = torch.Generator().manual_seed(0)
    wild = stability(
        model, images, lambda given, _: torch.rand(len(given), 8, 8, generator=generator), classes, draws=8
    )
    assert abs(float(wild.rank.nanmean())) < 0.1
    assert float(wild.overlap.nanmean()) == pytest.approx(0.1, abs=0.05)


class Edge(nn.Module):
    """Changes its mind at a hair's breadth: bright or not at one pixel."""

    def __init__(self, sharp: float) -> None:
        super().__init__()
        self.weight, self.sharp = nn.Parameter(torch.ones(1)), sharp

    def forward(self, images: Tensor) -> Tensor:
        score = self.weight * (images[:, 0, 0, 0] - 0.5 - self.sharp)
        return torch.stack([score, -score], 1)


def test_noise_is_halved_until_the_prediction_holds() -> None:
    images = torch.full((6, 3, 8, 8), 0.5)
    images += torch.linspace(-0.001, 0, 6)[:, None, None, None]  # noise is a picture's own
    classes = torch.ones(6, dtype=torch.long)
    found = stability(Edge(0.004), images, lambda given, _: given.mean(1), classes, noise=0.05, draws=8)
    assert found.unstable == 0
    assert (found.noise < 0.05).any()
    assert (found.noise > 0.05 / 2**7).all()
    hopeless = stability(Edge(-1e-3), images, lambda given, _: given.mean(1), classes, noise=1000.0, draws=8)
    assert hopeless.unstable > 0


def test_bad_settings_are_one_sentence() -> None:
    model, images = network().eval(), pictures()
    for settings in ({"draws": 0}, {"noise": 0.0}, {"top": 1.0}):
        with pytest.raises(ParamsError, match="stability needs"):
            stability(model, images, lambda given, _: given.mean(1), torch.zeros(4).long(), **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="do not fit"):
        stability(model, images, lambda given, _: given, torch.zeros(4).long())
