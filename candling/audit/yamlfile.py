"""YAML files as checked data: every complaint names file, line and key in one sentence."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from candling.errors import ParamsError

__all__ = ["YamlFile", "load", "parse"]

Key = str | int
M = TypeVar("M", bound=BaseModel)

# Aliases can make a small file expand without end; no params file comes near this.
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class YamlFile:
    """The data of a YAML file, and the line on which each key stands."""

    path: Path
    data: Any
    lines: dict[tuple[Key, ...], int] = field(repr=False)

    def line(self, keys: Sequence[Key]) -> int:
        """The line of `keys`, or of the nearest key above that the file has."""
        at = tuple(keys)
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def error(self, keys: Sequence[Key], message: str) -> ParamsError:
        """A ParamsError that says where it is: ``file:line: message``."""
        return ParamsError(f"{self.path}:{self.line(keys)}: {message}")


class _Loader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2, which DVC reads as well.

    In YAML 1.1 `on` is a boolean, `1e-3` a string and `1:30` ninety.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _scalar(node: yaml.ScalarNode) -> Any:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        # Python refuses to convert thousands of digits.
        return int(text) if len(text) <= 400 else text
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise yaml.constructor.ConstructorError(None, None, f"tag {node.tag!r} is not allowed", node.start_mark)


class _Builder:
    """Turns nodes into data, noting lines; refuses duplicate keys, tags and endless aliases."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[Key, ...], int] = {}
        self._open: set[int] = set()

    def _fail(self, node: yaml.Node, message: str) -> ParamsError:
        return ParamsError(f"{self.path}:{node.start_mark.line + 1}: {message}")

    def build(self, node: yaml.Node, at: tuple[Key, ...]) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if len(self.lines) > _MOST_VALUES or id(node) in self._open:
            raise self._fail(node, "aliases that never end are not allowed")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self._fail(node, f"tag {node.tag!r} is not allowed")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*at, i)) for i, item in enumerate(node.value)]
            return self._mapping(node, at)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, at: tuple[Key, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self._fail(key_node, "a key that is not text; put it in quotes")
            where = (*at, key)
            if key in out:
                first = self.lines[where]
                raise self._fail(key_node, f"{_dotted(where)}: duplicate key, first on line {first}")
            self.lines[where] = key_node.start_mark.line + 1
            out[key] = self.build(value_node, where)
        return out


def load(path: Path | str) -> YamlFile:
    """Read one YAML document, keeping the line of every key.

    Raises
    ------
    ParamsError
        If the file is missing, a folder, not UTF-8, not YAML, or has a key twice.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ParamsError(f"{path}: is a folder, not a YAML file") from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}:{line}: not UTF-8 text") from error
    builder = _Builder(path)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return YamlFile(path, None if node is None else builder.build(node, ()), builder.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ParamsError(f"{path}:{line}: not YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ParamsError(f"{path}:{line}: not YAML: a control character") from error
    except RecursionError:
        raise ParamsError(f"{path}: not usable: nested too deeply") from None


def _dotted(keys: Sequence[Key]) -> str:
    return ".".join(str(key) for key in keys)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value of this annotation may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _models(argument)


def _inner(annotation: Any, key: Key) -> Iterator[Any]:
    """The annotations of what stands under `key` in a value of `annotation`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = annotation.model_fields.get(str(key))
        if known is not None:
            yield known.annotation
    elif origin in (Union, types.UnionType, Annotated):
        for argument in arguments:
            yield from _inner(argument, key)
    elif origin is not None and arguments:
        # dict[str, X] holds X, list[X] and tuple[X, ...] hold X.
        yield from arguments[1:2] if issubclass(origin, dict) else arguments[:1]


def _valid_keys(model: type[BaseModel], keys: Sequence[Key]) -> list[str]:
    """Keys allowed where `keys` lead."""
    annotations: list[Any] = [model]
    for key in keys:
        annotations = [inner for annotation in annotations for inner in _inner(annotation, key)]
    models = [found for annotation in annotations for found in _models(annotation)]
    return [name for found in models for name in found.model_fields]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _explain(
    file: YamlFile, model: type[BaseModel], prefix: tuple[Key, ...], error: ErrorDetails
) -> tuple[bool, int, str]:
    """(not an unknown key, line, sentence): unknown keys sort first, as they cause missing ones."""
    inside = tuple(key for key in error["loc"] if key != "[key]")
    where = (*prefix, *inside)
    if error["type"] == "extra_forbidden":
        valid = _valid_keys(model, inside[:-1])
        near = get_close_matches(str(inside[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}"
        return False, file.line(where), f"{_dotted(where)}: unknown key; {hint}"
    if error["type"] == "missing":
        return True, file.line(where), f"{_dotted(where)}: this key is missing"
    if error["type"] in ("value_error", "assertion_error"):
        message = str(error.get("ctx", {}).get("error", error["msg"]))
        # A check across keys names the key it means first ("at_most: …"); that is the line to show.
        named = re.match(r"([\w.]+): ", message)
        named_keys = (*where, *named[1].split(".")) if named else ()
        if named and named_keys in file.lines:
            return True, file.line(named_keys), f"{_dotted((*where, message))}"
        return True, file.line(where), f"{_dotted(where)}: {message}" if where else message
    message = re.sub(r"^Input ", "", error["msg"])
    subject = _dotted(where) or "the file"
    return True, file.line(where), f"{subject}: {message}, not {_shown(error['input'])}"


def parse(model: type[M], file: Path | str | YamlFile, *, section: str | None = None) -> M:
    """Validate a YAML file, or one of its top keys, with a pydantic model.

    Types are strict as JSON's are: ``"12"`` is no integer and ``true`` no number.

    Parameters
    ----------
    model
        A model with ``extra="forbid"``.
    file
        A path, or what `load` returned.
    section
        The top key to validate; the whole file when None.

    Raises
    ------
    ParamsError
        Naming file, line and key, what is wrong and, for an unknown key, the nearest valid one.
    """
    read = file if isinstance(file, YamlFile) else load(file)
    data = {} if read.data is None else read.data
    prefix: tuple[Key, ...] = ()
    if not isinstance(data, dict):
        raise read.error((), f"should hold keys and values, not {_shown(data)}")
    if section is not None:
        if section not in data:
            raise read.error((), f"{section}: this section is missing")
        data, prefix = data[section], (section,)
        data = {} if data is None else data
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as invalid:
        problems = sorted(_explain(read, model, prefix, error) for error in invalid.errors())
        _, line, sentence = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ParamsError(f"{read.path}:{line}: {sentence}{more}") from invalid
