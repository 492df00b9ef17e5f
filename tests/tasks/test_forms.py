"""A small audit of every form that models and data have: the measurements are those of the plain form.

The plain form of a model is a function that builds its module, with a state_dict in safetensors; that of
data is an image folder, or a CSV manifest where there are masks. Two forms that hold the same numbers go
through the same arithmetic, so that most rows agree to the last digit that is recorded.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights

from candling.audit.gate import judge
from candling.audit.record import AuditRecord
from candling.data import DataSource, import_pictures, read_source
from candling.errors import CandlingError, DataError, ModelError, ParamsError
from candling.models import ModelSource, ModelSpec, build_model, load_model, save_model
from tests.data import forms as data_forms
from tests.models import weight_forms
from tests.models.blackboxes import WEIGHT, answering, onnx_file, served
from tests.models.factories import ChannelMeans, Tiny, of_library, tiny
from tests.models.sources import (
    CONFIGS,
    GREY,
    LABELS,
    NAMES,
    SIZE,
    SOURCES,
    TINY,
    factory_made,
    transformers_made,
)
from tests.tasks.small_audit import audited, by_scope

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

# Of sums in another order, through a climb of three steps; records keep eight digits.
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with four pictures of each class: a blob of its colour on noise."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(7)
    for index, name in enumerate(NAMES):
        for number in range(4):
            pixels = rng.integers(0, 160, (36, 40, 3), dtype=np.uint8)
            top, left = rng.integers(0, 16, 2)
            pixels[top : top + 18, left : left + 18, index] = 255 - 20 * number
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def params_of(source: ModelSource) -> dict[str, Any]:
    """A source as a person writes it in params."""
    said = {key: value for key, value in asdict(source).items() if value not in (None, {}, "auto")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


def plain(
    folder: Path, network: nn.Module, function: str, *, head: str = "auto", **arguments: Any
) -> ModelSource:
    """The plain form of a network that `function` builds from `arguments`."""
    # Clones, for tensors that share memory.
    save_file({name: t.clone() for name, t in network.state_dict().items()}, folder / "plain.safetensors")
    return ModelSource("factory", f"tests.models.factories:{function}", "plain.safetensors", NAMES, GREY,
                       head=head, arguments=arguments)  # type: ignore[arg-type]  # fmt: skip


# --- models ------------------------------------------------------------------------------------

Made = tuple[ModelSource | str, ModelSource]


@dataclass(frozen=True)
class Form:
    """`make` gives a model in this form and its plain form, both within a folder.

    other_climb: of weights that differ so much another start may climb highest, to another picture.
    """

    make: Callable[[Path], Made]
    close: float = CLOSE
    black_box: bool = False
    other_climb: bool = False


def of_source(case: str) -> Form:
    """A source of the table in `tests.models.sources`, whose plain form its own library builds."""
    library = case.partition(" ")[0]

    def make(folder: Path) -> Made:
        source, network = SOURCES[case](folder)
        said: dict[str, Any] = {"library": library, "name": source.name}
        if library in ("torchvision", "timm"):
            said |= {"num_classes": 3, **source.arguments}
        elif library == "transformers":
            kind = type(network).__name__.removesuffix("ForImageClassification")
            said |= {"name": kind, **CONFIGS[kind], **LABELS}
        elif library == "ours":
            return source, plain_of_ours(folder, network)
        else:
            return source, plain(folder, network, "tiny")
        return source, plain(folder, network, "of_library", **said)

    return Form(make)


def plain_of_ours(folder: Path, network: nn.Module) -> ModelSource:
    """Our spec resizes with bicubic interpolation where nothing else is said."""
    usual = plain(folder, network, "of_library", library="ours", name="", classes=3, widths=[4, 6])
    return replace(usual, preprocessing={**GREY, "interpolation": "bicubic"})


def of_weights(form: str, close: float = CLOSE, *, other_climb: bool = False) -> Form:
    """Weights in a form of the table in `tests.models.weight_forms`."""

    def make(folder: Path) -> Made:
        torch.manual_seed(4)
        network = tiny().eval()
        usual = plain(folder, network, "tiny")
        (folder / "form").mkdir()
        path = WEIGHTS[form](folder / "form", network.state_dict()).relative_to(folder)
        return replace(usual, weights=str(path)), usual

    return Form(make, close, other_climb=other_climb)


def half(dtype: torch.dtype) -> Callable[[Path, weight_forms.State], Path]:
    return weight_forms.as_safetensors(lambda state: {n: t.to(dtype) for n, t in state.items()})


WEIGHTS = {**weight_forms.FORMS, "half": half(torch.float16), "bf16": half(torch.bfloat16)}


def of_output(after: str) -> Form:
    """A network that returns its scores in another form than a tensor."""

    def make(folder: Path) -> Made:
        source, network = factory_made(after=after)(folder)
        return source, plain(folder, network, "tiny")

    return Form(make)


def of_head(after: str, outputs: int, same: str, close: float = 2e-3) -> Form:
    """A head whose plain form does `same` to its scores; of one output it is two, of which one is zero."""

    def make(folder: Path) -> Made:
        source, network = factory_made(after=after, outputs=outputs)(folder)
        if outputs == 3:
            head = "multilabel" if same == "none" else "auto"
            usual = plain(folder, network, "tiny", head=head, after=same)
            return source, usual
        pair = Tiny(2)
        state = network.state_dict()
        state |= {n: torch.cat([torch.zeros_like(state[n]), state[n]]) for n in ("head.weight", "head.bias")}
        pair.load_state_dict(state)
        usual = replace(plain(folder, pair, "tiny", outputs=2), classes=NAMES[:2])
        return replace(source, classes=NAMES[:2]), usual

    # Logits come back through the logarithm of what was rounded to a float as a probability.
    return Form(make, CLOSE if after in ("none", "flat") else close)


def multilabel_of_transformers(folder: Path) -> Made:
    source, network = transformers_made("ViT", problem_type="multi_label_classification")(folder)
    said = {"library": "transformers", "name": "ViT", **CONFIGS["ViT"], **LABELS}
    return source, plain(folder, network, "of_library", head="multilabel", **said)


def hub_id(folder: Path) -> Made:
    """The cache of the hub, as a download leaves it."""
    source, network = transformers_made("ConvNext")(folder)
    cached = folder / "hub" / "models--someone--eggs"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee")
    (cached / "snapshots").mkdir()
    (folder / "m").rename(cached / "snapshots" / "c0ffee")
    said = {"library": "transformers", "name": "ConvNext", **CONFIGS["ConvNext"], **LABELS}
    return replace(source, name="someone/eggs"), plain(folder, network, "of_library", **said)


SQUEEZENET = "squeezenet1_1"
IMAGENET = {"cat": "tabby", "dog": "beagle", "egg": "eggnog"}


def published() -> nn.Module:
    """What stands here for weights that would be downloaded."""
    torch.manual_seed(0)
    return of_library("torchvision", SQUEEZENET).eval()


def weights_enum(folder: Path) -> Made:
    """Published weights, which bring the names of a thousand classes and their preprocessing."""
    enum = SqueezeNet1_1_Weights.IMAGENET1K_V1
    usual = plain(folder, published(), "of_library", library="torchvision", name=SQUEEZENET)
    seen = {"image_size": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    usual = replace(usual, classes=tuple(enum.meta["categories"]), preprocessing=seen)
    return ModelSource("torchvision", SQUEEZENET, "IMAGENET1K_V1", image_size=SIZE), usual


def of_mlflow(name: str, **fields: Any) -> Form:
    """A registered model, by its alias."""

    def make(folder: Path) -> Made:
        network = MADE_FOR_MLFLOW[name](folder)[1]
        usual = plain_of_ours(folder, network) if name == "ours" else plain(folder, network, "tiny")
        return ModelSource("mlflow", f"models:/{name}@approved", **fields), usual

    return Form(make)


MADE_FOR_MLFLOW = {"ours": SOURCES["ours"], "weights": factory_made()}


def channel_means(folder: Path) -> ModelSource:
    network = ChannelMeans()
    network.load_state_dict({"weight": torch.from_numpy(WEIGHT)})
    return replace(plain(folder, network, "ChannelMeans"), preprocessing={"image_size": 16})


def of_onnx(**options: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        onnx_file(folder, size=(16, 16), **options)
        return ModelSource("onnx", "net.onnx", classes=NAMES), channel_means(folder)

    return make


def of_http(folder: Path) -> Made:
    """The address is that of the test's server."""
    source = ModelSource("http", "http://SERVER/predict", classes=NAMES, image_size=(16, 16))
    return source, channel_means(folder)


