"""`candling.trick`: the picture as saved and read back, on small models and on the real MobileNetV2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import candling
from candling.errors import CandlingError, DataError, ModelError, ParamsError
from candling.models import Classifier, ModelSource, ModelSpec, build_model, logits, open_model, predict
from candling.vision.tricking import amplified, trick
from tests.vision.test_adversarial import Argmax, Net, pictures

ASSETS = Path(os.environ.get("CANDLING_ASSETS", Path(__file__).parents[3] / "shared" / "assets"))
WEIGHTS, FISH = ASSETS / "mobilenet_v2" / "model.safetensors", ASSETS / "photos" / "0001.jpg"
NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


def read(file: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def least_likely(net: nn.Module, picture: Tensor) -> int:
    return int(logits(net, picture[None]).argmin())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_saved_fools(net: nn.Module, tmp_path: Path, norm: Any) -> None:
    picture = pictures(1)[0]
    target = least_likely(net, picture)
    found = trick(net, picture, NAMES[target], norm=norm, names=NAMES, probability=0.9)
    assert found.done
    assert found.target == NAMES[target]
    found.save(tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "original.png", "noise.png", "tricked.png", "trick.png", "trick.parquet"
    }  # fmt: skip
    assert (read(tmp_path / "out" / "original.png") == picture).all()
    saved = read(tmp_path / "out" / "tricked.png")
    shares = logits(net, saved[None]).softmax(1)[0]
    assert shares[target] >= 0.9
    table = pd.read_parquet(tmp_path / "out" / "trick.parquet")
    assert table["file"].tolist() == ["original.png", "noise.png", "tricked.png"]
    assert table["picture"].tolist() == ["original", "noise", "tricked"]
    assert table["to_probability"][2] == pytest.approx(float(shares[target]), abs=1e-6)
    assert table["predicted"][2] == NAMES[target]
    change = (saved.double() - picture.double()) / 255
    size = change.norm() if norm == "l2" else change.abs().max()
    assert found.distance == pytest.approx(float(size), rel=1e-6)
    assert found.distance <= found.epsilon + 1e-6
    found.save(tmp_path / "out")  # an earlier one is replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ParamsError, match=r"holds 'thesis\.tex'"):
        found.save(tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_smaller_epsilon_than_the_smallest_is_not_enough(net: nn.Module) -> None:
    picture = pictures(1)[0]
    target = least_likely(net, picture)
    smallest = trick(net, picture, target, probability=0.9)
    level = round(smallest.epsilon * 255)
    assert level > 1
    less = trick(net, picture, target, probability=0.9, epsilon=(level - 1) / 255)
    assert not less.done
    assert "was not reached with a probability of 0.9 within an epsilon of" in less.notes[0]
    assert less.epsilon == pytest.approx((level - 1) / 255)
    more = trick(net, picture, target, probability=0.9, epsilon=(level + 2) / 255)
    assert more.done
    assert more.epsilon == pytest.approx((level + 2) / 255)


def test_any_other_class(net: nn.Module) -> None:
    found = trick(net, pictures(1)[0], names=NAMES, probability=None)
    assert found.done
    assert found.target is None
    before, after = found.table["predicted"]
    assert before == found.source != after
    assert found.table["to_probability"].isna().all()
    assert "taken for another class" in repr(found)


def test_it_shows_itself(net: nn.Module) -> None:
    picture = pictures(1)[0]
    found = trick(net, picture, least_likely(net, picture), names=NAMES)
    page = found._repr_html_()
    assert page.count("<img") == 3
    for row in found.table.to_dict("records"):
        assert f"{row['predicted']} {row['probability']:.3f}" in page
        assert f"{row['probability']:.3g}" in repr(found)
    assert found.captions[1] == f"noise × {127 / round(found.epsilon * 255):.3g}\n" + (
        f"{round(found.epsilon * 255)}/255 at most"
    )
    sheet = found.sheet()
    assert sheet.width > 3 * picture.shape[2]


def test_noise_is_amplified_on_grey() -> None:
    before = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 0], after[1, 1, 1] = 104, 98
    noise = amplified(before, after)
    assert noise[0, 0, 0] in (254, 255)
    assert noise[1, 1, 1] == 64
    assert (noise[2] == 128).all()
    assert (amplified(before, before) == 128).all()


def classifier(resize: int | None = 20) -> Classifier:
    """One that resizes pictures to more than it sees, as usual."""
    model = build_model(ModelSpec("residual_cnn", NAMES, (16, 16), {"widths": [4, 6]}, resize=resize), seed=1)
    wide = torch.nn.Linear(3 * 16 * 16, 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(wide.weight, std=0.3)
    model.network = nn.Sequential(nn.Flatten(), wide)
    return model.eval()


@pytest.mark.parametrize("resize", [20, None])
def test_a_file_fools_when_it_is_prepared_again_too(tmp_path: Path, resize: int | None) -> None:
    model = classifier(resize)
    pixels = torch.randint(0, 256, (40, 52, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    target = predict(model, tmp_path / "a.png")[-1][0]
    found = trick(model, tmp_path / "a.png", target, probability=0.9)
    assert found.original.shape == (3, 16, 16)
    assert found.done
    found.save(tmp_path / "out")
    saved = tmp_path / "out" / "tricked.png"
    assert logits(model, read(saved)[None]).softmax(1)[0, NAMES.index(target)] >= 0.9
    name, probability = predict(model, saved)[0]
    assert name == target
    # Pillow rounds on the way what the attack resized as a tensor.
    assert probability > 0.85
    assert bool(found.notes) == (resize is not None)
    whole = trick(model, Image.open(tmp_path / "a.png"), target, probability=0.9)
    assert (whole.tricked == found.tricked).all()


def test_a_module_takes_a_file_at_its_size(net: nn.Module, tmp_path: Path) -> None:
    Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy()).resize((64, 48)).save(tmp_path / "a.png")
    found = trick(net, tmp_path / "a.png", size=(12, 16), probability=None)
    assert found.original.shape == (3, 12, 16)
    assert found.done


def test_a_model_of_probabilities_is_told(net: nn.Module) -> None:
    picture = pictures(1)[0]
    target = least_likely(net, picture)
    found = trick(nn.Sequential(net, nn.Softmax(1)), picture, target, probability=0.9)
    assert found.done
    assert "returns probabilities" in found.notes[0]
    plain = trick(net, picture, target, probability=0.9)
    assert found.epsilon == plain.epsilon
    assert found.table["to_probability"][1] == pytest.approx(plain.table["to_probability"][1], abs=0.02)


@pytest.mark.parametrize("module", ["network", "classifier"])
def test_the_model_is_left_as_it_was(net: nn.Module, module: str) -> None:
    model = net if module == "network" else classifier()
    model.train()
    before = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    picture = pictures(1)[0] if module == "network" else torch.zeros(3, 16, 16)
    trick(model, picture, probability=None)
    assert before == [(m.training, len(m._forward_hooks)) for m in model.modules()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


BAD: dict[str, tuple[dict[str, Any], type[CandlingError], str]] = {
    "the prediction": ({"target": "own"}, ParamsError, "takes the picture for .* as it is .*; name another"),
    "no such class": ({"target": "beee"}, ParamsError, "there is no class 'beee'; the nearest is 'bee'"),
    "no such number": ({"target": 4}, ParamsError, "there is no class 4; the model has 4, 0 to 3"),
    "no such norm": ({"norm": "l1"}, ParamsError, "norm 'l1' is neither linf nor l2"),
    "epsilon of zero": ({"epsilon": 0.0}, ParamsError, "epsilon is 0.0; it must be a number above 0"),
    "half a level": ({"epsilon": 0.5 / 255}, ParamsError, "less than one of the 255 levels"),
    "no steps": ({"steps": 0}, ParamsError, "steps is 0"),
    "certainty": ({"probability": 1}, ParamsError, "probability is 1; it must lie between 0 and 1"),
    "no file": ({"image": "none.png"}, DataError, r"none\.png: no such picture"),
    "no picture": ({"image": __file__}, DataError, "test_tricking.py: "),
    "nothing that is one": ({"image": 3}, ParamsError, "a Pillow image or a tensor, not int"),
    "two pictures": ({"image": pictures(2)}, DataError, r"must be of shape \(C, H, W\)"),
    "out of range": ({"image": pictures(1)[0].float()}, DataError, "must be uint8, or of floats"),
    "nan": ({"image": torch.full((3, 12, 16), torch.nan)}, DataError, "without NaN"),
    "other channels": ({"image": torch.zeros(2, 12, 16)}, ModelError, "does not take a picture of 2"),
    "no gradient": ({"model": Argmax(), "names": ()}, ModelError, "does not reach the picture"),
    "another size": (
        {"model": classifier(), "image": torch.zeros(3, 12, 16)}, DataError,
        "the picture is of 12 × 16 pixels, the model takes 16 × 16",
    ),
    "other names": ({"names": ("a", "b")}, ParamsError, "the model has 4 classes, but 2 are named"),
    "no model": ({"model": "nowhere"}, ModelError, "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, net: nn.Module) -> None:
    changes, kind, words = BAD[case]
    asked: dict[str, Any] = {"model": net, "image": pictures(1)[0], "names": NAMES} | changes
    if asked.get("target") == "own":
        asked["target"] = NAMES[int(logits(net, asked["image"][None]).argmax())]
    with pytest.raises(kind, match=words) as caught:
        trick(asked.pop("model"), asked.pop("image"), asked.pop("target", None), **asked)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not FISH.is_file(), reason=f"needs {FISH}; set CANDLING_ASSETS to real photographs")
def test_a_goldfish_becomes_a_volcano(tmp_path: Path) -> None:
    folder = WEIGHTS.parent
    source = ModelSource(
        "torchvision", "mobilenet_v2", weights=str(WEIGHTS), classes=str(folder / "classes.json"),
        preprocessing=str(folder / "preprocessing.json"),
    )  # fmt: skip
    model = open_model(source)[0]
    found = candling.trick(model, FISH, target="volcano")
    assert found.done
    assert found.source.startswith("goldfish")
    assert found.epsilon <= 4 / 255 + 1e-9
    found.save(tmp_path / "out")
    original, tricked = (read(tmp_path / "out" / name) for name in ("original.png", "tricked.png"))
    assert (tricked.int() - original.int()).abs().max() <= round(found.epsilon * 255) <= 4
    shares = logits(model, tricked[None]).softmax(1)[0]
    assert shares[model.classes.index("volcano")] >= 0.99
    name, probability = predict(model, tmp_path / "out" / "tricked.png")[0]
    assert name == "volcano"
    assert probability > 0.97
