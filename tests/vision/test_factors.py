"""Factors: each change against another library's, and models that by construction read one thing."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur, to_pil_image

from candling.errors import DataError, ParamsError
from candling.models import Classifier, build_model
from candling.models.spec import ModelSpec
from candling.vision.factors import (
    FACTORS,
    DoseSettings,
    FactorTest,
    directions,
    dose_response,
    evaluations,
    placebo,
    transforms,
)

SIDE, COUNT = 32, 96


def photographs(count: int = COUNT, seed: int = 0) -> Tensor:
    """Coloured pink noise (N, 3, SIDE, SIDE) that differs in light, colour, contrast and focus."""
    generator = torch.Generator().manual_seed(seed)
    fields = placebo.noise((3, SIDE, SIDE), [(seed, row) for row in range(count)])
    fine = 0.05 * torch.randn(fields.shape, generator=generator)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    grey = fields.mean(1, keepdim=True)
    images = grey + between(0.3, 1.5) * (fields - grey)
    images = between(0.3, 0.6) + between(0.06, 0.16) * images + between(0.05, 2.5) * fine
    gains = 1 + 0.3 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    return (images * gains).clamp(0, 1)


def same(images: Tensor, dose: float) -> Tensor:
    return torch.full((len(images),), dose, dtype=images.dtype)


# -- Changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTORS)
def test_a_dose_of_nothing_is_the_picture_itself(name: str) -> None:
    images = photographs(4)
    assert torch.equal(FACTORS[name].apply(images, same(images, 0.0)), images)


@pytest.mark.parametrize("name", FACTORS)
def test_a_picture_changes_alike_alone_and_in_a_batch(name: str) -> None:
    factor, images = FACTORS[name], photographs(5)
    doses = torch.linspace(factor.least, factor.most, 5)
    together = factor.apply(images, doses)
    alone = torch.cat([factor.apply(images[i : i + 1], doses[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize("name", [name for name in FACTORS if name != "hue"])
def test_a_higher_dose_measures_more(name: str) -> None:
    factor, images = FACTORS[name], photographs(16)
    doses = np.linspace(factor.least / 2, factor.most / 2, 5)
    curve = torch.stack([factor.measure(factor.apply(images, same(images, dose))) for dose in doses])
    assert (curve.diff(dim=0) > 0).all()


def test_hues_turn_as_in_colorsys() -> None:
    images, turn = photographs(1).double(), 0.13
    turned = transforms.hue(images, same(images, turn))[0].permute(1, 2, 0).reshape(-1, 3)
    for pixel, found in zip(images[0].permute(1, 2, 0).reshape(-1, 3).tolist(), turned.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        assert found == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1, s, v), abs=1e-9)
    assert torch.allclose(
        FACTORS["hue"].measure(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])[:, :, None, None]),
        torch.tensor([0, 1 / 3, 2 / 3]),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("saturation", ImageEnhance.Color),
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
    ],
)
@pytest.mark.parametrize("gain", [0.4, 1.7])
def test_colour_light_and_contrast_are_those_of_pillow(
    name: str, enhancer: Callable[[Image.Image], ImageEnhance._Enhance], gain: float
) -> None:
    images = (photographs(1) * 255).round() / 255
    ours = FACTORS[name].apply(images, same(images, float(np.log(gain))))
    theirs = np.asarray(enhancer(to_pil_image(images[0])).enhance(gain), np.float32) / 255
    # Pillow rounds its grey, and again its result.
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - theirs).max() <= 2.5 / 255


@pytest.mark.parametrize("name", ["warmth", "cast"])
def test_a_cast_moves_the_channels_apart_and_keeps_the_mean_grey(name: str) -> None:
    factor, images = FACTORS[name], photographs(8) * 0.5 + 0.1
    changed = factor.apply(images, same(images, 0.4))
    grey = transforms.luma(images).mean((1, 2, 3))
    assert torch.allclose(transforms.luma(changed).mean((1, 2, 3)), grey, atol=1e-5)
    red, green, blue = (changed / images).mean((2, 3)).unbind(1)
    apart = red / blue if name == "warmth" else green / (red * blue).sqrt()
    assert torch.allclose(apart, torch.full_like(apart, np.exp(0.4)), rtol=1e-4)


def test_a_blur_is_that_of_torchvision_and_sharpening_adds_what_it_took() -> None:
    images = F.interpolate(photographs(2), size=64, mode="bilinear", align_corners=False)
    soft = transforms.sharpness(images, same(images, -1.5))
    reference = gaussian_blur(images, [11, 11], [1.5, 1.5])  # mirrored edges, as ours
    assert torch.allclose(soft, reference, atol=1e-5)
    crisp = transforms.sharpness(images, same(images, 0.5))
    unsharp = images + 0.5 * (images - gaussian_blur(images, [7, 7], [1.0, 1.0]))
    assert torch.allclose(crisp, unsharp.clamp(0, 1), atol=1e-5)


def test_a_smaller_original_is_a_picture_reduced_and_enlarged_by_pillow() -> None:
    images = (photographs(1) * 255).round() / 255
    ours = transforms.resolution(images, same(images, -1.0))[0]
    picture = to_pil_image(images[0])
    small = picture.resize((SIDE // 2, SIDE // 2), Image.Resampling.BILINEAR)
    theirs = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= 2.5 / 255


def test_shuffled_tiles_hold_the_same_pixels_elsewhere() -> None:
    images = photographs(3)
    mixed = transforms.shuffled(images, 4, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    assert not torch.equal(mixed, images)
    tiles = {tuple(t.flatten().tolist()) for t in images[0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2)[0]}
    again = {tuple(t.flatten().tolist()) for t in mixed[0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2)[0]}
    assert tiles == again


def test_a_silhouette_is_the_objects_mean_colour() -> None:
    images = photographs(2)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[:, 8:20, 4:24] = True
    flat = transforms.silhouette(images, masks, same(images, 1.0))
    for image, filled, mask in zip(images, flat, masks, strict=True):
        expected = image[:, mask].mean(1, keepdim=True).expand(3, int(mask.sum()))
        assert torch.allclose(filled[:, mask], expected, atol=1e-6)
        assert torch.equal(filled[:, ~mask], image[:, ~mask])


def test_the_placebo_is_as_large_as_what_it_stands_beside() -> None:
    images = photographs(12)
    size = torch.linspace(0.01, 0.2, 12)
    fields = placebo.noise((3, SIDE, SIDE), list(range(12)))
    noisy = placebo.same_size(images, size, fields)
    assert torch.allclose(placebo.rms(noisy - images), size, rtol=0.02)
    assert torch.equal(fields[3:4], placebo.noise((3, SIDE, SIDE), [3]))
    assert fields.mean((1, 2, 3)).abs().max() < 1e-6


# -- Directions --------------------------------------------------------------------------------------------


def test_a_direction_is_a_distance_that_chance_does_not_have() -> None:
    rng = np.random.default_rng(0)
    half = directions.folds([*range(400)], 0)
    zeros, ones = np.zeros(400, np.int64), np.ones(400, np.int64)
    assert directions.directed(zeros, ones, half, 3).mean() == 1
    assert directions.directed(ones, ones, half, 3).mean() == 0
    # A third of the pictures go from 0 to 1: so large is the distance in total variation.
    third = np.where(np.arange(400) % 3 == 0, ones, zeros)
    assert directions.directed(zeros, third, half, 3).mean() == pytest.approx(third.mean())
    by_chance = [
        directions.directed(rng.integers(0, 2, 400), rng.integers(0, 2, 400), half, 2).mean()
        for _ in range(200)
    ]
    assert abs(np.mean(by_chance)) < 3 * np.std(by_chance) / np.sqrt(200)
    shared = directions.folds([i // 4 for i in range(400)], 0).reshape(100, 4)
    assert (shared == shared[:, :1]).all()


def test_trend_is_spearmans_and_separation_is_scikit_learns() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    levels = rng.normal(size=(30, 5)) + np.arange(5)
    expected = np.mean([spearmanr(row, np.arange(5)).statistic for row in levels])
    assert directions.trend(levels) == pytest.approx(expected)
    assert directions.trend(np.ones((4, 5))) == 0
    values, classes = rng.normal(size=120), rng.integers(0, 3, 120)
    some = classes != 2
    found = directions.separation(values, classes, 1, 0)
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(classes[some] == 1, values[some]))
    assert found.low < found.value < found.high
    assert directions.separation(values[:6], np.array([0, 0, 0, 0, 0, 1]), 1, 0) is None


# -- Models that read one thing ----------------------------------------------------------------------------


class Reads(nn.Module):
    """Two classes by whether something measured lies above a threshold."""

    def __init__(self, measure: Callable[[Tensor], Tensor], threshold: float, scale: float = 20.0) -> None:
        super().__init__()
        self.measure, self.threshold, self.scale = measure, threshold, scale

    def forward(self, images: Tensor) -> Tensor:
        evidence = self.scale * (self.measure(images) - self.threshold)
        return torch.stack([-evidence, evidence], 1)


def reads(measure: Callable[[Tensor], Tensor]) -> Reads:
    return Reads(measure, float(measure(photographs()).median()))


def light(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def red_over_blue(images: Tensor) -> Tensor:
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


def green_over_others(images: Tensor) -> Tensor:
    return images[:, 1].mean((1, 2)) - images.mean((1, 2, 3))


def fine_detail(images: Tensor) -> Tensor:
    """Energy of the Laplacian for each of the picture's own: more contrast alone does not raise it."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    grey = images.mean(1, keepdim=True)
    return F.conv2d(grey, kernel).square().mean((1, 2, 3)).sqrt() / grey.std((1, 2, 3))