MODELS: dict[str, Form] = {
    **{case: of_source(case) for case in SOURCES if not case.startswith("factory returning")},
    "torchvision weights enum": Form(weights_enum),
    "transformers hub id": Form(hub_id),
    "mlflow, our folder": of_mlflow("ours"),
    "mlflow, weights alone": of_mlflow(
        "weights", classes=NAMES, preprocessing=GREY, arguments={"architecture": f"factory:{TINY}"}
    ),
    "onnx": Form(of_onnx(), black_box=True),
    "onnx softmax": Form(of_onnx(after="Softmax"), black_box=True),
    # A server gets pictures in eight bits, the plain form in whatever a blur or noise gives.
    "http": Form(of_http, 2e-2, black_box=True),
    "softmax probabilities": of_head("softmax", 3, "log softmax"),
    "one logit": of_head("none", 1, ""),
    "one flat logit": of_head("flat", 1, ""),
    "one probability": of_head("sigmoid", 1, ""),
    "sigmoids": of_head("sigmoid", 3, "none"),
    "multilabel of transformers": Form(multilabel_of_transformers),
    **{f"output: {after}": of_output(after)
       for after in ("tuple", "list", "named tuple", "dict", "dataclass", "model output", "spatial")},
    **{f"weights: {form}": of_weights(form)
       for form in (".pt", ".pth", ".th", ".ckpt", "legacy", "storages of a GPU", "sharded safetensors",
                    "a folder of shards", "state_dict", "model", "module.", "_orig_mod.module.")},
    # Eleven and eight bits of each weight are left.
    "weights: half": of_weights("half", 2e-2, other_climb=True),
    "weights: bf16": of_weights("bf16", 5e-2, other_climb=True),
}  # fmt: skip
# The largest of torchvision's would take as long as all the others.
del MODELS["torchvision resnet18"]


