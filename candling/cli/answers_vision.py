"""What `candling init` asks about a classifier of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from candling.cli.answers import Draft, Here, ask_bounds, name_like
from candling.cli.asking import NONE, Asker, none_or
from candling.cli.drafts import Bound, vision_params
from candling.cli.looking import (
    WEIGHTS,
    Pictures,
    engine_missing,
    look_at_model,
    look_at_pictures,
    meant,
    place_of,
    unlike,
)
from candling.errors import ParamsError

__all__ = ["VisionFlags", "ask_vision"]

_WITH_WEIGHTS = ("torchvision", "timm", "factory")
_AWAY = ("models:/", "http://", "https://")
_BESIDE = {"classes": ("classes.json",), "preprocessing": ("preprocessing.json", "preprocessor_config.json")}
_WHERE = "Where is the model? A folder, a file of weights, an ONNX file, or as torchvision:resnet18@w.pt"
_CLASSES = "Names of its classes, a JSON list (none: what the model says, or numbers)"
_PREPROCESSING = "Its preprocessing, a JSON file (none: what is usual for the architecture)"
_OF_WHICH = (
    "Of which architecture are the weights? Such as resnet18, timm:resnet10t or factory:module:function"
)

_ACCURACY = Bound("accuracy.overall", "at_least", 0.8, "fewer right are of no use")
_GROUPS = Bound("accuracy.worst_group", "at_least", 0.7, "no group may pay for the others")
_MASKS = Bound(
    "object_evidence.over_chance", "at_least", 1.0, "what it says of an object is read off the object"
)
_NOISE = Bound("robustness.mean", "at_least", 0.5, "a little noise must not undo it", severity="warn")


@dataclass(frozen=True)
class VisionFlags:
    """What the flags of `candling init` say of a classifier."""

    model: str | None = None
    architecture: str | None = None
    classes: str | None = None
    preprocessing: str | None = None
    data: str | None = None
    split: str | None = None
    only: Sequence[str] = ()


def ask_vision(asker: Asker, here: Here, flags: VisionFlags, thresholds: dict[str, float | None]) -> Draft:
    """Ask for model, pictures and policy, and look at each.

    Raises
    ------
    CandlingError
        If a flag's answer cannot be used.
    """
    notes: list[str] = []
    model, facts, classes = _ask_model(asker, here, flags, notes)
    location, split, pictures = _ask_pictures(asker, here, flags, classes, notes)
    only = _ask_classes(asker, flags.only, pictures, classes)
    rules = [_ACCURACY]
    rules += [_GROUPS] if pictures is not None and pictures.groups else []
    rules += [_MASKS] if pictures is not None and pictures.masks else []
    bounds = ask_bounds(asker, [*rules, _NOISE], thresholds)
    found: dict[str, Any] = {"model": facts, "data": None}
    if pictures is not None:
        found["data"] = {"pictures": pictures.count, "classes": dict(pictures.labels)}
    return Draft(
        kind="vision",
        name=_name(model, location),
        text=lambda name: vision_params(name, model, location, bounds, split=split, classes=only),
        places=tuple(
            value
            for key, value in (*model.items(), ("", location))
            if key != "source" and here.path(value).exists()
        ),
        found=found,
        notes=tuple(notes),
    )


def _ask_model(
    asker: Asker, here: Here, flags: VisionFlags, notes: list[str]
) -> tuple[dict[str, str], dict[str, str] | None, tuple[str, ...]]:
    """The keys of `model:`, the model in words, and its classes."""
    while True:
        try:
            model = asker(_WHERE, flags.model, lambda text: _read_model(here, text), flag="--model")
            if "name" not in model:
                model |= asker(_OF_WHICH, flags.architecture, _read_architecture, flag="--architecture")
            elif flags.architecture is not None:
                raise ParamsError(
                    "--architecture is for a file of weights, and --model says what it is; leave it out"
                )
            model = _with_companions(asker, here, flags, model)
            return model, *_seen_model(asker, here, model, notes)
        except ParamsError as error:
            if not asker.asks or flags.model is not None:
                raise
            # Which of the answers was wrong only the person knows: from the beginning.
            asker.say(f"  {error}")


def _name(model: dict[str, str], location: str) -> str:
    if model["source"] in ("http", "mlflow"):
        return name_like(location)
    return name_like(model.get("weights", model["name"]))


def _read_model(here: Here, text: str) -> dict[str, str]:
    """Keys of `model:` for what a person says it is; without `name` where weights need an architecture."""
    text = text.strip()
    kind, colon, rest = text.partition(":")
    if text.startswith(_AWAY):
        return {"source": "mlflow" if kind == "models" else "http", "name": text}
    if colon and kind in (*_WITH_WEIGHTS, "transformers", "onnx"):
        if not rest:
            raise ParamsError(f"--model {text!r}: names nothing after {kind}:")
        if kind == "onnx":
            return {"source": kind, "name": here.file("--model", rest)}
        if kind == "transformers":
            local = place_of(rest, here.root, here.expand) is not None
            return {"source": kind, "name": here.place("--model", rest) if local else rest}
        name, at, weights = rest.partition("@")
        named = {"source": kind, "name": name}
        # Without a slash or an ending it is the name of weights that a library has.
        local = "/" in weights or "." in weights
        return named | ({"weights": here.place("--model", weights) if local else weights} if at else {})
    place = here.place("--model", text)
    path = here.path(place)
    if path.is_file():
        if path.suffix == ".onnx":
            return {"source": "onnx", "name": place}
        if path.suffix in WEIGHTS:
            return {"weights": place}
        raise ParamsError(
            f"--model {text!r}: weights end in {', '.join(WEIGHTS)}, or .onnx; name such a file"
        )
    if any((path / name).is_file() for name in ("spec.json", "config.json")):
        return {"source": "folder", "name": place}
    inside = sorted(file.name for file in path.iterdir() if file.suffix in (*WEIGHTS, ".onnx"))
    if len(inside) == 1:
        return _read_model(here, f"{text.rstrip('/')}/{inside[0]}")
    raise ParamsError(
        f"--model {text!r}: no spec.json or config.json here, and {len(inside) or 'no'} files of weights; "
        "name the file of weights"
    )


def _read_architecture(text: str) -> dict[str, str]:
    kind, colon, rest = text.strip().partition(":")
    if not colon:
        kind, rest = "torchvision", kind
    if kind not in _WITH_WEIGHTS or not rest:
        raise ParamsError(
            f"--architecture {text!r}: write a name of torchvision's, timm:NAME or factory:MODULE:FUNCTION"
        )
    return {"source": kind, "name": rest}


def _with_companions(asker: Asker, here: Here, flags: VisionFlags, model: dict[str, str]) -> dict[str, str]:
    """Names of classes and preprocessing, which weights alone do not bring."""
    weights = model.pop("weights", None)
    model = model | ({"weights": weights} if weights is not None else {})
    wanted = {
        "classes": (_CLASSES, flags.classes),
        "preprocessing": (_PREPROCESSING, flags.preprocessing),
    }
    if model["source"] in ("folder", "transformers", "mlflow"):
        if flags.classes or flags.preprocessing:
            raise ParamsError("--classes and --preprocessing: such a model brings its own; leave them out")
        return model
    beside = Path(weights or model["name"]).parent.as_posix()
    for key, (question, given) in wanted.items():
        files = [f"{beside}/{name}" for name in _BESIDE[key]]
        default = next((file for file in files if here.path(file).is_file()), NONE)

        def read(text: str, key: str = key) -> str:
            return here.file(f"--{key}", text)

        found = asker(question, given, none_or(read), flag=f"--{key}", default=default)
        if found:
            model[key] = found
    return model


def _seen_model(
    asker: Asker, here: Here, model: dict[str, str], notes: list[str]
) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """The model in words and its classes; nothing of one that is elsewhere, or cannot be looked at here."""
    weights = model.get("weights")
    named = weights is not None and not here.path(weights).exists()
    hub = model["source"] == "transformers" and not here.path(model["name"]).exists()
    if model["source"] in ("mlflow", "http") or named or hub:
        notes.append("model: not looked at, as it is not on this machine")
        return None, ()
    try:
        facts, classes = look_at_model(model, here.params, here.root)
    except ModuleNotFoundError as error:
        notes.append(f"model: {engine_missing(error)}")
        return None, ()
    for key in ("head", "classes", "preprocessing"):
        asker.say(f"  {key}: {facts[key]}")
    return facts, classes


def _ask_pictures(
    asker: Asker, here: Here, flags: VisionFlags, classes: Sequence[str], notes: list[str]
) -> tuple[str, str | None, Pictures | None]:
    """Where the pictures are, which split of them, and what lies there."""

    def read(text: str) -> tuple[str, Pictures | None]:
        return _read_pictures(here, text.strip(), flags.split, classes, notes)

    location, pictures = asker(
        "Pictures that it was not trained on: a folder a class, a manifest, COCO or Hugging Face data",
        flags.data,
        read,
        flag="--data",
    )
    split = flags.split
    if pictures is not None and split is None and len(pictures.splits) > 1:
        asker.say(f"  {pictures.count} pictures in the splits {', '.join(pictures.splits)}")

        splits = pictures.splits

        def choose(text: str) -> tuple[str, Pictures]:
            if text not in splits:
                raise ParamsError(f"--split {text!r}: there are {', '.join(splits)}; name one")
            return text, look_at_pictures(here.path(location), text)

        question = "Which of them was it not trained on"
        split, pictures = asker(question, None, choose, flag="--split", default=pictures.held_out)
    if pictures is not None:
        asker.say(f"  {pictures}")
        for note in pictures.notes:
            notes.append(f"pictures: {note}")
            asker.say(f"  {note}")
    return location, split, pictures


def _read_pictures(
    here: Here, text: str, split: str | None, classes: Sequence[str], notes: list[str]
) -> tuple[str, Pictures | None]:
    path, at, _ = text.rpartition("@")
    if at and here.path(path).exists() and not here.path(text).exists():
        notes.append("pictures: not looked at, as they are of another revision")
        return text, None
    place = here.place("--data", text)
    try:
        pictures = look_at_pictures(here.path(place), split)
        strange = unlike(list(pictures.labels), classes) if classes else []
    except ModuleNotFoundError as error:
        notes.append(f"pictures: {engine_missing(error)}")
        return place, None
    if classes and len(strange) == len(pictures.labels):
        raise ParamsError(
            f"--data {text!r}: none of its labels is a class of the model; the labels are {_few(strange)}, "
            f"the classes {_few(classes)}; name other pictures, or the model's classes in their order"
        )
    if strange:
        notes.append(f"pictures: labels that are no class of the model are left out: {_few(strange)}")
    return place, pictures


def _ask_classes(
    asker: Asker, only: Sequence[str], pictures: Pictures | None, classes: Sequence[str]
) -> tuple[str, ...]:
    """The classes to audit; none for all."""
    known = [*classes] or ([] if pictures is None else [*pictures.labels])

    def checked(names: Sequence[str]) -> tuple[str, ...]:
        for name in names:
            if known and name not in known and (not classes or unlike([name], classes)):
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {_few(known)}"
                raise ParamsError(f"--class {name!r}: is none of the classes; {hint}")
        once = set(meant(names, classes) if classes else names)
        if len(once) != len(names) or len(names) == 1:
            raise ParamsError("--class: an audit compares two classes or more, each named once")
        return tuple(names)

    def read(text: str) -> tuple[str, ...]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        return () if not names or names == ["all"] else checked(names)

    if only:
        return checked(only)
    return asker(
        "Which classes? All, or their names with commas between", None, read, flag="--class", default="all"
    )


def _few(names: Sequence[str]) -> str:
    more = len(names) - 6
    return ", ".join(map(str, names[:6])) + (f" and {more} more" if more > 0 else "")