def spread(images: Tensor) -> Tensor:
    return 5 * images.mean(1).std((1, 2))


def colourfulness(images: Tensor) -> Tensor:
    return 5 * (images.amax(1) - images.amin(1)).mean((1, 2))


def glyph(images: Tensor) -> Tensor:
    """A cross in the middle, relative to what surrounds it."""
    centre = images[:, :, 12:20, 12:20].mean(1)
    cross = torch.zeros(8, 8)
    cross[3:5], cross[:, 3:5] = 1, 1
    return 5 * (
        (centre * cross).sum((1, 2)) / cross.sum() - (centre * (1 - cross)).sum((1, 2)) / (1 - cross).sum()
    )


def named(tests: list[FactorTest]) -> str | None:
    return next((test.family for test in tests if test.strongest), None)


@pytest.mark.parametrize(
    ("measure", "family"),
    [
        (light, "brightness"),
        (red_over_blue, "tint"),
        (green_over_others, "tint"),
        (fine_detail, "sharpness"),
        (spread, "contrast"),
        (colourfulness, "saturation"),
    ],
)
def test_a_model_that_reads_one_factor_has_it_named(measure: Callable[[Tensor], Tensor], family: str) -> None:
    images = photographs()
    labels = (measure(images) > measure(images).median()).long()
    tests = dose_response(
        reads(measure), images, labels, like_train=(images, labels), classes=("few", "many")
    )
    assert named(tests) == family
    (best,) = (test for test in tests if test.strongest)
    assert best.kind == "shortcut"
    assert (best.raises, best.lowers) == (1, 0)
    assert best.effect is not None
    assert best.effect.value >= 0.6
    assert best.trend is not None
    assert best.trend > 0.9
    assert "from few to many" in best.statement
    gained = [point.gained for point in best.curve]
    assert gained == sorted(gained)


