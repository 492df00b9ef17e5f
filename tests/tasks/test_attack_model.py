"""The step of attacks, as a small audit records it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from candling.audit.gate import judge
from candling.audit.record import AuditRecord
from candling.errors import ParamsError
from candling.models import ModelSpec, build_model, load_model, logits, save_model
from candling.report.html import render
from candling.statistics import proportion
from candling.vision.adversarial import LinfPGD, Targeted, smallest_epsilon
from tasks.attack_model import targets_in_turn
from tasks.context import Context
from tasks.import_data import import_data
from tasks.load_model import load
from tests.models.blackboxes import onnx_file
from tests.tasks.small_audit import audited, by_scope

CLASSES = ("cat", "dog", "egg")
SIZE = (16, 16)
ATTACKS = {"images": 60, "steps": 6, "epsilon": 12 / 255, "pictures": 4}


def photographs(root: Path, each: int = 14) -> dict[str, Any]:
    """An image folder with pictures in which a class has a little more of its colour."""
    rng = np.random.default_rng(5)
    for index, name in enumerate(CLASSES):
        for number in range(each):
            pixels = rng.integers(80, 150, (*SIZE, 3), dtype=np.uint8)
            pixels[..., index] += np.uint8(4 + number)
            (root / "photographs" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / "photographs" / name / f"{index}{number:02}.png")
    return {"eval": {"location": "photographs"}}


def trained(root: Path) -> str:
    """A small network that has learned the colours."""
    data = photographs(root)
    model = build_model(ModelSpec("residual_cnn", CLASSES, SIZE, {"widths": [4, 6]}), seed=1).train()
    files = sorted((root / data["eval"]["location"]).rglob("*.png"))
    images = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images.float() / 255), labels).backward()
        optimizer.step()
    save_model(model.eval(), root / "m")
    return "m"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("attacks")
    trained(root)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> AuditRecord:
    data = {"eval": {"location": "photographs"}}
    return audited(root, "m", data, attacks=ATTACKS)


def test_each_class_goes_to_all_others_in_turn() -> None:
    assert targets_in_turn([0, 0, 0, 2, 0, 2, 2], (0, 1, 2)) == [1, 2, 1, 0, 2, 1, 0]
    assert targets_in_turn([3, 5, 3], (3, 5)) == [5, 3, 5]


def test_the_record_is_of_the_rightly_predicted_pictures(root: Path, found: AuditRecord) -> None:
    assert found.errors == ()
    context = Context.of(root, root / "params" / "forms.yaml")
    subject = load.fn(context, "model")
    pictures = import_data.fn(context, subject).read("eval")
    model = load_model(subject.folder, root=root)
    right = logits(model, pictures.images).argmax(1) == pictures.labels
    assert 20 < right.sum() <= len(pictures) == 42
    some = pictures.take(torch.nonzero(right).flatten().tolist())
    labels = some.labels.tolist()
    goal = Targeted(targets_in_turn(labels, (0, 1, 2)))
    expected = smallest_epsilon(model, some.images, goal, LinfPGD(epsilon=12 / 255, steps=6))
    assert 0 < expected.unreached < len(some)
    values = by_scope(found)
    rate, median = (values[f"attack.{id}", ()] for id in ("success_rate", "median_epsilon"))
    reached = len(some) - expected.unreached
    wilson = proportion(reached, len(some))
    assert (rate.value, rate.low, rate.high, rate.n) == pytest.approx(tuple(wilson), abs=1e-7)
    radii = expected.epsilon.clamp(max=12 / 255)
    assert median.value == pytest.approx(float(np.median(radii.numpy())), abs=1e-7)
    assert median.low is not None
    assert median.high is not None
    assert 1 / 255 <= median.low <= median.value <= median.high <= 12 / 255 + 1e-7
    missed = f"{expected.unreached} of {len(some)} not reached"
    assert median.note == f"{missed}, counted as the largest tried, 0.0471"
    pairs = {scope for id, scope in values if id == "attack.success_rate" and scope}
    assert len(pairs) == 6
    assert sum(values["attack.success_rate", pair].n or 0 for pair in pairs) == len(some)
    for pair in pairs:
        assert dict(pair).keys() == {"from", "to"}
        assert values["attack.success_rate", pair].status == "inconclusive", "seven are too few"
    assert "LinfPGD(steps=6, epsilon=0.047" in found.notes["attacks.method"]
    assert found.notes["attacks.evaluations"].startswith(str(int(expected.evaluations.sum())))


def test_pictures_as_saved_fool(root: Path, found: AuditRecord) -> None:
    folder = root / "reports" / "forms" / "model"
    shown = [one for one in found.artifacts if one.section == "attacks"]
    assert len(shown) == 3 * 4
    context = Context.of(root, root / "params" / "forms.yaml")
    model = load_model(load.fn(context, "model").folder, root=root)
    for original, noise, result in zip(shown[::3], shown[1::3], shown[2::3], strict=True):
        assert [one.scope["view"] for one in (original, noise, result)] == ["original", "noise", "result"]
        before, after = (
            torch.from_numpy(np.array(Image.open(folder / one.path))).permute(2, 0, 1)
            for one in (original, result)
        )
        shares = logits(model, torch.stack([before, after])).softmax(1)
        assert shares[0].argmax() == CLASSES.index(original.scope["from"])
        if result.caption == result.scope["to"]:
            assert shares[1].argmax() == CLASSES.index(result.scope["to"])
            change = (after.int() - before.int()).abs().max() / 255
            assert change <= noise.values["epsilon"] + 1e-4
        assert result.values["probability"] == pytest.approx(float(shares[1].max()), abs=1e-3)
    assert any(one.caption == one.scope["to"] for one in shown[2::3])
    assert len({(one.scope["from"], one.scope["to"]) for one in shown}) == 4


def test_the_report_shows_them(root: Path, found: AuditRecord) -> None:
    page = render([(found, root / "reports" / "forms" / "model", judge(found))], title="attacks")
    assert '<section id="attacks"' in page
    section = page.partition('<section id="attacks"')[2].partition("</section>\n<section")[0]
    assert section.count("<img") == 12
    assert "Smallest change of a picture that turns it to another class" in section


def test_a_model_that_is_never_right_has_nothing_to_attack(tmp_path: Path) -> None:
    data = photographs(tmp_path, each=2)
    model = build_model(ModelSpec("residual_cnn", (*CLASSES, "fox"), SIZE, {"widths": [4, 6]}), seed=1)
    with torch.no_grad():
        model.get_parameter("network.head.bias").copy_(torch.tensor([0.0, 0.0, 0.0, 99.0]))
    save_model(model, tmp_path / "m")
    values = by_scope(audited(tmp_path, "m", data, attacks=ATTACKS))
    for id in ("attack.success_rate", "attack.median_epsilon"):
        assert values[id, ()].status == "inconclusive"
        assert values[id, ()].note == "none of 6 pictures is predicted rightly"


def test_a_black_box_is_left_out(tmp_path: Path) -> None:
    data = photographs(tmp_path, each=2)
    onnx_file(tmp_path, size=SIZE)
    (tmp_path / "names.json").write_text(json.dumps(CLASSES))
    model = {"source": "onnx", "name": "net.onnx", "classes": list(CLASSES), "head": "softmax",
             "output": "logits", "image_size": list(SIZE)}  # fmt: skip
    found = audited(tmp_path, model, data, attacks=ATTACKS)
    assert "black box gives no gradient" in found.notes["left_out.attacks"]
    assert by_scope(found)["attack.success_rate", ()].status == "inconclusive"


@pytest.mark.parametrize(
    ("attacks", "words"),
    [
        ({"epsilon": 0.001}, "epsilon"),
        ({"steps": 0}, "steps"),
        ({"norm": "l1"}, "norm"),
        ({"s": 3}, "s:"),
    ],
)
def test_params_that_will_not_do(tmp_path: Path, attacks: dict[str, Any], words: str) -> None:
    params = {"name": "bad", "model": "m", "data": {"eval": {"location": "x"}}, "attacks": attacks}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError, match=words):
        Context.of(tmp_path, tmp_path / "bad.yaml")
