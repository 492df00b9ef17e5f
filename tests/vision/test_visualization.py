"""`candling.prototypes` and `candling.visualize`: planted models, what is measured, and every bad input."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import candling
from candling.data import Pictures
from candling.errors import CandlingError, DataError, ModelError, ParamsError, ServiceError
from candling.models import (
    Classifier,
    ModelSource,
    ModelSpec,
    build_model,
    penultimate,
    probabilities,
    recording,
    save_model,
)
from candling.vision import kept as kept_module
from candling.vision.advance import Advance
from candling.vision.climbing import FOURIER, Climb
from candling.vision.objectives import channel, neuron, region
from candling.vision.priors import fit_prior, natural_prior
from candling.vision.prototypes import generate_prototypes
from candling.vision.regularisers import diversity as likeness
from candling.vision.trust import agreement, judge, path_similarity
from tests.models.blackboxes import NAMES as BOX_NAMES
from tests.models.blackboxes import SIZE as BOX_SIZE
from tests.models.blackboxes import onnx_file
from tests.models.factories import Tiny

SIZE = (24, 32)
SHORT: dict[str, Any] = {"seeds": 2, "steps": 12}
NAMES = ("red", "green", "blue")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class ReadsColour(nn.Module):
    """Logit c = 10 (mean of channel c - mean of the others), after a layer that passes colours on."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.colours = nn.Conv2d(channels, channels, 1, bias=False)
        self.head = nn.Linear(channels, channels, bias=False)
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.head.weight.copy_(10 * ((1 + 1 / (channels - 1)) * torch.eye(channels) - 1 / (channels - 1)))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.colours(images).mean((2, 3)))
        return out


class Dense(nn.Module):
    """Scores (N, 2, h, w): how red and how green each of 4 × 4 places is."""

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images[:, :2], 4)


def classifier(seed: int = 1, names: tuple[str, ...] = NAMES, **fields: Any) -> Classifier:
    return build_model(ModelSpec("residual_cnn", names, SIZE, {"widths": [4, 6]}, **fields), seed=seed)