def test_a_model_that_reads_a_glyph_in_the_middle_has_none_named() -> None:
    images = photographs()
    tests = dose_response(reads(glyph), images)
    assert not [test.slug for test in tests if test.status == "confirmed"]
    assert {test.status for test in tests} == {"dismissed", "described"}


def test_of_twenty_models_with_random_filters_at_most_one_has_anything() -> None:
    images = photographs()

    class Shapes(nn.Module):
        """Where a random odd filter answers most: no matter of light, colour, contrast or focus."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            drawn = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(seed))
            self.filter = drawn - drawn.flip(2, 3)

        def forward(self, images: Tensor) -> Tensor:
            answers = F.conv2d(images.mean(1, keepdim=True), self.filter).flatten(1)
            return torch.stack([answers.amax(1), -answers.amin(1)], 1) / answers.std(1, keepdim=True)

    settings = DoseSettings(levels=(0.05, 0.95), images=40)
    names = [*FACTORS]
    alarms = [
        any(
            test.status == "confirmed"
            for test in dose_response(Shapes(seed), images, names=names, settings=settings)
        )
        for seed in range(20)
    ]
    assert sum(alarms) <= 1


def test_what_no_training_picture_explains_is_a_weakness() -> None:
    images = photographs()
    labels = torch.arange(COUNT) % 2
    for given, kind in ((None, "bias"), ((images, labels), "weakness")):
        tests = dose_response(reads(light), images, like_train=given, names=["brightness"])
        assert [test.kind for test in tests] == [kind]


def test_a_factor_that_counts_on_the_object_is_confirmed_there_alone() -> None:
    images = photographs()
    masks = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 8:24, 8:24] = 3

    def inner(images: Tensor) -> Tensor:
        return images[:, :, 10:22, 10:22].mean((1, 2, 3))

    tests = dose_response(reads(inner), images, masks=masks, names=["brightness", "silhouette"])
    found = {test.region: test.status for test in tests if test.factor == "brightness"}
    assert found == {"whole": "confirmed", "object": "confirmed", "background": "dismissed"}
    outline = tests[-1]
    assert outline.status == "described"
    assert outline.effect is not None
    assert outline.effect.value > 0.9  # the mean colour stays


def of_objects(lit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures whose objects are light where `lit`, their labels, and the masks."""
    images = 0.4 * photographs() + 0.2
    masks = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    gain = torch.where(lit, 1.6, 0.7)[:, None, None, None]
    return torch.where(masks[:, None], (images * gain).clamp(0, 1), images), lit.long(), masks