def differing(
    found: AuditRecord, expected: AuditRecord, close: float, but: tuple[str, ...] = ()
) -> list[str]:
    """What two records measured differently, leaving out ids that begin with one of `but`."""
    ours, theirs = (
        {k: m for k, m in by_scope(r).items() if not k[0].startswith(but)} for r in (found, expected)
    )
    lines = [f"only in one: {key}" for key in ours.keys() ^ theirs.keys()]
    for key in ours.keys() & theirs.keys():
        a, b = ours[key], theirs[key]
        same = (a.n, a.status) == (b.n, b.status) and all(
            x == y or (x is not None and y is not None and math.isclose(x, y, rel_tol=close, abs_tol=close))
            for x, y in ((a.value, b.value), (a.low, b.low), (a.high, b.high))
        )
        if not same:
            lines.append(
                f"{key}: {a.value} [{a.low}, {a.high}] {a.status}, {b.value} [{b.low}, {b.high}] {b.status}"
            )
    return sorted(lines)


NEED_GRADIENTS = ("prototype.", "entanglement.", "attack.", "isolation.complexity_rise")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow registry in a database, with the models of `MADE_FOR_MLFLOW` under the alias approved."""
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("eggs", artifact_location=(root / "artifacts").as_uri())
    for name, make in MADE_FOR_MLFLOW.items():
        (root / name).mkdir()
        source, _ = make(root / name)
        file = root / name / (source.name if source.weights is None else source.weights)
        run = client.create_run(experiment).info
        if file.is_dir():
            client.log_artifacts(run.run_id, str(file), "model")
        else:
            client.log_artifact(run.run_id, str(file), "model")
        client.create_registered_model(name)
        version = client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id).version
        client.set_registered_model_alias(name, "approved", version)
    return uri


@pytest.mark.parametrize("case", MODELS)
def test_every_model_form_measures_as_the_plain_form(
    case: str,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    form = MODELS[case]
    source, usual = form.make(tmp_path)
    data: dict[str, Any] = {"eval": {"location": str(photographs)}}
    if case == "torchvision weights enum":
        monkeypatch.setattr(
            SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: published().state_dict()
        )
        data["eval"]["labels"] = IMAGENET
    elif case == "transformers hub id":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    elif case.startswith("mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("registry"))
    with answering(served) as (url, _):
        source = replace(source, name=source.name.replace("http://SERVER/predict", url))
        found = audited(tmp_path, params_of(source), data, name="form")
        # Its own store, so that nothing is taken over from the other.
        shutil.rmtree(tmp_path / ".candling")
    expected = audited(tmp_path, params_of(usual), data, name="plain")
    assert found.errors == expected.errors == ()
    assert found.classes == expected.classes
    assert sum(m.value is not None for m in expected.measurements) >= 25
    skipped = NEED_GRADIENTS if form.black_box or form.other_climb else ()
    assert differing(found, expected, form.close, skipped) == []
    left_out = {name for name in found.notes if name.startswith("left_out.")}
    both = {name for name in expected.notes if name.startswith("left_out.")}
    if form.black_box:
        assert left_out == {name for name in both if not name.startswith("left_out.prototype_")} | {
            "left_out.prototypes",
            "left_out.entanglement",
            "left_out.attacks",
        }
        assert "a black box does not give" in found.notes["left_out.prototypes"]
        assert not [m for m in found.measurements if m.id.startswith("prototype.")]
    else:
        assert left_out == both


def test_another_model_measures_otherwise(photographs: Path, tmp_path: Path) -> None:
    """Or else that two forms measure the same would say nothing, at the widest of the tolerances too."""
    widest = max(form.close for form in MODELS.values())
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        source = plain(tmp_path, tiny(), "tiny")
        found.append(audited(tmp_path, params_of(source), {"eval": {"location": str(photographs)}}))
    assert len(differing(found[0], found[1], widest)) >= 10


# --- data --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ours for the classes of `tests.data.forms`."""
    folder = tmp_path_factory.mktemp("network") / "m"
    spec = ModelSpec("residual_cnn", data_forms.CLASSES, (16, 16), {"widths": [4, 6]})
    save_model(build_model(spec, seed=1), folder)
    return folder