def tiny(after: str = "none", **arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tiny(after=after, **arguments).eval()


# --- prototypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_model_of_colours_gets_its_colours_whatever_their_number(channels: int) -> None:
    model = ReadsColour(channels) if channels > 1 else tiny(channels=1)
    found = candling.prototypes(model, size=(20, 28), seeds=2, steps=30)
    assert found.images.shape == (2 * (channels if channels > 1 else 3), channels, 20, 28)
    if channels > 1:
        assert torch.equal((found.images / 255).mean((2, 3)).argmax(1), torch.tensor(found.table["class"]))
    assert found.table["name"].tolist() == [str(c) for c in found.table["class"]]


def test_the_table_holds_what_the_engine_measures() -> None:
    model, second = classifier(), classifier(seed=2)
    pictures, labels = noise(18, 3, *SIZE), torch.arange(18) % 3
    found = candling.prototypes(
        model, ["blue", "red"], pictures=pictures, labels=labels.tolist(), second=second, **SHORT
    )
    settings = replace(FOURIER, **SHORT)
    expected = generate_prototypes(model, [2, 0], natural_prior(SIZE), settings=settings)
    table = found.table
    assert list(table) == [
        "class", "name", "seed", "steps", "probability", "agreement", "path", "transfer", "trust"
    ]  # fmt: skip
    assert torch.equal(found.images, expected.images)
    assert table["class"].tolist() == [2, 2, 0, 0]
    assert table["name"].tolist() == ["blue", "blue", "red", "red"]
    assert table["seed"].tolist() == [0, 1, 0, 1]
    assert table["steps"].tolist() == [12] * 4

    def column(name: str) -> Tensor:
        return torch.tensor(table[name].to_numpy(), dtype=torch.float32)

    torch.testing.assert_close(column("probability"), expected.probability.mean(1))
    alike = agreement(penultimate(model, expected.images), expected.classes)
    unit = expected.images / 255
    path = path_similarity(model, unit, expected.classes, pictures, labels).score
    with torch.no_grad():
        theirs = probabilities(second, second(unit)).gather(1, expected.classes[:, None])[:, 0]
    assert alike is not None
    torch.testing.assert_close(column("agreement"), alike)
    torch.testing.assert_close(column("path"), path)
    torch.testing.assert_close(column("transfer"), ((theirs - 1 / 3) / (2 / 3)).clamp(0, 1))
    trust = judge(expected.probability, chance=1 / 3, agreement=alike, path=path, transfer=theirs)
    torch.testing.assert_close(column("trust"), trust.score)
    assert not any("without" in note for note in found.notes)


def test_what_was_not_measured_is_nan_and_said() -> None:
    found = candling.prototypes(classifier(), "green", **SHORT)
    assert found.table[["agreement", "path", "transfer"]].isna().all(axis=None)
    assert found.table["trust"].notna().all()
    (note,) = found.notes
    for words in ("agreement (two seeds of two classes", "path similarity, which tells the most", "transfer"):
        assert words in note
    assert note in repr(found)
    assert note in found._repr_html_()


def test_multilabel_chance_is_one_half() -> None:
    model = classifier(head="multilabel")
    found = candling.prototypes(model, [0], seeds=1, steps=30)
    made = generate_prototypes(model, [0], natural_prior(SIZE), settings=replace(FOURIER, seeds=1, steps=30))
    expected = judge(made.probability, chance=0.5).score
    assert found.table["trust"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_single_output_has_no_probability_and_no_trust() -> None:
    found = candling.prototypes(tiny(outputs=1), size=SIZE, **SHORT)
    assert found.table[["probability", "trust"]].isna().all(axis=None)
    assert "single output" in found.notes[0]
    assert found.captions == ["0\nseed 0", "0\nseed 1"]


def test_pictures_of_the_data_module_bring_labels_and_their_own_prior() -> None:
    images = (noise(9, 3, *SIZE) * 255).byte()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, -1])
    kinds = ("a",) * 9
    found = candling.prototypes(
        classifier(), [0, 1], prior="fitted", pictures=Pictures(kinds, images, labels, kinds, kinds), **SHORT
    )
    expected = generate_prototypes(
        classifier(), [0, 1], fit_prior(images), settings=replace(FOURIER, **SHORT)
    )
    assert torch.equal(found.images, expected.images)
    assert found.path is not None
    assert found.path.layers


