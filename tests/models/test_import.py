"""Every source, imported, answers as the plain module; what is wrong is one sentence and leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import (
    ModelSource,
    ModelSpec,
    build_model,
    check_differentiable,
    describe,
    downloaded,
    import_model,
    layers,
    load_model,
    logits,
    model_digest,
    penultimate,
    probabilities,
)
from candling.models.heads import output_tensor
from tests.models.factories import Tiny
from tests.models.sources import (
    GREY,
    NAMES,
    SIZE,
    SOURCES,
    TINY,
    factory_made,
    ours,
    timm_made,
    transformers_made,
)


def pictures(count: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("case", SOURCES)
def test_every_source_answers_as_the_plain_module(tmp_path: Path, case: str) -> None:
    source, network = SOURCES[case](tmp_path)
    import_model(source, tmp_path / "out", root=tmp_path)
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]
    model = load_model(tmp_path / "out")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (GREY["mean"], GREY["std"]))
    with torch.no_grad():
        expected = output_tensor(network((pictures() - mean) / std))
    torch.testing.assert_close(logits(model, pictures()), expected, rtol=1e-3, atol=1e-4)
    assert model.classes == NAMES
    assert (model.head, model.spec.output, model.spec.image_size) == ("softmax", "logits", SIZE)
    assert float(expected.std(0).max()) > 1e-3
    check_differentiable(model, SIZE)
    features = penultimate(model, pictures())
    assert features.dim() == 2
    assert len(features) == 3
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooked == []
    rows = {row.name: row for row in layers(model, SIZE)}
    assert set(rows) == {name for name, _ in network.named_modules() if name}


@pytest.mark.parametrize("case", ["timm ViT", "transformers in shards", "factory"])
def test_the_same_model_has_the_same_digest(tmp_path: Path, case: str) -> None:
    digests = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        source, _ = SOURCES[case](tmp_path / name)
        import_model(source, tmp_path / name / "out", root=tmp_path / name)
        digests.append(model_digest(tmp_path / name / "out"))
        copied = ModelSource("folder", str(tmp_path / name / "out"))
        import_model(copied, tmp_path / name / "copy")
        digests.append(model_digest(tmp_path / name / "copy"))
    assert len(set(digests)) == 1


LAST: dict[str, str] = {
    "torchvision mobilenet_v2": "classifier.1",
    "timm ViT": "head",
    "timm ConvNeXt": "head.fc",
    "transformers ViT": "classifier",
    "transformers Swin": "classifier",
    "transformers ConvNext": "classifier",
}


@pytest.mark.parametrize("case", LAST)
def test_penultimate_features_go_into_the_last_layer(tmp_path: Path, case: str) -> None:
    source, _ = SOURCES[case](tmp_path)
    import_model(source, tmp_path / "out", root=tmp_path)
    model = load_model(tmp_path / "out")
    head = model.network.get_submodule(LAST[case])
    with torch.no_grad():
        by_hand = head(penultimate(model, pictures(), batch=2))
    torch.testing.assert_close(by_hand, logits(model, pictures()), rtol=1e-4, atol=1e-5)


def test_penultimate_features_of_a_convolution_are_pooled(tmp_path: Path) -> None:
    source, network = SOURCES["torchvision squeezenet"](tmp_path)
    import_model(source, tmp_path / "out", root=tmp_path)
    model = load_model(tmp_path / "out")
    with torch.no_grad():
        inside = network.features(model.normalise(pictures())).mean((2, 3))  # type: ignore[operator]
    torch.testing.assert_close(penultimate(model, pictures()), inside)


# outputs, what is done to them; head, output, and probabilities of the plain scores
HEADS: dict[str, tuple[int, str, str, str, Callable[[Tensor], Tensor]]] = {
    "probabilities": (3, "softmax", "softmax", "probabilities", lambda z: z.softmax(1)),
    "one logit": (1, "none", "binary", "logits", lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)),
    "one flat logit": (1, "flat", "binary", "logits", lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)),
    "one probability": (1, "sigmoid", "binary", "probabilities",
                        lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1)),
    "sigmoids": (3, "sigmoid", "multilabel", "probabilities", lambda z: z.sigmoid()),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_heads_are_found_and_read(tmp_path: Path, case: str) -> None:
    outputs, after, head, output, expected = HEADS[case]
    source, network = factory_made(outputs=outputs, after=after)(tmp_path)
    names = NAMES if outputs == 3 else NAMES[:2]
    import_model(replace(source, classes=names), tmp_path / "out", root=tmp_path)
    model = load_model(tmp_path / "out")
    assert (model.head, model.spec.output, model.classes) == (head, output, names)
    assert ("probabilities" in describe(model).get("notes", "")) == (output == "probabilities")
    with torch.no_grad():
        scores = network.scores(model.normalise(pictures()))  # type: ignore[operator]
    torch.testing.assert_close(probabilities(model, logits(model, pictures())), expected(scores))


def test_multilabel_of_transformers(tmp_path: Path) -> None:
    source, _ = transformers_made("ViT", problem_type="multi_label_classification")(tmp_path)
    import_model(source, tmp_path / "out", root=tmp_path)
    assert load_model(tmp_path / "out").head == "multilabel"


@pytest.mark.parametrize("kind", ["factory", "transformers"])
def test_grey_models_see_the_mean(tmp_path: Path, kind: str) -> None:
    made = factory_made(channels=1) if kind == "factory" else transformers_made("ViT", num_channels=1)
    source, network = made(tmp_path)
    import_model(replace(source, preprocessing={"image_size": 32}), tmp_path / "out", root=tmp_path)
    model = load_model(tmp_path / "out")
    with torch.no_grad():
        expected = output_tensor(network(pictures().mean(1, keepdim=True)))
    torch.testing.assert_close(logits(model, pictures()), expected, rtol=1e-4, atol=1e-5)


def test_what_comes_with_a_model_is_taken(tmp_path: Path) -> None:
    import transformers

    source, _ = transformers_made("ViT")(tmp_path)
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, resample=3, image_mean=[0.1] * 3
    )
    processor.save_pretrained(tmp_path / "m")
    import_model(replace(source, preprocessing=None), tmp_path / "out", root=tmp_path)
    spec = load_model(tmp_path / "out").spec
    assert (spec.interpolation, spec.mean, spec.resize) == ("bicubic", pytest.approx((0.1,) * 3), None)
    timm = pytest.importorskip("timm")
    source, _ = timm_made("test_resnet")(tmp_path)
    import_model(replace(source, preprocessing=None, classes=None), tmp_path / "timm", root=tmp_path)
    model = load_model(tmp_path / "timm")
    expected = timm.data.resolve_data_config({}, model=model.network)
    assert (3, *model.spec.image_size) == expected["input_size"]
    assert model.spec.mean == expected["mean"]
    assert model.classes == ("0", "1", "2")
    assert "usual for this architecture" in describe(model)["notes"]
    import_model(replace(source, preprocessing=None, image_size=(48, 64)), tmp_path / "size", root=tmp_path)
    assert load_model(tmp_path / "size").spec.image_size == (48, 64)


def test_published_weights_bring_classes_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1()
    enum = torchvision.models.SqueezeNet1_1_Weights
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: network.state_dict())
    import_model(ModelSource.parse("torchvision:squeezenet1_1@IMAGENET1K_V1"), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert model.classes[:2] == tuple(enum.IMAGENET1K_V1.meta["categories"][:2])
    assert len(set(model.classes)) == 1000
    assert (model.spec.resize, model.spec.image_size, model.spec.interpolation) == (
        256,
        (224, 224),
        "bilinear",
    )


@pytest.mark.parametrize("form", ["list", "mapping", "tuple"])
def test_forms_of_class_names(tmp_path: Path, form: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps(NAMES))
    (tmp_path / "mapping.json").write_text(json.dumps({str(i): name for i, name in enumerate(NAMES)}))
    source, _ = factory_made()(tmp_path)
    classes = NAMES if form == "tuple" else f"{form}.json"
    import_model(replace(source, classes=classes), tmp_path / "out", root=tmp_path)
    assert load_model(tmp_path / "out").classes == NAMES


def test_classes_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    source, _ = factory_made()(tmp_path)
    import_model(replace(source, classes=("crane", "dog", "crane")), tmp_path / "out", root=tmp_path)
    assert load_model(tmp_path / "out").classes == ("crane (0)", "dog", "crane (2)")


@pytest.mark.parametrize("form", ["ours", "transformers", "weights"])
def test_what_mlflow_downloads(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "download" / "artifacts"
    folder.mkdir(parents=True)
    source = ModelSource.parse("models:/eggs@approved")
    with pytest.raises(ModelError, match="the audit resolves MLflow models"):
        import_model(source, tmp_path / "out")
    if form == "ours":
        _, network = ours(folder)
    elif form == "transformers":
        made, network = transformers_made("ViT")(folder)
        source = replace(source, preprocessing=GREY)
    else:
        _, network = factory_made()(folder)
        source = replace(source, classes=NAMES, preprocessing=GREY,
                         arguments={"architecture": f"factory:{TINY}", "outputs": 3})  # fmt: skip
    import_model(downloaded(source, tmp_path / "download"), tmp_path / "out")
    model = load_model(tmp_path / "out")
    with torch.no_grad():
        expected = output_tensor(network(model.normalise(pictures())))
    torch.testing.assert_close(logits(model, pictures()), expected, rtol=1e-4, atol=1e-5)


def test_a_factory_beside_the_params_is_found_and_its_edits_are_seen(tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text("from tests.models.factories import tiny as make\n")
    source = ModelSource("factory", "my_network:make", preprocessing=GREY)
    import_model(source, tmp_path / "out", root=tmp_path)
    assert load_model(tmp_path / "out", root=tmp_path).spec.arguments["arguments"] == {}
    (tmp_path / "my_network.py").write_text("from tests.models.factories import tiny as make\n\n")
    with pytest.raises(ModelError, match="its module was edited since; import the model again"):
        load_model(tmp_path / "out", root=tmp_path)


def test_a_model_takes_the_place_of_a_model_and_of_nothing_else(tmp_path: Path) -> None:
    source, _ = factory_made()(tmp_path)
    import_model(source, tmp_path / "out", root=tmp_path)
    before = model_digest(tmp_path / "out")
    import_model(replace(source, classes=("a", "b", "c")), tmp_path / "out", root=tmp_path)
    assert model_digest(tmp_path / "out") != before
    with pytest.raises(ModelError, match="but 2 are named"):
        import_model(replace(source, classes=("a", "b")), tmp_path / "out", root=tmp_path)
    assert load_model(tmp_path / "out").classes == ("a", "b", "c")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(ModelError, match="holds other things than a model"):
        import_model(source, tmp_path / "mine", root=tmp_path)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def edit_config(**changes: Any) -> Callable[[Path], ModelSource]:
    def make(folder: Path) -> ModelSource:
        source, _ = transformers_made("ViT")(folder)
        file = folder / "m" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return source

    return make


def of(case: str, /, **changes: Any) -> Callable[[Path], ModelSource]:
    """A source of the table, with changes."""
    return lambda folder: replace(SOURCES[case](folder)[0], **changes)


def factory(function: str, /, **fields: Any) -> Callable[[Path], ModelSource]:
    fields = {"preprocessing": GREY, **fields}
    return lambda folder: ModelSource("factory", f"tests.models.factories:{function}", **fields)


def short(text: str, **fields: Any) -> Callable[[Path], ModelSource]:
    return lambda folder: replace(ModelSource.parse(text), **fields)


def only_weights(folder: Path) -> ModelSource:
    (folder / "m").mkdir()
    torch.save(Tiny().state_dict(), folder / "m" / "w.pt")
    return ModelSource.parse("m")


def truncated_bin(folder: Path) -> ModelSource:
    source, _ = transformers_made("ConvNext", "bin")(folder)
    file = folder / "m" / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-300])
    return source


BAD: dict[str, tuple[Callable[[Path], ModelSource], str]] = {
    "no folder": (short("nowhere"), "nowhere: no such model folder"),
    "a file": (of("factory", source="folder", name="w.pt", weights=None), "a file, not a model folder"),
    "weights alone": (only_weights, "does not say of which network"),
    "other classes than ours": (of("ours", classes=("a", "b", "c")), "says its own classes in spec.json"),
    "another head than ours": (of("ours", head="multilabel"), "says its own head"),
    "preprocessing of ours": (of("ours", preprocessing=GREY), "says its own preprocessing"),
    "unknown torchvision": (short("torchvision:resnet19@a.pt"), "'resnet19'; did you mean 'resnet1"),
    "no weights": (short("torchvision:resnet18"), "names no weights"),
    "no weights, timm": (short("timm:test_resnet"), "names no weights"),
    "unknown weights": (short("torchvision:resnet18@IMAGENET1K_V9"), "resnet18, which has IMAGENET1K_V1"),
    "no weights file": (short("torchvision:squeezenet1_1@a.pt"), "a.pt: no such weights file"),
    "unknown timm": (short("timm:test_resnot@w.pth"), "timm has no classifier 'test_resnot'"),
    "weights of another network": (of("torchvision squeezenet", name="mnasnet0_5"), "do not fit.*: missing"),
    "odd arguments": (of("torchvision squeezenet", arguments={"depth": 3}), "cannot be built with.*depth"),
    "too few names": (of("torchvision squeezenet", classes=("a", "b")), "w.* 3 classes, but 2 are named"),
    "said number of outputs": (of("torchvision squeezenet", arguments={"num_classes": 4}),
                               r"mismatch for classifier.1.weight, \(3, 512, 1, 1\) in the file and \(4,"),
    "remote code": (edit_config(auto_map={"AutoConfig": "x.Y"}), "refused, auto_map asks for code"),
    "quantised": (edit_config(quantization_config={}), "refused, quantization_config"),
    "unknown type": (edit_config(model_type="vit9"), "model_type 'vit9' is none"),
    "no classifier": (edit_config(model_type="bert"), "no image classifier can be built"),
    "gaps in labels": (edit_config(id2label={"0": "a", "2": "b"}), "does not count from 0"),
    "more labels": (edit_config(id2label={str(i): str(i) for i in range(4)}),
                    r"weights do not fit 'ViTForImageClassification': size mismatch for classifier"),
    "another width": (edit_config(intermediate_size=24), "do not fit 'ViT.*size mismatch"),
    "more layers": (edit_config(num_hidden_layers=3), "do not fit 'ViT.*missing vit"),
    "a truncated .bin": (truncated_bin, "pytorch_model.bin: truncated"),
    "an argument of transformers": (of("transformers ViT", arguments={"depth": 3}), "'depth' is no argument"),
    "no transformers folder": (short("transformers:./nowhere"), "no such transformers folder"),
    "no such module": (short("factory:no_such_module:make"), "importing no_such_module raised Module"),
    "no such function": (factory("none"), "has no such function"),
    "a factory that raises": (factory("fails"), "raised LookupError: no weights"),
    "no network": (factory("not_a_module"), "returned int, not a torch.nn.Module"),
    "another network each time": (factory("moody"), "built again .* it answers differently"),
    "no size": (factory("tiny", preprocessing=None), "say image_size"),
    "two sizes": (factory("tiny", image_size=(8, 8)), "image_size says .*, preprocessing says"),
    "too small": (factory("tiny", preprocessing={"image_size": 2}), "does not take images of 2×2"),
    "indices": (factory("tiny", arguments={"after": "argmax"}), "such as indices of classes"),
    "one name for one output": (of("factory", arguments={"outputs": 1}, classes=("a",), weights=None),
                                "two for its single output classes, but 1"),
    "no file of names": (of("factory", classes="names.json"), "no such file of class names"),
    "names that are no names": (of("factory", classes=("a", "")), "names of classes are a list of texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    source = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=message) as caught:
        import_model(source, tmp_path / "out", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_hub_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        ModelError, match="transformers:someone/nothing: .* the hub did not give it"
    ) as caught:
        import_model(ModelSource.parse("transformers:someone/nothing"), tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("after", ["argmax", "detached", "rounded"])
def test_networks_that_cut_the_gradient(after: str) -> None:
    with pytest.raises(ModelError, match="does not reach the picture"):
        check_differentiable(Tiny(after=after), SIZE)


def test_layers_tell_shapes_of_one_picture() -> None:
    model = build_model(ModelSpec("residual_cnn", NAMES, SIZE, {"widths": [4, 6]}))
    rows = {row.name: row for row in layers(model, SIZE)}
    assert (rows["head"].kind, rows["head"].output_shape, rows["head"].parameters) == ("Linear", (3,), 21)
    assert rows["stem"].output_shape == (4, 16, 16)
    unused = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    unused[1].spare = nn.Linear(3, 3)
    assert [row.output_shape for row in layers(unused, (2, 2))] == [(12,), (2,), None]