def data_params(source: DataSource) -> dict[str, Any]:
    """A source as a person writes it in params."""
    said = {key: value for key, value in asdict(source).items() if value not in (None, {}, "auto")}
    return {key: str(value) if isinstance(value, Path) else value for key, value in said.items()}


def at_a_revision(root: Path) -> dict[str, Any]:
    """Data that DVC tracks and that were changed since the tag v1."""
    from dvc.repo import Repo

    git(root, "init", "--quiet")
    with closing(Repo.init(str(root))) as repository:
        data_forms.image_folder(root / "photographs")
        repository.add(str(root / "photographs"))
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "first")
        git(root, "tag", "v1")
        for one in data_forms.ALL[:3]:
            file = root / "photographs" / one.label / f"{one.name}.png"
            file.unlink()
            data_forms.put(file, data_forms.encoded(Image.new("RGB", (9, 9), "red")))
        shutil.rmtree(root / "photographs" / "bee")
        repository.add(str(root / "photographs"))
        git(root, "commit", "--quiet", "--all", "--message", "second")
    return {"location": "photographs@v1"}


def git(root: Path, *arguments: str) -> None:
    who = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=root, env={**os.environ, **who}, check=True, capture_output=True)


def of_data(form: str) -> Callable[[Path], dict[str, Any]]:
    return lambda root: data_params(data_forms.FORMS[form][0](root / "source"))


def pictures_elsewhere(root: Path) -> dict[str, Any]:
    """A COCO file that lies apart from its pictures."""
    data_forms.coco(data_forms.runs)(root / "source")
    (root / "source" / "instances.json").rename(root / "instances.json")
    return {"location": "instances.json", "images": "source/images"}


def tab_separated(root: Path) -> dict[str, Any]:
    source = data_forms.csv_with_paths(root / "source")
    file = source.location / "manifest.csv"
    (source.location / "manifest.tsv").write_text(file.read_text(encoding="utf-8-sig").replace(",", "\t"))
    file.unlink()
    return {"location": "source/manifest.tsv", "format": "manifest"}


