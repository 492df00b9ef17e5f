"""Evidence held against regions and objects, by hand; pictures faded by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from candling.models import ModelSpec, build_model
from candling.vision.isolation import evidence_share, faded, object_shapley


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class ReadsMean(nn.Module):
    """Logits (10·m, 0) where m is the mean of a region: log-odds linear in its pixels, blind elsewhere."""

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = region
        self.head = nn.Linear(1, 2, bias=False)
        self.head.weight.data = torch.tensor([[10.0], [0.0]])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean(1)[:, self.region].mean(1, keepdim=True))


def box(size: int, top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# --- evidence_share ----------------------------------------------------------------------------


def test_evidence_share_by_hand() -> None:
    maps = torch.tensor([[[3.0, -1.0], [2.0, -4.0]], [[-1.0, -2.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    left = torch.tensor([[True, False], [True, False]]).expand(3, 2, 2)
    both, only_for = evidence_share(maps, left), evidence_share(maps, left, sign="for")
    assert both[:2].tolist() == pytest.approx([5 / 10, 1 / 4])
    assert only_for[0].item() == pytest.approx(1)
    assert torch.isnan(both).tolist() == [False, False, True]
    assert torch.isnan(only_for).tolist() == [False, True, True]
    assert evidence_share(maps, ~left, sign="for")[0].item() == pytest.approx(0)


def test_evidence_shares_of_a_partition_sum_to_one_and_chance_is_area() -> None:
    maps, region = noise(4, 20, 20) - 0.4, noise(4, 20, 20, seed=1) < 0.3
    for sign in ("both", "for"):
        inside, outside = (evidence_share(maps, r, sign=sign) for r in (region, ~region))
        torch.testing.assert_close(inside + outside, torch.ones(4).double())
    uniform = evidence_share(torch.full((4, 20, 20), -0.2), region)
    torch.testing.assert_close(uniform, region.double().mean((1, 2)))


# --- object_shapley ----------------------------------------------------------------------------

MASK = box(24, 6, 6, 18, 18)


def scene(count: int = 4, donors: int = 6) -> dict[str, Tensor]:
    """Objects at one place; all backgrounds are 0.3 behind it, so that only the object differs there."""
    clean = torch.where(MASK, torch.tensor(0.3), noise(count, 3, 24, 24, seed=1))
    return {
        "images": torch.where(MASK, noise(count, 3, 24, 24, seed=2), clean),
        "clean": clean,
        "masks": MASK.expand(count, -1, -1),
        "labels": torch.arange(count) % 2,
        "donors": torch.where(MASK, torch.tensor(0.3), noise(donors, 3, 24, 24, seed=3)),
    }


def odds_by_hand(model: nn.Module, image: Tensor, label: int) -> float:
    with torch.no_grad():
        p = model.eval()(image[None])[0].double().softmax(0)
    return float((p[label] / (1 - p[label])).log())


@pytest.mark.parametrize(("reads", "blind"), [(MASK, 1), (~MASK, 0)], ids=["object", "background"])
def test_shapley_gives_all_to_what_is_read(reads: Tensor, blind: int) -> None:
    model, s = ReadsMean(reads), scene()
    phi = object_shapley(model, **s)
    assert phi.shape == (4, 2)
    assert (phi[:, blind].abs() < 1e-4).all()
    for row in range(4):
        label = int(s["labels"][row])
        both = odds_by_hand(model, s["images"][row], label)
        neither = np.mean([odds_by_hand(model, donor, label) for donor in s["donors"]])
        assert abs(both - neither) > 0.01
        assert phi[row, 1 - blind].item() == pytest.approx(both - neither, abs=1e-4)


def test_shapley_values_by_hand_and_their_sum() -> None:
    model = build_model(ModelSpec("residual_cnn", ("a", "b", "c"), (24, 24), {"widths": [4, 6]}))
    s = scene()
    s["donors"] = noise(6, 3, 24, 24, seed=4)
    s["labels"] = torch.tensor([0, 1, 2, 1])
    phi = object_shapley(model, **s, donors_per_image=8)
    for row in range(4):
        image, label = s["images"][row], int(s["labels"][row])
        both, background = odds_by_hand(model, image, label), odds_by_hand(model, s["clean"][row], label)
        neither = np.mean([odds_by_hand(model, donor, label) for donor in s["donors"]])
        alone = np.mean([odds_by_hand(model, torch.where(MASK, image, d), label) for d in s["donors"]])
        by_hand = [
            (both - background + alone - neither) / 2,
            (both - alone + background - neither) / 2,
        ]
        assert phi[row].tolist() == pytest.approx(by_hand, abs=1e-4)
        assert phi[row].sum().item() == pytest.approx(both - neither, abs=1e-4)


# --- faded -------------------------------------------------------------------------------------


def test_faded_is_white_where_unused_and_itself_where_used_most() -> None:
    image, evidence = noise(3, 10, 10), noise(10, 10, seed=1) - 0.5
    out = faded(image, evidence, spread=0)
    assert (out[:, evidence <= 0] == 1).all()
    top = evidence == evidence.max()
    torch.testing.assert_close(out[:, top], image[:, top])
    torch.testing.assert_close(faded(image, -evidence.abs()), torch.ones_like(image))


def test_faded_is_smooth_and_stays_between_the_picture_and_white() -> None:
    image, evidence = noise(3, 90, 90), torch.full((90, 90), -1.0)
    evidence[30:60, 30:60] = 2
    out = faded(image, evidence)
    assert (out >= image - 1e-6).all()
    assert (out <= 1).all()
    torch.testing.assert_close(out[:, 44:46, 44:46], image[:, 44:46, 44:46], atol=1e-3, rtol=0)
    assert (out[:, :12] > 0.999).all()
    weight = (1 - out[0, 45]) / (1 - image[0, 45])
    expected = gaussian_filter1d((evidence[45] > 0).double().numpy(), 0.03 * 90, truncate=12) ** 0.5
    np.testing.assert_allclose(weight, expected, atol=2e-3)
    torch.testing.assert_close(faded(image, 7 * evidence), out)