SHAPES = {
    "said": ({"size": 20, "channels": 3}, (3, 20, 20)),
    "of the prior": ({"prior": natural_prior((16, 20))}, (3, 16, 20)),
    "of the pictures": ({"pictures": noise(2, 3, 18, 22)}, (3, 18, 22)),
    "of the start": ({"start": noise(3, 17, 19)}, (3, 17, 19)),
    "of the start, without its opacity": ({"start": noise(4, 17, 19), "alpha": True}, (4, 17, 19)),
    "the prior's at another size": ({"prior": natural_prior((16, 20)), "size": (20, 24)}, (3, 20, 24)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_the_shape_of_the_pictures(case: str) -> None:
    said, shape = SHAPES[case]
    found = candling.prototypes(tiny(), [0], seeds=1, steps=2, **said)
    assert found.images.shape == (1, *shape)


def test_a_start_is_where_rows_begin() -> None:
    start = (noise(3, *SIZE) * 255).byte()
    found = candling.prototypes(
        classifier(), [1], start=start, seeds=1, steps=1, learning_rate=1e-9, contrast=0.7
    )
    assert (found.images[0].int() - start.clamp(5, 250).int()).abs().max() <= 1


def between(outputs: int) -> nn.Module:
    """A network that answers one noise with all classes alike."""
    model = tiny(outputs=outputs)
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(20)
        model.get_parameter("head.bias").sub_(model(0.3 + 0.5 * noise(1, 3, 64, 64))[0])
    return model


def spread(values: Tensor) -> float:
    return float(values.max() - values.min())


class Answers:
    """Scores, and sides, of the pictures that a model is asked about on the way of a climb."""

    def __init__(self, model: nn.Module) -> None:
        self.scores: list[Tensor] = []
        self.sizes: list[tuple[int, ...]] = []
        self.handle = model.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0].requires_grad and len(inputs[0]) == 8:  # so many at a time, whatever is asked for
            self.scores.append(output.detach()[0])
            self.sizes.append(tuple(inputs[0].shape[2:]))


STILL: dict[str, Any] = {"seeds": 1, "steps": 2, "robustness": "none"}


@pytest.mark.parametrize("parameterisation", ["fourier", "pixels"])
def test_a_start_between_the_classes_that_are_asked_for(parameterisation: str) -> None:
    model = between(4)
    for asked, alike in (([1, 3], [1, 3]), ([2], [0, 1, 2, 3]), (None, [0, 1, 2, 3])):
        answers = Answers(model)
        found = candling.prototypes(
            model, asked, start="equidistant", size=SIZE, parameterisation=parameterisation, **STILL
        )
        answers.handle.remove()
        # A little is lost where colours are cut off and pictures are rendered.
        assert spread(answers.scores[0][alike]) < 0.05 < spread(answers.scores[-1][alike])
        shown = candling.visualize(
            model, [f"logit[{c}]" for c in asked or range(4)], start="equidistant", size=SIZE,
            parameterisation=parameterisation, **STILL,
        )  # fmt: skip
        assert torch.equal(found.images, shown.images)
    answers = Answers(model)
    candling.prototypes(model, size=SIZE, **STILL)
    assert spread(answers.scores[0]) > 0.1, "noise is of one class more than of the other"


def test_a_start_between_classes_is_of_the_final_size() -> None:
    model = between(4)
    answers = Answers(model)
    candling.prototypes(model, [0, 2], start="equidistant", size=96, growth=((0.5, 0.5), (1.0, 0.5)), **STILL)
    assert set(answers.sizes) == {(96, 96)}
    assert spread(answers.scores[0][[0, 2]]) < 0.03


def test_seeds_that_start_from_one_picture_do_not_count_as_agreeing() -> None:
    start = noise(3, *SIZE)
    found = candling.prototypes(classifier(), [0, 1], start=start, seeds=2, steps=2)
    assert found.table["agreement"].isna().all()
    assert any("start from one picture" in note for note in found.notes)


def test_maco_starts_from_no_picture_between_classes() -> None:
    with pytest.raises(ParamsError, match="maco has magnitudes of its own"):
        candling.prototypes(classifier(), [0, 1], start="equidistant", parameterisation="maco")


@pytest.mark.parametrize("what", ["margin[1] - 0.5*probability[2]", "logit[2] + logit[1] - conv.channel[0]"])
def test_a_start_between_the_classes_of_a_text(what: str) -> None:
    model = between(4)
    answers = Answers(model)
    candling.visualize(model, what, start="equidistant", size=SIZE, **STILL)
    assert spread(answers.scores[0][[1, 2]]) < 0.03


def test_settings_by_name() -> None:
    settings = Climb(parameterisation="pixels", seeds=3, steps=2)
    found = candling.prototypes(classifier(), [0], settings=settings, robustness="none", seeds=1)
    assert found.settings == replace(settings, robustness="none", seeds=1)
    assert "Climb(parameterisation='pixels', seeds=1, steps=2" in repr(found)


def test_a_model_by_its_name(tmp_path: Path) -> None:
    model = classifier()
    save_model(model, tmp_path / "model")
    whole = candling.prototypes(model, "red", **SHORT)
    for named in (
        tmp_path / "model",
        str(tmp_path / "model"),
        ModelSource("folder", str(tmp_path / "model")),
    ):
        assert torch.equal(candling.prototypes(named, "red", **SHORT).images, whole.images)
    assert [layer.name for layer in candling.layers(tmp_path / "model")] == [
        layer.name for layer in candling.layers(model)
    ]


# --- visualize -----------------------------------------------------------------------------------


def test_values_are_those_of_the_saved_pictures() -> None:
    model = tiny()
    found = candling.visualize(
        model, ["conv.channel[2]", "-conv.channel[2]", neuron("conv", 1, 3, 4), "logit[1] - 2*logit[0]"],
        size=SIZE, **SHORT,
    )  # fmt: skip
    assert list(found.table) == ["objective", "seed", "steps", "value"]
    assert found.table["objective"].tolist() == [
        text
        for text in ("conv.channel[2]", "-conv.channel[2]", "conv.neuron[1,3,4]", "-2*logit[0] + logit[1]")
        for _ in range(2)
    ]
    with torch.no_grad():
        unit = found.images / 255
        inner, logits = model.get_submodule("conv")(unit), model(unit)
        expected = torch.cat(
            [inner[:2, 2].mean((1, 2)), -inner[2:4, 2].mean((1, 2)), inner[4:6, 1, 3, 4],
             logits[6:, 1] - 2 * logits[6:, 0]]
        )  # fmt: skip
    assert found.table["value"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert (found.table["value"].iloc[:2] > -found.table["value"].iloc[2:4].to_numpy()).all()
    assert found.notes == ()
    assert found.captions[0] == f"conv.channel[2]\nseed 0, value {found.table['value'][0]:.3g}"


def test_classes_by_name_in_texts() -> None:
    by_name = candling.visualize(classifier(), "logit[blue]", **SHORT)
    assert by_name.table["objective"].tolist() == ["logit[blue]"] * 2
    odd = classifier(names=("7", "a]b", "blue"))
    shown = candling.visualize(odd, "margin[0] + logit[1] - 2*probability[2]", seeds=1, steps=1)
    assert shown.table["objective"].tolist() == ["logit[1] + margin[0] - 2*probability[blue]"]
    plain = candling.visualize(ReadsColour(), "logit[blue]", names=NAMES, size=SIZE, seeds=1, steps=30)
    assert (plain.images / 255).mean((2, 3)).argmax(1).tolist() == [2]


def test_a_place_of_a_dense_output() -> None:
    mask = torch.zeros(4, 4)
    mask[:, 0] = 1
    found = candling.visualize(Dense(), region(0, mask), size=(32, 32), seeds=1, steps=40)
    red = found.images[0, 0].float()
    assert red[:, :8].mean() > red[:, 8:].mean() + 20
    whole = candling.prototypes(Dense(), [1], size=(32, 32), seeds=1, steps=10)
    value = (whole.images[:, :2] / 255).mean((2, 3)).softmax(1)
    assert whole.table["probability"][0] == pytest.approx(float(value[0, 1]), abs=0.05)


def test_seeds_are_pushed_apart() -> None:
    model, what = classifier(), "stages.0.channel[1]"

    def alike(strength: float) -> float:
        images = candling.visualize(model, what, seeds=4, steps=30, diversity=strength).images
        with recording(model, ["stages.0"]) as seen, torch.no_grad():
            model(images / 255)
        return float(likeness(seen["stages.0"], torch.zeros(4)).mean())

    assert alike(5.0) < alike(0.0) - 0.01


def test_seeds_are_pushed_apart_whatever_the_channels() -> None:
    found = candling.prototypes(ReadsColour(5), [4, 1], size=SIZE, diversity=0.5, **SHORT)
    assert found.images.shape == (4, 5, *SIZE)
    assert not torch.equal(found.images[0], found.images[1])


def test_what_does_not_climb_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()[1] = 1
        model.get_parameter("0.bias").fill_(-1.0)
    found = candling.visualize(model, ["1.channel[0]", "1.channel[1]"], size=SIZE, **SHORT)
    assert found.table["value"].tolist()[:2] == [0, 0]
    (note,) = found.notes
    assert note.startswith("2 of 4 pictures excite what they climbed no more than plain grey does")


# --- results -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> candling.Visualizations:
    model = classifier(names=("<b>red</b>", "zebra, striped", "blue"))
    return candling.prototypes(model, [0, 1], **SHORT)


def test_a_result_shows_itself(found: candling.Visualizations) -> None:
    assert len(found) == 4
    shown = repr(found)
    assert shown.startswith("4 prototypes, uint8 3 × 24 × 32, Climb(seeds=2, steps=12")
    assert "zebra, striped" in shown
    page = found._repr_html_()
    assert page.count("<img ") == 4
    assert "&lt;b&gt;red" in page
    assert "<b>" not in page
    assert page.count(">seed 1, trust 0.") == 2
    assert found.sheet(columns=2).width < found.sheet(columns=4).width


def test_a_result_is_saved_whole(found: candling.Visualizations, tmp_path: Path) -> None:
    found.save(tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "prototypes.parquet")
    pd.testing.assert_frame_equal(table.drop(columns="file"), found.table)
    assert table["file"].tolist()[2] == "0002-zebra-striped.png"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *table["file"], "prototypes.parquet", "prototypes.png"
    }  # fmt: skip
    with Image.open(tmp_path / "out" / table["file"][0]) as picture:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(pixels, found.images[0])


# --- rows that are kept --------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each later call of the optimiser is given."""
    given: list[int] = []
    plain = kept_module.climb

    def climb(model: nn.Module, rows: Any, *rest: Any, **more: Any) -> None:
        given.append(len(rows))
        plain(model, rows, *rest, **more)

    monkeypatch.setattr(kept_module, "climb", climb)
    return given


@pytest.mark.parametrize("what", ["prototypes", "visualize"])
def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    given = counted(monkeypatch)
    model = classifier()

    def run(**more: Any) -> candling.Visualizations:
        if what == "prototypes":
            return candling.prototypes(model, batch=2, **SHORT, **more)
        asked = ["stages.0.channel[1]", "-stem", "logit[red] + stages.0.channel[0]"]
        return candling.visualize(model, asked, batch=2, **SHORT, **more)

    def stop(advance: Advance) -> None:
        assert advance.of == 6
        if advance.rows >= 3:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path / "rows", progress=stop)
    kept = len(list((tmp_path / "rows").glob("*.safetensors")))
    assert kept in (3, 4)
    told: list[Advance] = []
    again = run(folder=tmp_path / "rows", progress=told.append)
    assert given == [6, 6, 6 - kept]
    assert (again.images.int() - whole.images.int()).abs().max() <= 1
    pd.testing.assert_frame_equal(again.table, whole.table, atol=2e-2, rtol=1e-2)
    assert [one.rows for one in told[:kept]] == list(range(1, kept + 1))
    assert (told[-1].rows, told[-1].share, told[-1].left) == (6, 1.0, 0.0)
    assert all(a.share <= b.share for a, b in zip(told[kept:], told[kept + 1 :], strict=False))
    assert run(folder=tmp_path / "rows").images.equal(again.images)
    assert given[-1] == 0


