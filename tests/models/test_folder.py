"""Models as data: what is saved comes back bit for bit, and nothing of a model is left changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from candling.errors import DataError, ModelError
from candling.models import (
    Classifier,
    ModelSpec,
    build_model,
    evaluating,
    load_model,
    logits,
    model_digest,
    penultimate,
    predict,
    save_model,
)

SPEC = ModelSpec(
    "residual_cnn",
    ("sky", "tank", "tree"),
    (16, 20),
    arguments={"widths": [4, 6]},
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(count: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 20), generator=generator, dtype=torch.uint8)


@pytest.fixture
def model() -> Classifier:
    """Fresh weights, but running statistics that differ from their defaults."""
    model = build_model(SPEC, seed=3).train()
    model(pictures(8, seed=1).float() / 255)
    return model.eval()


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# --- build, save, load -------------------------------------------------------------------------


def test_a_seed_gives_the_weights_and_leaves_the_global_state() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_model(SPEC, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.head.weight"], other["network.head.weight"])


def test_preprocessing_is_inside(model: Classifier) -> None:
    images = pictures().float() / 255
    by_hand = torch.stack([(images[:, c] - SPEC.mean[c]) / SPEC.std[c] for c in range(3)], 1)
    torch.testing.assert_close(model(images), model.network(by_hand))
    assert model.classes == SPEC.classes


def test_what_is_saved_comes_back_bit_for_bit(model: Classifier, tmp_path: Path) -> None:
    save_model(model, tmp_path / "deep" / "model")
    loaded = load_model(tmp_path / "deep" / "model")
    assert loaded.spec == SPEC
    assert not any(module.training for module in loaded.modules())
    saved, back = model.state_dict(), loaded.state_dict()
    assert saved.keys() == back.keys()
    assert all(torch.equal(saved[name], back[name]) for name in saved)
    assert torch.equal(logits(model, pictures()), logits(loaded, pictures()))


def test_digest_knows_every_weight_and_the_spec(model: Classifier, tmp_path: Path) -> None:
    def digest(name: str, model: Classifier) -> str:
        save_model(model, tmp_path / name)
        return model_digest(tmp_path / name)

    first = digest("first", model)
    assert first == digest("copy", load_model(tmp_path / "first"))
    renamed = Classifier(model.network, replace(SPEC, classes=("sky", "tank", "bush")))
    assert digest("renamed", renamed) != first
    with torch.no_grad():
        weight = model.network.get_parameter("head.bias")
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    assert digest("nudged", model) != first


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "spec.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def shorten(size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "spec.json").unlink(), "no spec.json here"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors here"),
        (shorten(0), "not readable as safetensors"),
        (shorten(1000), "not readable as safetensors"),
        (shorten(-1), "not readable as safetensors"),
        (lambda folder: (folder / "spec.json").write_text("{"), "not a model spec"),
        (lambda folder: (folder / "spec.json").write_bytes(b"\xff\xfe"), "not a model spec"),
        (lambda folder: (folder / "spec.json").write_text("[]"), "not a model spec"),
        (lambda folder: (folder / "spec.json").write_text("7"), "not a model spec"),
        (edit(classes=None), "not a model spec"),
        (edit(colour="red"), "not a model spec .*colour"),
        (edit(architecture="transformer"), "'transformer' is not known; use 'residual_cnn'"),
        (edit(arguments={"depth": 3}), "not a model that can be built .*depth"),
        (edit(arguments={"widths": []}), "not a model that can be built"),
        (edit(mean=[0.5]), "not a model that can be built"),
        (edit(std=["wide", "wide", "wide"]), "not a model that can be built"),
        (edit(classes=["sky", "tank"]), "weights do not fit 'residual_cnn': size mismatch for head"),
        (edit(arguments={"widths": [4, 6, 8]}), "weights do not fit 'residual_cnn': missing stages.1.body"),
    ],
)
def test_a_damaged_folder_gets_one_sentence(
    model: Classifier, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_model(model, tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["spec.json", "model.safetensors"])
def test_digest_of_half_a_model(model: Classifier, tmp_path: Path, name: str) -> None:
    save_model(model, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"no {name} here"):
        model_digest(tmp_path)


# --- evaluating --------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_puts_modes_and_flags_back(model: Classifier, fails: bool) -> None:
    model.train()
    model.network.get_submodule("stem").eval()
    model.network.get_parameter("head.bias").requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert len(set(modes)) == len(set(flags)) == 2
    try:
        with evaluating(model) as same:
            assert same is model
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


# --- logits and penultimate features -----------------------------------------------------------


def test_logits_do_not_depend_on_batches_modes_or_bytes(model: Classifier) -> None:
    images = pictures(7)
    whole = logits(model, images)
    assert whole.shape == (7, 3)
    torch.testing.assert_close(logits(model, images, batch=2), whole)
    torch.testing.assert_close(logits(model, images.float() / 255), whole)
    statistics = model.network.get_buffer("stem.1.running_mean").clone()
    torch.testing.assert_close(logits(model.train(), images), whole)
    assert model.training
    assert torch.equal(model.network.get_buffer("stem.1.running_mean"), statistics)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_count_what_is_not_finite(model: Classifier, bad: float) -> None:
    images = pictures(5).float() / 255
    images[[1, 4], 0, 3, 3] = bad
    with pytest.raises(ModelError, match="NaN or infinite logits for 2 of 5 images"):
        logits(model.train(), images, batch=2)
    assert model.training


def test_penultimate_features_give_the_logits(model: Classifier) -> None:
    features = penultimate(model, pictures(5), batch=2)
    assert features.shape == (5, 6)
    head = model.network.get_submodule("head")
    by_hand = features @ head.weight.detach().T + head.bias.detach()
    torch.testing.assert_close(by_hand, logits(model, pictures(5)))
    assert hooks(model) == 0


def test_penultimate_leaves_no_hook_when_it_fails(model: Classifier) -> None:
    with torch.no_grad():
        model.network.get_parameter("head.bias")[0] = float("nan")
    with pytest.raises(ModelError, match="5 of 5"):
        penultimate(model, pictures(5))
    assert hooks(model) == 0


def test_penultimate_needs_a_linear_layer() -> None:
    with pytest.raises(ModelError, match="no linear layer"):
        penultimate(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), pictures())


# --- predict -----------------------------------------------------------------------------------


def test_predict_ranks_the_softmax(model: Classifier, tmp_path: Path) -> None:
    picture = pictures(1)
    Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    ranked = predict(model, tmp_path / "a.png")
    exponentials = np.exp(logits(model, picture)[0].double().numpy())
    expected = dict(zip(SPEC.classes, exponentials / exponentials.sum(), strict=True))
    assert dict(ranked) == pytest.approx(expected, abs=1e-6)
    shares = [share for _, share in ranked]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-6)


def test_predict_brings_a_picture_into_shape(model: Classifier, tmp_path: Path) -> None:
    plain = Image.new("RGB", (20, 16), (200, 30, 90))
    plain.save(tmp_path / "plain.png")
    plain.resize((61, 47)).convert("RGBA").save(tmp_path / "large.png")
    expected = dict(predict(model, tmp_path / "plain.png"))
    assert dict(predict(model, tmp_path / "large.png")) == pytest.approx(expected, abs=1e-6)


def test_predict_turns_a_picture_as_its_camera_says(model: Classifier, tmp_path: Path) -> None:
    upright = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy())
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned by 270 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=exif)
    assert predict(model, tmp_path / "side.png") == predict(model, tmp_path / "upright.png")


def test_predict_says_what_is_wrong_with_a_picture(model: Classifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: no such picture"):
        predict(model, tmp_path / "a.png")
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"a\.png: not a picture"):
        predict(model, tmp_path / "a.png")
    Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    with pytest.raises(DataError, match=r"a\.png: not a picture"):
        predict(model, tmp_path / "a.png")


def test_folders_of_the_first_release_keep_their_text_and_digest(model: Classifier, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    spec = {"architecture": "residual_cnn", "arguments": {"widths": [4, 6]},
            "classes": ["sky", "tank", "tree"],
            "image_size": [16, 20], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}  # fmt: skip
    text = json.dumps(spec, indent=2, sort_keys=True) + "\n"
    assert (tmp_path / "spec.json").read_text() == text
    weights = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).digest()
    whole = hashlib.sha256(hashlib.sha256(text.encode()).digest() + weights)
    assert model_digest(tmp_path) == whole.hexdigest()