def inner_light(images: Tensor) -> Tensor:
    return images[:, :, 10:22, 10:22].mean((1, 2, 3))


def test_what_tells_objects_apart_and_acts_on_them_alone_is_an_insight() -> None:
    images, labels, masks = of_objects(torch.arange(COUNT) % 2 == 0)
    model = Reads(inner_light, float(inner_light(images).median()))
    given = {"masks": masks, "like_train": (images, labels), "names": ["brightness"]}
    found = {test.region: test for test in dose_response(model, images, labels, **given)}
    assert {region: test.kind for region, test in found.items()} == {
        "whole": "insight", "object": "insight", "background": None,
    }  # fmt: skip
    assert "something that the model knows" in found["object"].statement
    # In each of two groups it must tell them apart.
    halves = ["a" if row < COUNT // 2 else "b" for row in range(COUNT)]
    tests = dose_response(model, images, labels, groups=halves, **given)
    assert [test.kind for test in tests] == ["insight", "insight", None]
    assert "in every group" in tests[0].statement
    # In the second half labels have nothing to do with the light.
    mixed = torch.where(torch.arange(COUNT) < COUNT // 2, labels, torch.arange(COUNT) // 2 % 2)
    tests = dose_response(model, images, mixed, groups=halves, **given)
    assert "insight" not in [test.kind for test in tests]


def test_light_that_counts_on_the_background_is_no_insight() -> None:
    images, labels, masks = of_objects(torch.arange(COUNT) % 2 == 0)
    model = Reads(light, float(light(images).median()))
    tests = dose_response(model, images, labels, masks=masks, names=["brightness"])
    assert {test.region: test.status for test in tests}["background"] == "confirmed"
    assert "insight" not in [test.kind for test in tests]


# -- What it costs, and what it leaves ---------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], 1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("names", [None, ["hue", "texture"]])
def test_the_plan_says_how_many_pictures_the_model_sees(masked: bool, names: list[str] | None) -> None:
    images = photographs(40)
    masks = torch.zeros(40, SIDE, SIDE, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    settings, model = DoseSettings(images=36), Counting()
    dose_response(model, images, masks=masks if masked else None, names=names, settings=settings)
    assert model.seen == evaluations(40, masks=masked, names=names, settings=settings)


def test_parts_are_chosen() -> None:
    images, model = photographs(40), Counting()
    masks = torch.zeros(40, SIDE, SIDE, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    tests = dose_response(model, images, masks=masks, names=["contrast"], parts=["background"])
    assert [test.region for test in tests] == ["background"]
    assert model.seen == evaluations(40, masks=True, names=["contrast"], parts=["background"])
    with pytest.raises(ParamsError, match="part 'object' is not whole"):
        dose_response(model, images, names=["contrast"], parts=["object"])


def test_batches_and_the_global_random_state_change_nothing() -> None:
    images = photographs(40)
    model = reads(light)
    torch.manual_seed(5)
    first = dose_response(model, images, names=["brightness", "texture"], batch=7)
    torch.manual_seed(6)
    assert dose_response(model, images, names=["brightness", "texture"], batch=40) == first
    # Pictures as bytes are the same pictures.
    coarse = (images * 255).round().byte()
    assert dose_response(model, coarse, names=["contrast"]) == dose_response(
        model, coarse.float() / 255, names=["contrast"]
    )


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_a_model_is_left_as_it_was_found(error: BaseException | None) -> None:
    spec = ModelSpec("residual_cnn", ("a", "b"), (SIDE, SIDE), {"widths": [4, 6]})
    model = build_model(spec).train()
    frozen = next(model.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    if error is not None:

        def fail(*_: object) -> None:
            raise error

        handle = model.register_forward_hook(fail)
        with pytest.raises(type(error)):
            dose_response(model, photographs(32), names=["hue"])
        handle.remove()
    else:
        dose_response(model, photographs(32), names=["hue"])
    assert isinstance(model, Classifier)
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not frozen.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_too_few_pictures_or_ones_that_do_not_differ_are_not_tested() -> None:
    images, model = photographs(40), Counting()
    tests = dose_response(model, images, sources=[row // 2 for row in range(40)])
    assert {test.status for test in tests} == {"untested"}
    assert "20 independent pictures" in tests[0].statement
    assert model.seen == evaluations(20) == 0
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    (test,) = dose_response(model, grey, names=["saturation"])
    assert test.status == "untested"
    assert "do not differ in saturation" in test.statement


def test_what_changes_the_factor_too_is_explained_by_it() -> None:
    measure = FACTORS["sharpness"].measure
    tests = dose_response(reads(measure), photographs(), names=["hue", "sharpness", "resolution"])
    hue, sharpness, resolution = tests
    assert sharpness.strongest
    assert resolution.status == "confirmed"
    assert resolution.explained_by == sharpness.slug
    assert hue.status == "dismissed"
    assert hue.explained_by is None


def test_intervals_widen_with_what_is_tested_at_once() -> None:
    images = photographs()
    (alone,) = dose_response(reads(light), images, names=["contrast"])
    among = dose_response(reads(light), images, names=["contrast", "hue", "warmth", "sharpness"])[0]
    assert alone.effect is not None
    assert among.effect is not None
    assert among.effect.value == alone.effect.value
    assert among.effect.low <= alone.effect.low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(3, SIDE, SIDE)}, "must be"),
        ({"images": torch.rand(0, 3, SIDE, SIDE)}, "at least one"),
        ({"images": photographs(32) + 1}, r"\[0, 1\]"),
        ({"images": torch.full((32, 3, SIDE, SIDE), torch.nan)}, "NaN"),
        ({"images": torch.zeros(32, 3, SIDE, SIDE, dtype=torch.int32)}, "uint8"),
        ({"labels": torch.zeros(3)}, "as many labels, got 3"),
        ({"masks": torch.zeros(32, 8, 8)}, r"masks of \(8, 8\)"),
        ({"sources": ["a"]}, "as many sources"),
        ({"like_train": (photographs(4), torch.zeros(3))}, "as many labels"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"images": photographs(32)} | change
    with pytest.raises(DataError, match=message):
        dose_response(Counting(), given.pop("images"), **given)  # type: ignore[arg-type]


def test_settings_and_names_are_checked() -> None:
    with pytest.raises(ParamsError, match="'smell' is not known; there are hue"):
        dose_response(Counting(), photographs(32), names=["smell"])
    with pytest.raises(ParamsError, match="needs masks"):
        dose_response(Counting(), photographs(32), names=["silhouette"])
    for change in (
        {"levels": (0.5,)},
        {"levels": (0.9, 0.1)},
        {"images": 0},
        {"effect": 1.5},
        {"seed": 0, "least_sources": 1},
    ):
        with pytest.raises(ParamsError, match="must"):
            replace(DoseSettings(), **change)  # type: ignore[arg-type]
