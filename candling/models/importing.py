"""Import: whatever form a model comes in, one folder is made of it that says and holds all about it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import huggingface
from candling.models.blackbox import BlackBox, HttpNetwork, OnnxNetwork
from candling.models.classifier import Classifier
from candling.models.factories import call_factory, factory_digest
from candling.models.heads import detect, probes
from candling.models.networks import timm_network, torchvision_network
from candling.models.preprocessing import Preprocessing, read_preprocessing
from candling.models.running import input_shape
from candling.models.source import ModelSource
from candling.models.spec import ModelSpec
from candling.models.storage import load_model, save_model
from candling.models.weights import fit_weights, load_weights, read_weights

__all__ = ["downloaded", "import_model"]


@dataclass(frozen=True)
class _Found:
    """What a source gave: a network with its weights in it, and what came with it.

    `arguments` are those of the spec. `default` is preprocessing that is not said but usual for such a
    network. `where` names the weights in errors.
    """

    network: nn.Module
    architecture: str
    arguments: dict[str, Any]
    where: str
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    default: Preprocessing | None = None
    image_size: tuple[int, int] | None = None
    head: Literal["auto", "multilabel"] = "auto"
    notes: tuple[str, ...] = field(default=())


def import_model(source: ModelSource, folder: Path, *, root: Path = Path()) -> None:
    """Make the folder of a model, whole or not at all.

    Parameters
    ----------
    source
        Where the model comes from.
    folder
        What to make; one that is there is replaced if it is empty or a model.
    root
        What relative paths start from, and where a factory's module is looked for after the path.

    Raises
    ------
    ModelError
        If the model cannot be read, or what comes with it does not fit together.
    """
    if source.source == "mlflow":
        raise ModelError(f"{source}: the audit resolves MLflow models; here, name a downloaded folder")
    with _whole(folder) as out:
        local = root / source.name
        ours = _inside(local, "spec.json") if source.source == "folder" and local.is_dir() else None
        if ours is not None:
            _copy(source, ours, out, root)
            return
        if source.source == "folder":
            source = _of_folder(source, local, root)
        found = _READERS[source.source](source, root)
        model = _assemble(source, found, root)
        save_model(model, out)
        _check_comes_back(model, out, root)


def downloaded(source: ModelSource, folder: Path) -> ModelSource:
    """What an ``mlflow`` source means once its files lie in `folder`.

    The folder of a candling model or a transformers one, somewhere inside, speaks for itself; of weights
    alone the source's argument ``architecture`` says what they are for.
    """
    arguments = dict(source.arguments)
    architecture = arguments.pop("architecture", None)
    if architecture is None:
        return replace(source, source="folder", name=str(folder.resolve()), arguments=arguments)
    named = ModelSource.parse(str(architecture))
    weights = str(folder.resolve())
    return replace(source, source=named.source, name=named.name, weights=weights, arguments=arguments)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place if nothing is raised, and is gone if anything is."""
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder}: a file is in the way of the model's folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "spec.json").is_file():
        raise ModelError(f"{folder}: holds other things than a model; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        inner = made / "model"
        inner.mkdir()
        yield inner
        if folder.is_dir():
            # Renaming replaces an empty folder only.
            os.replace(folder, made / "before")
        os.replace(inner, folder)
    finally:
        shutil.rmtree(made)


def _copy(source: ModelSource, folder: Path, out: Path, root: Path) -> None:
    """Take a folder of ours as it is; it answers for itself, so that nothing said may differ from it."""
    model = load_model(folder, root=root)
    spec = model.spec
    said = {
        "classes": source.classes is not None
        and _told_apart(_read_classes(source.classes, root))[0] != spec.classes,
        "head": source.head not in ("auto", spec.head),
        "output": source.output not in ("auto", spec.output),
        "image_size": source.image_size not in (None, spec.image_size),
        "preprocessing": source.preprocessing is not None,
        "weights": source.weights is not None,
        "arguments": bool(source.arguments),
    }
    for name, differs in said.items():
        if differs:
            raise ModelError(f"{folder}: this model says its own {name} in spec.json; take out yours")
    names = ["spec.json", "model.safetensors", *(file.name for file in folder.glob("*.onnx*"))]
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def _inside(folder: Path, name: str) -> Path | None:
    """The folder that holds a file of this name, the nearest one; several equally near are an error."""
    found = sorted(folder.rglob(name), key=lambda file: (len(file.parts), file))
    found = [file for file in found if len(file.parts) == len(found[0].parts)]
    if len(found) > 1:
        names = ", ".join(file.parent.name for file in found[:3])
        raise ModelError(f"{folder}: holds several models ({names}); name one")
    return found[0].parent if found else None


def _of_folder(source: ModelSource, folder: Path, root: Path) -> ModelSource:
    """What a folder that is not ours holds."""
    if not folder.exists():
        raise ModelError(f"{folder}: no such model folder")
    if not folder.is_dir():
        kind = "onnx:" if folder.suffix == ".onnx" else "torchvision:NAME@"
        raise ModelError(f"{folder}: a file, not a model folder; for its kind write {kind}{source.name}")
    transformers = _inside(folder, "config.json")
    if transformers is not None:
        return replace(source, source="transformers", name=str(transformers.resolve()))
    onnx = sorted(folder.rglob("*.onnx"))
    if len(onnx) == 1:
        return replace(source, source="onnx", name=str(onnx[0].resolve()))
    # Weights that cannot be used are said to be so first.
    read_weights(folder)
    raise ModelError(
        f"{folder}: holds weights and does not say of which network; write torchvision:NAME@{source.name}, "
        "timm:… or factory:…"
    )


def _read_torchvision(source: ModelSource, root: Path) -> _Found:
    from torchvision import models  # type: ignore[import-untyped]

    name, arguments = source.name, dict(source.arguments)
    plain = _NetworkBuilder(lambda k: torchvision_network(name, k, arguments), arguments)
    if source.weights is None:
        raise ModelError(f"{source}: names no weights; add @weights.safetensors or @IMAGENET1K_V1")
    if _is_path(source.weights, root):
        network, where = _filled(plain, source.weights, root, f"torchvision:{name}")
        usual = _torchvision_preset(models.get_model_weights(name).DEFAULT.transforms())
        fixed = getattr(network, "image_size", None)
        return _Found(network, f"torchvision:{name}", plain.arguments, where, default=usual,
                      image_size=(fixed, fixed) if isinstance(fixed, int) else None)  # fmt: skip
    plain.build(None)  # an unknown architecture is said before its weights are
    known = models.get_model_weights(name)
    if source.weights not in known.__members__:
        names = ", ".join(known.__members__)
        raise ModelError(f"{source}: neither a file nor weights of {name}, which has {names}")
    enum = known[source.weights]
    try:
        state = enum.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{source}: could not be downloaded ({_first(error)}); name a file") from error
    if name in ("googlenet", "inception_v3"):  # their published weights want it
        plain.arguments.setdefault("transform_input", True)
    categories = tuple(enum.meta["categories"])
    network = plain.build(len(categories))
    load_weights(network, state, where=str(source), name=f"torchvision:{name}")
    return _Found(network, f"torchvision:{name}", plain.arguments, str(source), classes=categories,
                  preprocessing=_torchvision_preset(enum.transforms()))  # fmt: skip


def _torchvision_preset(transform: Any) -> Preprocessing:
    return read_preprocessing(
        {
            "resize": int(transform.resize_size[0]),
            "center_crop": int(transform.crop_size[0]),
            "interpolation": transform.interpolation.value,
            "mean": list(transform.mean),
            "std": list(transform.std),
        }
    )


def _read_timm(source: ModelSource, root: Path) -> _Found:
    name, arguments = source.name, dict(source.arguments)
    if source.weights is None:
        raise ModelError(f"{source}: names no weights; add @weights.safetensors or @pretrained")
    plain = _NetworkBuilder(lambda k: timm_network(name, k, arguments), arguments)
    classes = None
    if source.weights == "pretrained":
        try:
            network = timm_network(name, None, arguments, pretrained=True)
        except ModelError:
            raise
        except Exception as error:  # timm, the hub and the network each have their own
            raise ModelError(f"{source}: could not be downloaded ({_first(error)}); name a file") from error
        where, classes = str(source), _timm_classes(network)
    else:
        network, where = _filled(plain, source.weights, root, f"timm:{name}")
    config = dict(getattr(network, "pretrained_cfg", {}))
    embed = getattr(network, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    fixed = (int(size[0]), int(size[1])) if isinstance(size, tuple) else None
    if fixed is not None and "img_size" in arguments:
        config["input_size"] = (3, *fixed)
    usual = read_preprocessing(config) if "input_size" in config else None
    said = source.weights == "pretrained"
    return _Found(network, f"timm:{name}", plain.arguments, where, classes=classes,
                  preprocessing=usual if said else None, default=usual, image_size=fixed)  # fmt: skip


def _timm_classes(network: nn.Module) -> tuple[str, ...] | None:
    """Names of ImageNet's classes, where the weights' config says that it was trained on them."""
    from timm import data

    library: Any = data
    subset = library.infer_imagenet_subset(network)
    if not subset:
        return None
    info = library.ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(info.num_classes()))


def _read_transformers(source: ModelSource, root: Path) -> _Found:
    arguments = dict(source.arguments)
    revision = arguments.pop("revision", None)
    if arguments:
        name = next(iter(arguments))
        raise ModelError(f"{source}: {name!r} is no argument here; the config says what to build")
    folder = root / source.name
    if not folder.is_dir():
        if folder.exists() or source.name.startswith((".", "/", "~")) or source.name.count("/") > 1:
            raise ModelError(f"{folder}: no such transformers folder")
        folder = huggingface.hub_folder(source.name, revision)
    config = huggingface.read_config(folder)
    try:
        names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'}: id2label is no mapping of indices to names") from error
    if set(names) != set(range(len(names))):
        raise ModelError(f"{folder / 'config.json'}: id2label does not count from 0 without a gap")
    weights = root / source.weights if source.weights is not None else folder
    state = read_weights(weights)
    network = huggingface.fill_network(huggingface.network_of(config), state, str(weights))
    processor = huggingface.image_processor(folder)
    fixed = config.get("image_size")
    size = (fixed, fixed) if isinstance(fixed, int) else tuple(fixed) if isinstance(fixed, list) else None
    return _Found(
        network,
        "transformers",
        {"config": config},
        str(weights),
        classes=tuple(names[i] for i in range(len(names))) or None,
        preprocessing=None if processor is None else read_preprocessing(processor),
        image_size=size if size is None or len(size) == 2 else None,
        head="multilabel" if config.get("problem_type") == "multi_label_classification" else "auto",
    )


def _read_factory(source: ModelSource, root: Path) -> _Found:
    arguments = dict(source.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = call_factory(source.name, arguments, root=root).float().eval()
    where, name = str(source), f"factory:{source.name}"
    if source.weights is not None:
        where = str(root / source.weights)
        load_weights(network, read_weights(root / source.weights), where=where, name=name)
    kept = {"arguments": arguments, "module_sha256": factory_digest(source.name, root=root)}
    return _Found(network, name, kept, where)


def _read_onnx(source: ModelSource, root: Path) -> _Found:
    network = OnnxNetwork(root / source.name)
    if network.class_names is None and source.classes is None:
        raise ModelError(f"{root / source.name}: its metadata name no classes; say classes")
    return _Found(network, "onnx", {}, str(root / source.name), classes=network.class_names,
                  image_size=network.image_size)  # fmt: skip


def _read_http(source: ModelSource, root: Path) -> _Found:
    arguments = {"url": source.name, **source.arguments}
    strange = sorted(set(arguments) - {"url", "timeout", "batch"})
    if strange:
        raise ModelError(f"{source}: {strange[0]!r} is no argument of an http model; timeout and batch are")
    note = "the digest is that of the address: a server that changes its model keeps it"
    return _Found(HttpNetwork(**arguments), "http", arguments, str(source), notes=(note,))


_READERS: dict[str, Callable[[ModelSource, Path], _Found]] = {
    "torchvision": _read_torchvision,
    "timm": _read_timm,
    "transformers": _read_transformers,
    "factory": _read_factory,
    "onnx": _read_onnx,
    "http": _read_http,
}


class _NetworkBuilder:
    """Builds a network for a number of outputs; `num_classes` among its arguments settles that number."""

    def __init__(self, build: Callable[[int | None], nn.Module], arguments: dict[str, Any]) -> None:
        self._build = build
        self.arguments = arguments
        self.outputs: int | None = arguments.pop("num_classes", None)

    def build(self, outputs: int | None) -> nn.Module:
        """Build it; what a library raises becomes one sentence."""
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                return self._build(outputs).float()
        except ModelError:
            raise
        except Exception as error:  # any library's constructor, with a person's arguments
            why = f"{self.arguments} ({_first(error)})"
            raise ModelError(f"the network cannot be built with {why}") from error


def _filled(builder: _NetworkBuilder, weights: str, root: Path, name: str) -> tuple[nn.Module, str]:
    """The network with weights from a file, with as many outputs as these have."""
    file = root / weights
    network = builder.build(builder.outputs)
    state = read_weights(file)
    if builder.outputs is None:
        outputs = _outputs_of(state, network)
        if outputs is not None:
            network = builder.build(outputs)
    load_weights(network, state, where=str(file), name=name)
    return network, str(file)


def _outputs_of(state: Mapping[str, Tensor], network: nn.Module) -> int | None:
    """How many outputs weights have, where that is all in which they differ from a network's own."""
    fitted, expected = fit_weights(state, network), network.state_dict()
    if fitted.keys() != expected.keys():
        return None
    shapes = [(fitted[n].shape, expected[n].shape) for n in expected if fitted[n].shape != expected[n].shape]
    if not all(a and b and a[1:] == b[1:] for a, b in shapes):
        return None
    sides = {(a[0], b[0]) for a, b in shapes}
    return next(iter(sides))[0] if len(sides) == 1 else None


def _is_path(weights: str, root: Path) -> bool:
    return (root / weights).exists() or "/" in weights or "." in weights


def _assemble(source: ModelSource, found: _Found, root: Path) -> Classifier:
    """A classifier of what a source gave and what a person said of it."""
    seen, notes = _preprocessing(source, found, root)
    size = seen.image_size
    if size is None:
        raise ModelError(f"{source}: the size of its images is not known; say image_size")
    black_box = isinstance(found.network, BlackBox)
    takes_any = not isinstance(found.network, BlackBox) or found.network.takes_any
    if not takes_any and not seen.is_identity:
        raise ModelError(f"{source}: takes pixels as they are; leave mean, std and range out")
    draft = ModelSpec(
        architecture=found.architecture,
        classes=(),
        image_size=size,
        arguments=found.arguments,
        mean=seen.mean,
        std=seen.std,
        resize=seen.resize,
        interpolation=seen.interpolation,
        channels=seen.channels or ("grey" if _channels(found.network) == 1 else "rgb"),
    )
    network = found.network.eval()
    model = Classifier(network, draft).eval()

    def answer(inputs: Tensor) -> Any:
        try:
            return network(inputs)
        except ModelError:
            raise
        except Exception as error:  # a network may raise whatever it likes
            raise ModelError(
                f"{source}: does not take images of {size[0]}×{size[1]} pixels ({_first(error)}); "
                "say image_size or preprocessing"
            ) from error

    try:
        reading = detect(
            answer,
            model.normalise(probes(size)),
            head=found.head if source.head == "auto" else source.head,
            output=source.output,
            black_box=black_box,
            blow_up=takes_any,
        )
    except ModelError as error:
        text = str(error)
        raise error if text.startswith(str(source)) else ModelError(f"{source}: {text}") from error
    notes += (reading.note,) if reading.note else ()
    count = 2 if reading.head == "binary" else reading.outputs
    classes = found.classes if source.classes is None else _read_classes(source.classes, root)
    if source.classes is None and classes is not None and len(classes) == 1 and reading.head == "binary":
        classes = None  # the one label of a single output names neither of its two sides
    if classes is None:
        classes = tuple(str(i) for i in range(count))
        notes += ("no names of classes came with the model: they are numbered",)
    classes, twice = _told_apart(classes)
    if twice:
        notes += (f"several classes are called {twice[0]!r}: such names carry their index",)
    if len(classes) != count:
        of = "two for its single output" if reading.head == "binary" else f"{count}"
        raise ModelError(f"{found.where}: the model has {of} classes, but {len(classes)} are named")
    spec = replace(draft, classes=classes, head=reading.head, output=reading.output, notes=notes)
    return Classifier(network, spec).eval()


def _preprocessing(source: ModelSource, found: _Found, root: Path) -> tuple[Preprocessing, tuple[str, ...]]:
    notes = found.notes
    if source.preprocessing is not None:
        seen = read_preprocessing(source.preprocessing, root=root)
        if seen.image_size is None:
            seen = replace(seen, image_size=source.image_size or found.image_size)
        return seen.at(source.image_size, said=True), notes
    seen = found.preprocessing or found.default or Preprocessing()
    if found.preprocessing is None and found.default is not None:
        notes += ("no preprocessing came with the weights: it is the one usual for this architecture",)
    elif found.preprocessing is None and not isinstance(found.network, BlackBox):
        notes += ("no preprocessing came with the model: it gets RGB in [0, 1] as it is",)
    if seen.note:
        notes += (seen.note,)
    if seen.image_size is None:
        seen = replace(seen, image_size=found.image_size)
    return seen.at(source.image_size, said=False), notes


def _channels(network: nn.Module) -> int:
    """How many channels the first convolution takes."""
    if isinstance(network, BlackBox):
        return int(getattr(network, "channels", 3))
    return input_shape(network)[0]


def _read_classes(value: str | tuple[str, ...], root: Path) -> tuple[str, ...]:
    """Names of classes: as they are, or from a JSON list or a JSON mapping of indices."""
    if not isinstance(value, str):
        names: Any = list(value)
        where = "classes"
    else:
        file = root / value
        where = str(file)
        if not file.is_file():
            raise ModelError(f"{file}: no such file of class names")
        try:
            names = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(names, dict):
                names = {int(key): name for key, name in names.items()}
                names = [names[i] for i in range(len(names))]
        except (ValueError, KeyError) as error:
            raise ModelError(f"{file}: neither a JSON list of names nor one of 0, 1, … ({error})") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ModelError(f"{where}: names of classes are a list of texts")
    return tuple(names)


def _told_apart(names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Names with their index where several are the same, as two are in ImageNet, and which these are."""
    counts = Counter(names)
    told = tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names))
    return told, [name for name, count in counts.items() if count > 1]


def _check_comes_back(model: Classifier, folder: Path, root: Path) -> None:
    """See that the folder alone gives the same model: a factory may build another each time."""
    if isinstance(model.network, HttpNetwork):
        return
    again = load_model(folder, root=root)
    images = probes(model.spec.image_size)[:2]
    with torch.no_grad():
        first, second = model(images), again(images)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-4 * float(first.abs().max())):
        raise ModelError(
            f"{model.spec.architecture}: built again from its weights and arguments it answers differently; "
            "see that nothing is drawn anew, or kept outside of parameters and buffers"
        )


def _first(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