# Each with whether it brings masks.
DATA: dict[str, tuple[Callable[[Path], dict[str, Any]], bool]] = {
    **{form: (of_data(form), masks) for form, (_, masks) in data_forms.FORMS.items()},
    "COCO with pictures elsewhere": (pictures_elsewhere, True),
    "TSV with paths": (tab_separated, True),
    "DVC at a revision": (at_a_revision, False),
}
PLAIN = {False: "image folder", True: "CSV with paths"}
# COCO's own columns become slices.
OF_COLUMNS = ("accuracy.slice", "accuracy.worst_slice")


@pytest.fixture(scope="module")
def plain_records(network: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, AuditRecord]:
    """Records of the plain forms, without masks and with."""
    roots = {masks: tmp_path_factory.mktemp("plain") for masks in PLAIN}
    return {
        masks: audited(roots[masks], str(network), {"eval": DATA[form][0](roots[masks])})
        for masks, form in PLAIN.items()
    }


@pytest.mark.parametrize("form", DATA)
def test_every_data_form_measures_as_the_plain_form(
    form: str, network: Path, plain_records: dict[bool, AuditRecord], tmp_path: Path
) -> None:
    make, masks = DATA[form]
    expected = plain_records[masks]
    found = audited(tmp_path, str(network), {"eval": make(tmp_path)})
    assert found.errors == ()
    coco = form.startswith("COCO")
    assert differing(found, expected, 0.0, OF_COLUMNS if coco else ()) == []
    slices = {m.id for m in found.measurements} & set(OF_COLUMNS)
    assert bool(slices) == coco
    without = {name for name in expected.notes if name.startswith("left_out.")}
    left_out = {name for name in found.notes if name.startswith("left_out.")}
    assert left_out == without - ({"left_out.slices"} if coco else set())
    assert ("left_out.object_evidence" in left_out) == (not masks)


def test_the_plain_forms_have_much_in_common(plain_records: dict[bool, AuditRecord]) -> None:
    """Masks add measurements, and change none but isolation's own."""
    bare, masked = plain_records[False], plain_records[True]
    added = {m.id for m in masked.measurements} - {m.id for m in bare.measurements}
    assert added >= {"object_evidence.share", "object_evidence.over_chance"}
    assert differing(bare, masked, 0.0, tuple(added) + ("counterfactual.",)) == []
    assert sum(m.value is not None for m in bare.measurements) >= 25


def test_what_lies_there_now_is_not_what_lay_there_then(
    network: Path, plain_records: dict[bool, AuditRecord], tmp_path: Path
) -> None:
    at_a_revision(tmp_path)
    now = audited(tmp_path, str(network), {"eval": {"location": "photographs"}})
    assert differing(now, plain_records[False], 0.0) != []
    then = audited(tmp_path, str(network), {"eval": {"location": "photographs@HEAD~1"}})
    assert differing(then, plain_records[False], 0.0) == []


def test_pictures_in_our_own_form(
    network: Path, plain_records: dict[bool, AuditRecord], tmp_path: Path
) -> None:
    """A split that was imported once; nothing of it is left to be mapped or put aside."""
    samples = read_source(data_forms.csv_with_paths(tmp_path / "source"))
    import_pictures(samples, data_forms.CLASSES, load_model(network).prepare, tmp_path / "ours", "held_out")
    found = audited(tmp_path, str(network), {"folder": "ours", "eval": "held_out"})
    assert differing(found, plain_records[True], 0.0, ("data.",)) == []


# --- what is wrong -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """`make` gives model and data of params within a root, `says` is in the one sentence."""

    make: Callable[[Path], tuple[Any, dict[str, Any]]]
    error: type[CandlingError]
    code: int
    says: str
    more: dict[str, Any] = field(default_factory=dict)


def model(change: Callable[[Path, dict[str, Any]], Any]) -> Callable[[Path], tuple[Any, dict[str, Any]]]:
    """A model of the right classes that `change` spoils, with data as they should be."""

    def make(root: Path) -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(4)
        said = params_of(plain(root, tiny(), "tiny"))
        said |= {"classes": list(data_forms.CLASSES), "preprocessing": {"image_size": 16}}
        change(root, said)
        return said, {"eval": of_data("image folder")(root)}

    return make