def test_rows_of_another_run_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = counted(monkeypatch)
    start = noise(3, *SIZE)

    def run(model: nn.Module, **more: Any) -> int:
        candling.prototypes(model, [0], seeds=1, steps=2, folder=tmp_path, **more)
        return given[-1]

    assert run(classifier()) == 1
    assert run(classifier()) == 0
    assert run(classifier(), start=start) == 1
    assert run(classifier(), start=start) == 0
    assert run(classifier(), start=1 - start) == 1
    # Weights are the same; what is subtracted from pictures is not.
    assert run(classifier(mean=(0.4, 0.5, 0.5))) == 1
    assert run(classifier(seed=3)) == 1
    monkeypatch.setattr(kept_module, "_sources", lambda: b"another version")
    assert run(classifier()) == 1


def test_a_folder_that_cannot_hold_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="finished rows cannot be kept there"):
        candling.prototypes(classifier(), [0], folder=tmp_path / "file" / "rows", **SHORT)


# --- bad input -----------------------------------------------------------------------------------


class TakesTokens(nn.Module):
    """Token ids (N, T) to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(ids).mean(1))
        return out


class TakesMapping(nn.Module):
    """A mapping with `pixel_values`, as of a data loader."""

    def forward(self, batch: Any) -> Tensor:
        out: Tensor = batch.pixel_values.mean((2, 3))
        return out


class RootOfNegative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        # Finite values with an infinite slope: sqrt at 0 of what is the same for all pictures.
        out: Tensor = self.head(images.mean((2, 3)) + (images * 0).mean((2, 3)).sqrt())
        return out


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def black_box(folder: Path) -> Any:
    return ModelSource("onnx", str(onnx_file(folder)), classes=tuple(BOX_NAMES), image_size=BOX_SIZE)


Made = Callable[[Path], Any]
# model; keywords; the error and its words
BAD: dict[str, tuple[Made, dict[str, Any], type[CandlingError], str]] = {
    "no such class by name": (
        lambda _: classifier(), {"classes": "bleu"}, ParamsError, "no class 'bleu'; the nearest is 'blue'"
    ),
    "no such class by number": (
        lambda _: tiny(), {"classes": [0, 3]}, ParamsError, "there is no class 3; the model has 3, 0 to 2"
    ),
    "a class below zero": (lambda _: tiny(), {"classes": -1}, ParamsError, "there is no class -1"),
    "a class that is no number": (
        lambda _: tiny(), {"classes": [0.5]}, ParamsError, "a class is a name or a whole number, not 0.5"
    ),
    "no class at all": (lambda _: tiny(), {"classes": []}, ParamsError, "no class is asked for"),
    "two classes of one name": (
        lambda _: tiny(), {"classes": "a", "names": ("a", "b", "a")}, ParamsError, "0, 2 are all called 'a'"
    ),
    "too few names": (lambda _: tiny(), {"names": ("a",)}, ParamsError, "3 classes, but 1 are named"),
    "no such setting": (
        lambda _: tiny(), {"robustnes": "s"}, ParamsError, "no setting 'robustnes'; the nearest are"
    ),
    "no such strength": (lambda _: tiny(), {"robustness": "huge"}, ParamsError, "'huge' is none of none, s"),
    "seeds that are no number": (
        lambda _: tiny(), {"seeds": "two"}, ParamsError, "seeds is 'two'; it must be a whole number from 1"
    ),
    "not a model": (lambda _: [1, 2], {}, ParamsError, "a torch module or text that names one, not list"),
    "no such folder": (lambda folder: folder / "none", {}, ModelError, "no spec.json here"),
    "a folder of a language model": (
        lambda folder: language_model(folder), {}, ModelError, "model_type 'llama': no image classifier"
    ),
    "token ids": (lambda _: TakesTokens(), {}, ModelError, "does not take a picture of 3 × 24 × 32"),
    "a mapping in": (lambda _: TakesMapping(), {}, ModelError, "does not take a picture of 3 × 24 × 32"),
    "a black box": (black_box, {"size": None}, ModelError, "a black box (onnx), so its gradient"),
    "argmax inside": (lambda _: tiny("argmax"), {}, ModelError, "int64, such as indices of classes"),
    "detach inside": (lambda _: tiny("detached"), {}, ModelError, "does not reach the picture"),
    "rounding inside": (lambda _: tiny("rounded"), {}, ModelError, "does not reach the picture"),
    "nothing in a mapping": (lambda _: tiny("nothing"), {}, ModelError, "returns str without a tensor"),
    "a score for each token": (lambda _: tiny("sequence"), {}, ModelError, "shape (1, 4, 3)"),
    "NaN": (lambda _: tiny("nan"), {}, ModelError, "is NaN or infinite for ordinary pictures"),
    "an infinite slope": (
        lambda _: RootOfNegative(), {}, ModelError, "is NaN or infinite for ordinary pictures"
    ),
    "smaller than the stride": (
        lambda _: strided(), {"size": 8}, ModelError, "does not take a picture of 3 × 8 × 8"
    ),
    "smaller than any model takes": (
        lambda _: ReadsColour(), {"size": 2}, ParamsError, "pictures of 3 × 2 × 2 cannot be made"
    ),
    "another number of channels": (
        lambda _: tiny(), {"channels": 4}, ModelError, "does not take a picture of 4 × 24 × 32"
    ),
    "a prior of other channels": (
        lambda _: tiny(), {"prior": natural_prior(SIZE, 2), "channels": 3}, ParamsError, "2 channels, but"
    ),
    "no such prior": (lambda _: tiny(), {"prior": "flat"}, ParamsError, "there is no prior 'flat'"),
    "a prior fitted on nothing": (lambda _: tiny(), {"prior": "fitted"}, ParamsError, "give `pictures`"),
    "labels without pictures": (lambda _: tiny(), {"labels": [0]}, ParamsError, "labels without pictures"),
    "pictures of another size": (
        lambda _: classifier(), {"size": None, "pictures": noise(4, 3, 8, 8)}, DataError, "to that size"
    ),
    "a picture in place of several": (
        lambda _: tiny(), {"pictures": noise(3, *SIZE)}, DataError, "must be of shape (N, C, H, W)"
    ),
    "too few labels": (
        lambda _: tiny(), {"pictures": noise(4, 3, *SIZE), "labels": [0]}, DataError, "4 pictures need"
    ),
    "a label of no class": (
        lambda _: tiny(), {"pictures": noise(2, 3, *SIZE), "labels": [0, 7]}, DataError, "the label 7"
    ),
    "several pictures to start from": (
        lambda _: tiny(), {"start": noise(2, 3, *SIZE)}, DataError, "must be (3, height, width)"
    ),
    "a start that is no picture": (
        lambda _: tiny(), {"start": "grey"}, ParamsError, "no start 'grey'; it is a picture, 'equidistant' or"
    ),
    "a start between one class": (
        lambda _: tiny(outputs=1), {"start": "equidistant"}, ParamsError, "needs two classes or more"
    ),
    "a start where nothing leads": (
        lambda _: classifier(), {"start": "equidistant"}, ModelError,
        "no gradient leads to a picture that is equidistant between 3 classes; start from noise",
    ),
    "a second model of other classes": (
        lambda _: classifier(), {"second": classifier(names=("red", "blue", "green"))}, ModelError,
        "class 1, 'green', is 'blue' in the second model",
    ),
    "a second model of fewer classes": (
        lambda _: tiny(), {"second": tiny(outputs=2)}, ModelError, "class 2, '2', is not there in the second"
    ),
    "a second model of token ids": (
        lambda _: tiny(), {"second": TakesTokens()}, ModelError, "the second model: the model does not take"
    ),
}  # fmt: skip

BAD_TEXTS: dict[str, tuple[Made, Any, type[CandlingError], str]] = {
    "no such layer": (
        lambda _: tiny(), "cnov.channel[1]", ModelError, "has no layer 'cnov'; the nearest is 'conv'"
    ),
    "no such channel": (lambda _: tiny(), "conv.channel[5]", ModelError, "conv has 5 channels, 0 to 4"),
    "no such place": (lambda _: tiny(), "conv.neuron[0,22,0]", ModelError, "conv has 22 rows, 0 to 21"),
    "a token of a picture": (lambda _: tiny(), "conv.token[0]", ModelError, "needs (tokens, units)"),
    "no such class": (lambda _: classifier(), "logit[bleu]", ParamsError, "the nearest is 'blue'"),
    "names of nobody": (lambda _: tiny(), "logit[red]", ParamsError, "names of classes are not known here"),
    "no sense": (lambda _: tiny(), "logit[1] logit[2]", ParamsError, "not understood"),
    "nothing": (lambda _: tiny(), [], ParamsError, "there is nothing to visualize"),
    "a layer behind a detach": (
        lambda _: tiny("detached"), "logit[0]", ModelError, "of logit[0] does not reach the picture"
    ),
    "a layer of NaN": (lambda _: tiny("nan"), "logit[0]", ModelError, "of logit[0] is NaN or infinite"),
    "token ids": (lambda _: TakesTokens(), "embedding", ModelError, "does not take a picture"),
    "a black box": (black_box, "conv.channel[0]", ModelError, "a black box (onnx)"),
    "smaller than the stride": (lambda _: strided(), "0.channel[0]", ModelError, "picture of 3 × 8 × 8"),
}  # fmt: skip


def language_model(folder: Path) -> Path:
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.save_pretrained(folder / "llama")
    torch.save({"lm_head.weight": torch.zeros(2, 2)}, folder / "llama" / "pytorch_model.bin")
    return folder / "llama"


def state(model: Any) -> object:
    if not isinstance(model, nn.Module):
        return None
    return (
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad, p.dtype, p.stride()) for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
    )


def unsettled(model: Any) -> Any:
    """The model in a state that would not come back by chance."""
    if isinstance(model, nn.Module):
        model.train()
        for module in list(model.modules())[1:2]:
            module.eval()
        for parameter in list(model.parameters())[:1]:
            parameter.requires_grad_(False)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def refused(call: Callable[[], object], model: Any, error: type[CandlingError], words: str) -> None:
    before = state(model)
    with pytest.raises(error, match=re.escape(words)) as raised:
        call()
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert state(model) == before


@pytest.mark.parametrize("case", BAD)
def test_prototypes_refuse_what_cannot_work(case: str, tmp_path: Path) -> None:
    made, said, error, words = BAD[case]
    model, rows = unsettled(made(tmp_path)), tmp_path / "rows"
    keywords: dict[str, Any] = {"size": SIZE, "steps": 3, **said}
    refused(lambda: candling.prototypes(model, folder=rows, **keywords), model, error, words)
    assert not rows.exists()


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_visualize_refuses_what_cannot_work(case: str, tmp_path: Path) -> None:
    made, what, error, words = BAD_TEXTS[case]
    model, rows = unsettled(made(tmp_path)), tmp_path / "rows"
    size = 8 if case == "smaller than the stride" else SIZE
    refused(lambda: candling.visualize(model, what, size=size, steps=3, folder=rows), model, error, words)
    assert not rows.exists()


@pytest.mark.parametrize("what", ["conv.channel[1]", ["logit[0]", "conv"]])
def test_a_start_between_classes_where_there_are_none(what: Any, tmp_path: Path) -> None:
    model, rows = unsettled(tiny()), tmp_path / "rows"

    def call() -> object:
        return candling.visualize(model, what, start="equidistant", size=SIZE, steps=3, folder=rows)

    name = "conv.channel[1]" if isinstance(what, str) else "conv"
    refused(call, model, ParamsError, f"lies between classes, and {name} has none; start from noise")
    assert not rows.exists()


@pytest.mark.parametrize("after", ["tuple", "list", "dict", "dict of scores", "dataclass", "model output"])
def test_scores_are_found_in_whatever_a_model_returns(after: str) -> None:
    model, plain = unsettled(tiny(after)), tiny()
    before = state(model)
    found = candling.prototypes(model, [2], second=tiny(after), size=SIZE, **SHORT)
    assert state(model) == before
    expected = candling.prototypes(plain, [2], second=plain, size=SIZE, **SHORT)
    assert torch.equal(found.images, expected.images)
    pd.testing.assert_frame_equal(found.table, expected.table)
    shown = candling.visualize(model, "logit[2]", size=SIZE, **SHORT)
    assert torch.equal(shown.images, expected.images)


def test_a_model_is_left_as_it_was_by_an_interrupt() -> None:
    model = unsettled(classifier())
    before = state(model)

    def stop(advance: Advance) -> None:
        raise KeyboardInterrupt

    for call in (
        lambda: candling.prototypes(model, progress=stop, **SHORT),
        lambda: candling.visualize(model, channel("stages.0", 1), progress=stop, **SHORT),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert state(model) == before
