"""The step of channels, and trust in prototypes, as a small audit records them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from candling.audit.record import AuditRecord
from candling.errors import ParamsError
from candling.models import ModelSpec, build_model, load_model, save_model
from candling.vision import trust
from candling.vision.channels import strongest_channels
from tasks.context import Context
from tasks.generate_prototypes import left_out
from tasks.import_data import import_data
from tasks.load_model import load
from tasks.visualize_channels import check_layers
from tests.tasks.small_audit import audited, by_scope

CLASSES = ("cat", "dog", "egg")
SIZE = (16, 16)


def photographs(root: Path, each: int = 4) -> dict[str, Any]:
    """An image folder with pictures of a colour a class."""
    rng = np.random.default_rng(5)
    for index, name in enumerate(CLASSES):
        for number in range(each):
            pixels = rng.integers(0, 120, (18, 20, 3), dtype=np.uint8)
            pixels[4:14, 4:14, index] = 250 - 20 * number
            (root / "photographs" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / "photographs" / name / f"{number}.png")
    return {"eval": {"location": "photographs"}}


def network(root: Path, **fields: Any) -> str:
    save_model(
        build_model(ModelSpec("residual_cnn", CLASSES, SIZE, {"widths": [4, 6]}, **fields), seed=1),
        root / "m",
    )
    return "m"


PROTOTYPES = {"parameterisation": "fourier", "seeds": 2, "steps": 3}
CHANNELS = {"layers": ["stages.0", "stem"], "strongest": 3, "pictures": 2, "seeds": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("channels")
    network(root)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> AuditRecord:
    return audited(root, "m", photographs(root), prototypes=PROTOTYPES, channels=CHANNELS)


def test_the_record_has_each_channel_optimised_beside_its_pictures(root: Path, found: AuditRecord) -> None:
    assert found.errors == ()
    files = [a for a in found.artifacts if a.section == "channels"]
    assert len(files) == 2 * 3 * (2 + 2)
    assert all((root / "reports" / "forms" / "model" / a.path).is_file() for a in files)
    context = Context.of(root, root / "params" / "forms.yaml")
    subject = load.fn(context, "model")
    dataset = import_data.fn(context, subject)
    pictures = dataset.read("eval")
    strong = strongest_channels(
        load_model(subject.folder, root=root), CHANNELS["layers"], pictures.images, count=3, pictures=2
    )
    for number, one in enumerate(strong):
        mine = files[4 * number : 4 * number + 4]
        assert {(a.scope["layer"], a.scope["channel"]) for a in mine} == {(one.layer, str(one.channel))}
        assert [a.scope["view"] for a in mine] == ["optimised", "optimised", "eval", "eval"]
        assert [a.scope["seed"] for a in mine[:2]] == ["0", "1"]
        for a in mine[:2]:
            assert a.values["evidence_over_average"] == pytest.approx(one.over_average, abs=1e-4)
            assert a.values["usual_activation"] == pytest.approx(one.usual, abs=1e-4)
        rows = one.pictures.tolist()
        assert [a.scope["image"] for a in mine[2:]] == [pictures.names[row] for row in rows]
        assert [a.scope["class"] for a in mine[2:]] == [CLASSES[pictures.labels[row]] for row in rows]
        assert [a.values["activation"] for a in mine[2:]] == pytest.approx(one.activations.tolist(), abs=1e-4)
        saved = Image.open(root / "reports" / "forms" / "model" / mine[2].path)
        np.testing.assert_array_equal(np.asarray(saved), pictures.images[rows[0]].permute(1, 2, 0).numpy())


def test_without_the_section_nothing_else_changes(root: Path, found: AuditRecord, tmp_path: Path) -> None:
    without = audited(root, "m", photographs(root), prototypes=PROTOTYPES)
    assert not [a for a in without.artifacts if a.section == "channels"]
    assert {key for key in found.notes if key not in without.notes} == {"channels.strongest"}
    assert without.measurements == found.measurements
    kept = [a for a in found.artifacts if a.section != "channels"]
    assert list(without.artifacts) == kept


def test_a_wrong_layer_is_told_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    network(tmp_path)
    params = {"name": "wrong", "model": "m", "data": photographs(tmp_path)}

    def context(**more: Any) -> Context:
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(params | more))
        return Context.of(tmp_path, tmp_path / "wrong.yaml")

    with pytest.raises(ParamsError, match=r"no layer 'stages\.9'; the nearest (is|are) 'stages"):
        check_layers(context(channels={"layers": ["stages.9"]}))
    assert {path.name for path in tmp_path.iterdir()} == {"m", "photographs", "wrong.yaml"}
    check_layers(context(channels={"layers": ["stages.0"]}))
    check_layers(context())
    (tmp_path / "m" / "model.safetensors").write_bytes(b"spoilt")
    check_layers(context(channels={"layers": ["stages.9"]}))  # the step that loads it says what is wrong


def test_layers_are_named_once(tmp_path: Path) -> None:
    params = {
        "name": "twice",
        "model": "m",
        "data": photographs(tmp_path),
        "channels": {"layers": ["a", "a"]},
    }
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsError, match="'a' is named twice"):
        Context.of(tmp_path, tmp_path / "twice.yaml")


# --- trust --------------------------------------------------------------------------------------


def test_each_class_has_its_trust_and_each_picture_its_own(found: AuditRecord) -> None:
    values = by_scope(found)
    for name in CLASSES:
        scope = (("class", name),)
        pictures = [
            a.values for a in found.artifacts if a.section == "prototypes" and a.scope["class"] == name
        ]
        assert len(pictures) == 2
        # Two seeds agree or not by one pair, which tells no interval.
        assert values["prototype.agreement", scope].status == "inconclusive"
        for id in ("trust", "path_similarity"):
            measurement = values[f"prototype.{id}", scope]
            assert measurement.value is not None
            assert measurement.n == 2
            assert measurement.value == pytest.approx(np.mean([one[id] for one in pictures]), abs=1e-4)
    assert found.notes["prototypes.trust"] == (
        "geometric mean of the probability under unseen transforms, over chance, the agreement over seeds "
        "and the path similarity"
    )


def test_trust_is_of_what_was_measured(tmp_path: Path) -> None:
    network(tmp_path)
    prototypes = PROTOTYPES | {"seeds": 1}
    found = audited(tmp_path, "m", photographs(tmp_path, each=2), prototypes=prototypes)
    ids = {m.id for m in found.measurements if m.id.startswith("prototype.")}
    assert ids == {"prototype.probability_unseen_transforms", "prototype.trust"}
    assert found.notes["prototypes.trust"] == "the probability under unseen transforms, over chance"
    assert "two seeds or more" in found.notes["left_out.prototype_agreement"]
    assert "is known for no class; 3 eval pictures" in found.notes["left_out.prototype_path_similarity"]
    context = Context.of(tmp_path, tmp_path / "params" / "forms.yaml")
    dataset = import_data.fn(context, load.fn(context, "model"))
    pictures = dataset.read("eval")
    some = replace(pictures, labels=torch.tensor([0, 0, 0, 1, 1, 1]))
    notes = left_out(some, (0, 1, 2), 2, differentiable=True)
    assert "is known only for 2 of 3 classes" in notes["left_out.prototype_path_similarity"]
    assert "left_out.prototype_agreement" not in notes


@pytest.mark.parametrize(("head", "chance"), [("softmax", 1 / 3), ("multilabel", 0.5)])
def test_chance_is_that_of_the_head(
    tmp_path: Path, head: str, chance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path, head=head)
    told: list[float] = []

    def judged(*arguments: Any, **named: Any) -> trust.Trust:
        told.append(named["chance"])
        return judge(*arguments, **named)

    judge = trust.judge
    monkeypatch.setattr(trust, "judge", judged)
    found = audited(tmp_path, "m", photographs(tmp_path, each=2))
    assert found.errors == ()
    assert told == [chance]