def data(make_data: Callable[[Path], Any]) -> Callable[[Path], tuple[Any, dict[str, Any]]]:
    """Data that cannot be used, with a model as it should be."""

    def make(root: Path) -> tuple[Any, dict[str, Any]]:
        said, _ = model(lambda *_: None)(root)
        shutil.rmtree(root / "source")
        return said, {"eval": {"location": "source", **(make_data(root / "source") or {})}}

    return make


def said(**fields: Any) -> Callable[[Path, dict[str, Any]], None]:
    return lambda root, params: params.update(fields)


class Trap:
    """What a pickle may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def with_code(root: Path, params: dict[str, Any]) -> None:
    torch.save({"head.bias": Trap()}, root / "w.pt")
    params["weights"] = "w.pt"


def cut(name: str) -> Callable[[Path, dict[str, Any]], None]:
    """Weights of which the second half is gone."""

    def spoil(root: Path, params: dict[str, Any]) -> None:
        if name.endswith(".pt"):
            torch.save(load_file(root / "plain.safetensors"), root / name)
        else:
            shutil.copy(root / "plain.safetensors", root / name)
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
        params["weights"] = name

    return spoil


def of_another(root: Path, params: dict[str, Any]) -> None:
    state = load_file(root / "plain.safetensors")
    state["tail.weight"] = state.pop("head.weight")
    save_file(state, root / "plain.safetensors")


def one_class(root: Path) -> None:
    data_forms.image_folder(root)
    for name in data_forms.CLASSES[1:]:
        shutil.rmtree(root / name)


def no_pictures(root: Path) -> None:
    for name in data_forms.CLASSES:
        (root / name).mkdir(parents=True)
        (root / name / "notes.txt").write_text("to do")


def names_that_differ_by_case(root: Path) -> None:
    data_forms.image_folder(root)
    shutil.copytree(root / "ant", root / "Ant")


def manifest(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """A CSV manifest with paths, labels and masks whose lines were changed."""

    def make(root: Path) -> None:
        data_forms.csv_with_paths(root)
        lines = (root / "manifest.csv").read_text(encoding="utf-8-sig").splitlines()
        (root / "manifest.csv").write_text("\n".join(change(lines)))

    return make


def parquet(**columns: Any) -> Callable[[Path], None]:
    """A Parquet manifest of whose columns some are of other types than they should be."""

    def make(root: Path) -> None:
        data_forms.csv_with_paths(root)
        table = pd.read_csv(root / "manifest.csv", encoding="utf-8-sig").assign(**columns)
        (root / "manifest.csv").unlink()
        table.to_parquet(root / "manifest.parquet")

    return make


def mask_of_another_size(root: Path) -> None:
    data_forms.csv_with_paths(root)
    Image.new("L", (5, 5)).save(root / "masks" / "p03.png")


def outside(lines: list[str]) -> list[str]:
    return [lines[0], "../plain.safetensors,ant,", *lines[2:]]


def without(form: str) -> Callable[[Path], None]:
    return lambda root: data_forms.FORMS[form][0](root) and None


NEEDS_MASKS = {"policy": {"rules": [{"measurement": "object_evidence.share", "at_least": 0.1}]}}
WRONG: dict[str, Wrong] = {
    "a pickle with code": Wrong(model(with_code), ModelError, 2, r"w\.pt: refused, this pickle holds code"),
    "missing weights": Wrong(model(said(weights="w.pt")), ParamsError, 4, r"w\.pt: no such file; `model:`"),
    "truncated safetensors": Wrong(model(cut("w.safetensors")), ModelError, 2, "not readable as safetensors"),
    "truncated weights": Wrong(model(cut("w.pt")), ModelError, 2, r"w\.pt: truncated"),
    "mismatched weights": Wrong(
        model(of_another), ModelError, 2, r"missing head\.weight; unexpected tail\.weight"
    ),
    "another shape": Wrong(
        model(said(arguments={"outputs": 4})), ModelError, 2, r"size mismatch for head\.weight, \(3, 5\) in"
    ),
    "too few classes": Wrong(
        model(said(classes=["ant", "bee"])), ModelError, 2, "the model has 3 classes, but 2 are named"
    ),
    "indices of classes": Wrong(
        model(said(arguments={"after": "argmax"})), ModelError, 2, "it must return a score for each class"
    ),
    "no model": Wrong(lambda root: ("nowhere", {"eval": of_data("image folder")(root)}), ParamsError, 4,
                      "nowhere: no such model"),
    "one class": Wrong(data(one_class), DataError, 4, "only one class, 'ant'"),
    "no pictures": Wrong(data(no_pictures), DataError, 4, "no pictures in it"),
    "names that differ by case": Wrong(
        data(names_that_differ_by_case), DataError, 4, "'Ant' and 'ant' differ only by case"
    ),
    "no such place": Wrong(data(lambda root: None), DataError, 4, "source: no such file or folder"),
    "a missing column": Wrong(
        data(manifest(lambda lines: [lines[0].replace("label", "kind"), *lines[1:]])), DataError, 4,
        "no column 'label'",
    ),
    "a label of a wrong type": Wrong(data(parquet(label=0.5)), DataError, 4, "row 1: the label is 0.5"),
    "a path of a wrong type": Wrong(data(parquet(path=7)), DataError, 4, "row 1: the path is 7"),
    "a picture twice": Wrong(
        data(manifest(lambda lines: [*lines, lines[1]])), DataError, 4, "listed twice, in rows 1 and 13"
    ),
    "a path that leaves": Wrong(data(manifest(outside)), DataError, 4, "row 1: the path .* leaves "),
    "a label out of range": Wrong(
        data(manifest(lambda lines: [line.replace(",cow,", ",3,") for line in lines])), DataError, 4,
        "label 3 is out of range: the model has 3 classes, 0 to 2",
    ),
    "labels of no class": Wrong(
        data(manifest(lambda lines: [lines[0], *(re.sub(",...,", ",lorry,", x) for x in lines[1:])])),
        DataError, 4, "no picture has a label that is a class of the model",
    ),
    "a mask of another size": Wrong(data(mask_of_another_size), DataError, 4, "p03.png: the mask is 5×5"),
    "no such revision": Wrong(
        data(lambda root: data_forms.image_folder(root) and {"location": "source@v9"}), DataError, 4,
        "'v9' is no revision",
    ),
    "a rule without masks": Wrong(
        data(without("image folder")), ParamsError, 4, "needs masks, and .* has 12 pictures without one",
        NEEDS_MASKS,
    ),
    "parts of no class": Wrong(
        data(without("image folder")), ParamsError, 4, "expects: 'owl' is none of the model's 3 classes",
        {"expects": {"owl": []}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = WRONG[case]
    monkeypatch.chdir(tmp_path)
    said, found = wrong.make(tmp_path)
    with pytest.raises(wrong.error, match=wrong.says) as caught:
        audited(tmp_path, said, found, **wrong.more)
    assert type(caught.value) is wrong.error
    assert caught.value.exit_code == wrong.code
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()
    assert not (tmp_path / "reports").exists()
    store = tmp_path / ".candling" / "store"
    entries = sorted(store.glob("*/*"))
    # What was whole before the error stays; a rule can only be held to pictures that were imported.
    assert all((entry / "manifest.json").is_file() for entry in entries)
    steps = {entry.parent.name for entry in entries}
    assert steps <= ({"load-model", "import-data"} if wrong.error is ParamsError else {"load-model"})
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name or ".tmp-" in path.name]


@pytest.mark.parametrize("after", ["detached", "rounded"])
def test_a_network_that_cuts_the_gradient_is_an_error_of_the_record(after: str, tmp_path: Path) -> None:
    """It is no black box, and that prototypes are missing must not look like a choice: the gate is closed."""
    said, found = model(lambda root, params: params.update(arguments={"after": after}))(tmp_path)
    record = audited(tmp_path, said, found)
    told = {error.step: error.message for error in record.errors}
    assert told.keys() == {"generate prototypes", "compute entanglement", "attack model"}
    assert "the gradient of the logits does not reach the picture" in told["generate prototypes"]
    assert "left_out.prototypes" not in record.notes
    assert any(m.id == "accuracy.overall" and m.value is not None for m in record.measurements)
    verdict = judge(record)
    assert (verdict.status, verdict.exit_code) == ("incomplete", 2)
    assert not list((tmp_path / ".candling" / "store" / "generate-prototypes").glob("*"))
