"""`candling.entanglement` from a model to a result that shows and saves itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import candling
from candling import Entanglements
from candling.errors import CandlingError, DataError, ModelError, ParamsError
from candling.vision.entanglement import entanglement as entanglement_of

SIDE, CLASSES = 32, 6
QUICK = {"seeds": 2, "steps": 6}


def network(classes: int = CLASSES, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, classes),
        )  # fmt: skip


def pictures(count: int = 40) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


NAMES = ["wall clock", "analog clock", "zebra", "umbrella", "tench", "banana"]


@pytest.fixture(scope="module")
def found() -> Entanglements:
    labels = torch.arange(40) % CLASSES
    costs = np.random.default_rng(0).random((CLASSES, CLASSES))
    return candling.entanglement(
        network(), pictures=pictures(), labels=labels, names=NAMES, costs=costs, **QUICK
    )


def test_it_is_the_engines_matrix_of_these_prototypes(found: Entanglements) -> None:
    model = network().eval()
    with torch.no_grad():
        answers = model(found.prototypes.images.float() / 255)
        expected = entanglement_of(answers, torch.arange(CLASSES).repeat_interleave(2), model(pictures()))
    np.testing.assert_allclose(found.found.value, expected.value, rtol=1e-3, atol=1e-4)
    assert found.names == tuple(NAMES)
    assert len(found) == CLASSES


def test_it_shows_itself(found: Entanglements) -> None:
    text, page = repr(found), found._repr_html_()
    assert text.startswith("Entanglement of 6 classes: ")
    assert "rank correlation with costs of attacks: " in text
    assert found.attacks is not None
    assert page.count("<img src=") == 1
    assert page.count("<tr") == len(found.pairs.head(12)) + 1
    assert isinstance(found.heatmap(), Image.Image)
    assert found.explained_by == ("names", "weights of the head")


def test_names_are_escaped() -> None:
    names = ["<b>", "&amp;", "c", "d", "e", "f"]
    shown = candling.entanglement(network(), names=names, **QUICK)._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown


def test_it_saves_itself_whole_and_again(found: Entanglements, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):
        found.save(folder)
        assert sorted(path.name for path in folder.iterdir()) == ["entanglement.parquet", "entanglement.png"]
    table = pd.read_parquet(folder / "entanglement.parquet")
    assert list(table) == ["from", "to", "value", "low", "high", "n", "p", "q", "mutual", "pair_p", "pair_q",
                           "file"]  # fmt: skip
    pd.testing.assert_frame_equal(table.drop(columns="file"), found.table)
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ParamsError, match=r"mine\.txt"):
        found.save(folder)
    assert (folder / "mine.txt").read_text() == "keep"
    assert list(tmp_path.iterdir()) == [folder]


def test_without_pictures_they_are_drawn_and_that_is_said() -> None:
    found = candling.entanglement(network(), [0, 1, 5], size=SIDE, **QUICK)
    assert found.found.classes == (0, 1, 5)
    assert found.confusion is None
    notes = "\n".join(found.notes)
    assert "drawn from the prior" in notes
    assert "pictures with labels" in notes
    assert "four would give it" in notes


def test_a_model_that_outputs_probabilities_is_read_as_such() -> None:
    model = nn.Sequential(network(), nn.Softmax(1))
    found = candling.entanglement(model, pictures=pictures(), **QUICK)
    assert any("probabilit" in note for note in found.notes)
    assert np.isfinite(found.found.value[found.found.n > 0]).all()


def test_the_model_is_left_as_it_was_found() -> None:
    model = network().train()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    candling.entanglement(model, pictures=pictures(), **QUICK)

    def interrupt(advance: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        candling.entanglement(model, pictures=pictures(), progress=interrupt, **QUICK)
    assert model.training
    assert all(module.training for module in model.modules())
    assert not model[0].weight.requires_grad
    assert model[5].weight.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


WRONG: dict[str, tuple[dict[str, object], type[CandlingError], str]] = {
    "one class": ({"classes": [3]}, ParamsError, "two classes or more"),
    "a class twice": ({"classes": [3, "3"]}, ParamsError, "two classes or more"),
    "an unknown class": ({"classes": ["zebra", "mammoth"]}, ParamsError, "mammoth"),
    "a class beyond": ({"classes": [0, 6]}, ParamsError, "no class 6"),
    "a strange hierarchy": ({"hierarchy": {"mammoth": "animal"}}, ParamsError, "mammoth"),
    "pictures of two sizes": ({"pictures": torch.rand(4, 3, 16, 16), "size": 32}, DataError, "16, 16"),
    "no pictures": ({"pictures": torch.rand(0, 3, 32, 32)}, DataError, "pictures must be"),
    "labels alone": ({"labels": [1, 2]}, ParamsError, "labels without pictures"),
    "costs of others": ({"costs": np.ones((3, 3))}, DataError, "of shape"),
    "an unknown setting": ({"stepz": 3}, ParamsError, "stepz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input(case: str) -> None:
    given, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        candling.entanglement(network(), **({"names": NAMES, "size": SIDE} | QUICK | given))


def test_a_single_output_is_no_pair() -> None:
    with pytest.raises((ParamsError, ModelError)):
        candling.entanglement(network(1), size=SIDE, classes=[0], **QUICK)
