"""The pieces of the isolation benchmark, on models whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from benchmarks import isolation
from benchmarks.explainers import (
    OTHERS,
    Made,
    captum_grad_cam,
    captum_integrated_gradients,
    captum_occlusion,
    hipe,
    last_convolution,
    made_by,
    random_masks,
    rise,
)
from benchmarks.isolation import METHODS, OneByOne, measured, needed, rows_of, scored, stratified
from benchmarks.subjects import Explained
from candling.models import Classifier, ModelSpec, build_model
from candling.vision.faithfulness import pointing_game

SIZE, FILL = 32, torch.zeros(3, 1, 1)


class Place(nn.Module):
    """Class 0 where the picture is bright at one small square, and no other place matters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.weight * images[:, :, 20:24, 6:10].mean((1, 2, 3))
        return torch.stack([8 * seen - 4, torch.zeros_like(seen)], 1)


def square() -> Tensor:
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    masks[0, 20:24, 6:10] = True
    return masks


def picture() -> Tensor:
    drawn = 0.3 * torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return torch.where(square(), 1.0, drawn)


def test_random_masks_are_smooth_and_half_open() -> None:
    masks = random_masks((30, 45), 500, torch.Generator().manual_seed(0))
    assert masks.shape == (500, 30, 45)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert float(masks.mean()) == pytest.approx(0.5, abs=0.02)
    # Each place is open as often as any other, and neighbours go together.
    assert float((masks.mean(0) - 0.5).abs().max()) < 0.1
    assert float((masks[..., 1:] - masks[..., :-1]).abs().mean()) < 0.12


def test_rise_finds_what_one_place_decides() -> None:
    found, evaluations = rise(Place(), picture(), 0, FILL, count=1000)
    assert (found.shape, evaluations) == ((SIZE, SIZE), 1000)
    assert float(pointing_game(found[None], square(), tolerance=2)) == 1
    # Its mean is that of the probabilities, times the masks'.
    assert float(found.mean()) == pytest.approx(0.5, abs=0.4)
    same, _ = rise(Place(), picture(), 0, FILL, count=1000)
    assert torch.equal(found, same)


@pytest.mark.parametrize("probability", [False, True])
def test_hipe_finds_it_and_looks_only_where_something_was(probability: bool) -> None:
    found, evaluations = hipe(Place(), picture(), 0, smallest=2, probability=probability)
    assert found.min() >= 0
    assert float(pointing_game(found[None], square(), tolerance=1)) == 1
    assert float((found * square()).sum() / found.sum()) > 3 * float(square().float().mean())
    # Three cells a side at first, all of which are looked at; all windows would be 1 + 9 + 36 + 144.
    assert 9 < evaluations < 80


def test_hipe_of_a_model_that_sees_nothing_stops_at_the_coarsest() -> None:
    blind = Place()
    with torch.no_grad():
        blind.weight.zero_()
    found, evaluations = hipe(blind, picture(), 0, smallest=2)
    assert not found.any()
    assert evaluations == 1 + 9


def test_captums_occlusion_and_integrated_gradients_find_it() -> None:
    for explain in (captum_occlusion, captum_integrated_gradients):
        found, evaluations = explain(Place(), picture(), 0, FILL)
        assert found.shape == (SIZE, SIZE)
        assert float(pointing_game(found[None], square(), tolerance=4)) == 1
        assert evaluations > 1
    found, _ = captum_integrated_gradients(Place(), picture(), 0, FILL)
    # Complete: what it adds up to is the difference of the logits.
    with torch.no_grad():
        both = Place()(torch.stack([picture(), torch.zeros(3, SIZE, SIZE)]))[:, 0]
    assert float(found.sum()) == pytest.approx(float(both[0] - both[1]), abs=1e-3)


def test_occlusion_counts_what_it_asks_of_the_model() -> None:
    class Counting(Place):
        count = 0

        def forward(self, images: Tensor) -> Tensor:
            Counting.count += len(images)
            return super().forward(images)

    _, evaluations = captum_occlusion(Counting(), picture(), 0, FILL)
    assert evaluations == Counting.count


def small() -> Classifier:
    return build_model(ModelSpec("residual_cnn", ("a", "b"), (SIZE, SIZE)))


def subject(name: str = "tiny", count: int = 3) -> Explained:
    images = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(count) % 2
    right = torch.arange(count) != 1
    return Explained(name, small(), images, classes, right, square().expand(count, -1, -1), "0" * 8)


def test_grad_cam_looks_at_the_last_feature_map() -> None:
    model, image = small(), subject().images[0]
    assert last_convolution(model, image) is model.network.stages
    found, evaluations = captum_grad_cam(model, image, 1)
    assert (found.shape, evaluations) == ((SIZE, SIZE), 2)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_maps_are_kept_and_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject()
    first = made_by("rise", one, tmp_path, share=0.01)
    assert [made.evaluations for made in first] == [40] * 3
    folder = tmp_path / "rise-0.01"
    (folder / "0001.pt").unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = made_by("rise", one, tmp_path, share=0.01)
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    assert all(torch.equal(a.map, b.map) for a, b in zip(first, again, strict=True))
    # Scores are read from the disk too, but only of methods that are not ours.
    table = scored(one, "captum.grad_cam", tmp_path)
    monkeypatch.setattr(isolation, "made_by", lambda *_, **__: pytest.fail("made again"))
    pd.testing.assert_frame_equal(scored(one, "captum.grad_cam", tmp_path), table)
    ours = scored(one, "candling.grad_cam", tmp_path)
    assert (ours.method == "candling.grad_cam").all()
    assert not list(tmp_path.rglob("candling*"))


def table(seed: int = 0) -> pd.DataFrame:
    """Scores as `measured` gives them, made up: our default is 0.1 better than all but `rise`."""
    rng = np.random.default_rng(seed)
    parts = []
    for data, count in (("coco", 12), ("tanks", 40)):
        base = rng.uniform(0.3, 0.5, count)
        for method in METHODS:
            gain = {"candling": 0.1, "rise": 0.2, "torchray": 0.0, "candling.mask": 0.05}.get(method, 0.0)
            right = np.arange(count) % 4 > 0
            columns = {
                "data": data, "method": method, "picture": np.arange(count), "class": 0, "right": right,
                "evaluations": 4000.0 if method == "rise" else 500.0, "seconds": 1.0,
                "insertion": base + gain + rng.normal(0, 0.01, count), "deletion": 0.2,
                "insertion_mean_colour": base, "deletion_mean_colour": 0.1,
            }  # fmt: skip
            for name, value in (
                ("mass", 0.4),
                ("rank", 0.5),
                ("pointing", 1.0),
                ("area", 0.2),
                ("nearby", 0.3),
            ):
                columns[name] = np.where(right, value, np.nan)
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def test_rows_have_all_names_and_their_ratios_are_right() -> None:
    rows = {str(row["name"]): row for row in rows_of(table())}
    for kind in ("insertion_minus_deletion", "pointing_game", "mass_over_chance"):
        for method in METHODS:
            assert {f"{kind}.{method}", f"{kind}.{method}.coco", f"{kind}.{method}.tanks"} <= set(rows)
    for method in (*isolation.OURS, *OTHERS):
        assert f"evaluations.{method}" in rows
        assert f"seconds.{method}" in rows
    assert "evaluations.random" not in rows
    assert rows["mass_over_chance.hipe"]["value"] == pytest.approx(2.0)
    assert rows["pointing_game.hipe"]["n"] == 9 + 30
    assert rows["pointing_game.chance"]["value"] == pytest.approx(0.3)
    assert rows["evaluations_over_rise"]["value"] == pytest.approx(0.125)
    assert rows["advantage.hipe"]["value"] == pytest.approx(0.1, abs=0.01)
    assert float(str(rows["advantage.hipe"]["low"])) > 0
    assert float(str(rows["advantage.rise"]["high"])) < 0
    assert rows["mask_100_over_800"]["value"] == pytest.approx(0.05, abs=0.01)
    for name in ("significantly_better", "better_on_average", "significantly_better.coco"):
        assert (rows[name]["value"], rows[name]["n"]) == (1, len(METHODS) - 1)
        assert "rise" in str(rows[name]["unit"])
    assert all(set(row) == {"name", "value", "low", "high", "n", "unit", "goal"} for row in rows.values())
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())  # type: ignore[operator]


def test_the_mean_of_both_data_sets_weighs_them_alike() -> None:
    found = stratified([np.zeros(5), np.ones(500)])
    assert (found.value, found.n) == (0.5, 505)
    assert found.low == found.high == 0.5
    rng = np.random.default_rng(0)
    groups = [rng.normal(0, 1, 30), rng.normal(2, 3, 300)]
    found = stratified(groups, resamples=20_000)
    error = 0.5 * np.sqrt(groups[0].var() / 30 + groups[1].var() / 300)
    assert found.value == pytest.approx((groups[0].mean() + groups[1].mean()) / 2)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_only_what_rows_need_is_measured() -> None:
    assert needed([], METHODS) == list(METHODS)
    assert needed(["insertion_minus_deletion.hipe"], METHODS) == ["hipe"]
    assert needed(["advantage.hipe"], METHODS) == ["candling", "hipe"]
    assert needed(["mask_100_over_800"], METHODS) == ["candling.mask", "torchray"]
    assert needed(["mask_step_over_floor"], METHODS) == []
    assert needed(["significantly_better"], METHODS) == list(METHODS)


def test_measured_averages_draws_and_takes_masks_where_the_model_is_right() -> None:
    one = subject()
    maps = torch.rand(3, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    together = measured(one, "random", [Made(map_, 0, 0.0) for map_ in maps])
    apart = [measured(one, "random", [Made(map_, 0, 0.0) for map_ in maps[:, draw]]) for draw in range(2)]
    for column in ("insertion", "deletion_mean_colour", "mass", "pointing"):
        mean = (apart[0][column] + apart[1][column]) / 2
        np.testing.assert_allclose(together[column], mean, atol=1e-6)
    assert together["mass"].isna().tolist() == [False, True, False]
    assert ((together.insertion >= 0) & (together.insertion <= 1)).all()


def test_one_by_one_is_the_same_model() -> None:
    model, images = small().eval(), subject().images
    with torch.no_grad():
        assert torch.allclose(OneByOne(model)(images), model(images), atol=1e-5)
