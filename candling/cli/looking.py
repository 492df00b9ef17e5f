"""What `candling init` is told, held against what is there: places, a model, pictures, texts.

The engine reads models and pictures. Where it is not installed they are not looked at, and that is said.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from candling.errors import DataError, ModelError, ParamsError

if TYPE_CHECKING:
    from candling.data import Sample, Samples

__all__ = [
    "WEIGHTS",
    "Pictures",
    "check_language_model",
    "engine_missing",
    "lines_of",
    "look_at_model",
    "look_at_pictures",
    "place_of",
    "unlike",
    "wants_space",
]

WEIGHTS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
"""Endings of files that hold weights alone."""

_HELD_OUT = ("test", "eval", "val", "valid", "validation")
_TRIED = 20  # pictures that are decoded, one of each of so many classes
_FEWEST = 30  # pictures of a group, as rules need them


@dataclass(frozen=True)
class Pictures:
    """What lies at a place of pictures.

    labels: how many pictures have each, most first. groups: the size of the smallest group, class/background,
    or 0 without groups. masks: whether objects have masks. splits: what the source calls its parts.
    """

    count: int
    labels: Mapping[str, int]
    groups: int = 0
    masks: bool = False
    splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def held_out(self) -> str | None:
        """The split that a model is not trained on, by its name."""
        return next((name for name in _HELD_OUT if name in self.splits), None)

    def __str__(self) -> str:
        listed = [f"{name} {count}" for name, count in self.labels.items()]
        more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
        return f"{self.count} pictures of {len(listed)} classes: {', '.join(listed[:12])}{more}"


def engine_missing(error: ModuleNotFoundError) -> str:
    """That something was not looked at, for want of a package; what is our own mistake is raised."""
    if (error.name or "").partition(".")[0] in ("", "candling", "flows", "tasks"):
        raise error
    return f"not looked at, as {error.name} is not installed; `pip install 'candling[engine]'` adds it"


def place_of(text: str, root: Path, expand: Callable[[str], str]) -> str | None:
    """A path as params name it, from the repository's root; None where nothing is there.

    Parameters
    ----------
    text
        A path from the root or from where one stands, or an absolute one; ``${NAME}`` stays as it is.
    expand
        Puts variables of the environment into a text.
    """
    try:
        path = Path(expand(text)).expanduser()
        (root / path).exists()
    except (RuntimeError, OSError):
        return None  # of no user that is known, or longer than a path may be
    for base in (root, Path.cwd()):
        if (base / path).exists():
            if "${" in text:
                return text if base == root or path.is_absolute() else None
            # Links stay what they are: params name what a person knows.
            whole = Path(os.path.abspath(base / path))
            return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)
    return None


def look_at_pictures(location: Path, split: str | None = None) -> Pictures:
    """Find the pictures at a place, and decode one of each class.

    Raises
    ------
    DataError
        If there are none that can be audited.
    ModuleNotFoundError
        If the engine is not installed.
    """
    from candling.data import DataSource, read_source

    samples = read_source(DataSource(location, split=split))
    labels = Counter(str(sample.label) for sample in samples if sample.label is not None)
    if not labels:
        raise DataError(
            f"{location}: no picture has a label; a column `label` or a folder a class gives them"
        )
    groups = Counter(
        f"{sample.label}: {sample.group}"
        for sample in samples
        if sample.group is not None and sample.group != str(sample.label)
    )
    smallest = min(groups.values(), default=0)
    notes = [*samples.notes]
    if len(samples) < _FEWEST:
        notes.append(f"{len(samples)} pictures are few; a rule needs {_FEWEST} before it can say passed")
    if 0 < smallest < _FEWEST:
        notes.append(f"the smallest group has {smallest} pictures; {_FEWEST} are needed to judge it")
    return Pictures(
        count=len(samples),
        labels=dict(labels.most_common()),
        groups=smallest,
        masks=any(sample.mask is not None for sample in samples),
        splits=tuple(sorted({sample.split for sample in samples if sample.split is not None})),
        notes=(*notes, *_unreadable(samples)),
    )


def _unreadable(samples: Samples) -> list[str]:
    """One sentence on pictures that cannot be read; DataError if that is so of all that were tried."""
    from candling.data import Unreadable, decode

    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(str(sample.label), sample)
    tried = list(first.values())[:_TRIED]
    bad = []
    for sample in tried:
        try:
            decode(sample.content())
        except Unreadable as error:
            bad.append(f"{sample.name}: {error}")
    if bad and len(bad) == len(tried):
        raise DataError(
            f"{samples.location}: none of {len(tried)} pictures can be read; the first is {bad[0]}"
        )
    return [f"of {len(tried)} pictures {len(bad)} cannot be read, the first is {bad[0]}"] if bad else []


def look_at_model(model: Any, params: Any, root: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Import a model as the audit will: what it is in words, and its classes.

    Parameters
    ----------
    model
        As `model:` of params.
    params
        The repository's module `tasks.params`.
    root
        What relative paths start from.

    Raises
    ------
    ParamsError
        If it cannot be imported.
    ModuleNotFoundError
        If the engine is not installed.
    """
    from candling.models import describe, import_model, load_model

    source = params.model_source(params.ModelParams(**model))
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        folder = Path(made) / "model"
        try:
            import_model(source, folder, root=root)
            found = load_model(folder, root=root)
        except ModelError as error:
            raise ParamsError(str(error)) from error
    return describe(found), tuple(found.classes)


def unlike(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Labels that mean no class of a model, as the audit reads them.

    Raises
    ------
    DataError
        If a label could mean two.
    """
    from candling.data import map_labels

    return [str(label) for label in map_labels(labels, classes).unmapped]


def meant(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The class that each label means, in the order of the labels; one that means none is left out."""
    from candling.data import map_labels

    found = map_labels(labels, classes).mapped
    return [str(found[label]) for label in labels if label in found]


def check_language_model(folder: Path) -> None:
    """See that a folder holds a language model as transformers saves it.

    Raises
    ------
    ParamsError
        If a file of it is missing.
    """
    if not (folder / "config.json").is_file():
        raise ParamsError(f"{folder}: no config.json here; name a folder as save_pretrained makes it")
    if not any(folder.glob("tokenizer*")):
        raise ParamsError(
            f"{folder}: no tokenizer here; save it beside the weights, tokenizer.save_pretrained"
        )
    if not any(file.suffix in WEIGHTS for file in folder.iterdir()):
        raise ParamsError(f"{folder}: no weights here; save the model there with save_pretrained")


def wants_space(folder: Path) -> bool | None:
    """Whether a word within a text begins with a space for a model's tokenizer; None where that is not told.

    Tokenizers of bytes have the space in the word; those of SentencePiece put one before every text.
    """
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if '"ByteLevel"' in text and '"add_prefix_space":true' not in text.replace(" ", ""):
        return True
    return False if '"Metaspace"' in text or '"Prepend"' in text else None


def lines_of(file: Path, what: str, *, comment: str | None = None) -> int:
    """How many lines of a file of texts say something; what follows `comment` says nothing.

    Raises
    ------
    DataError
        If it is no file of UTF-8 text, or says nothing.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a file of UTF-8 text; name {what}") from error
    count = sum(bool((line.partition(comment)[0] if comment else line).strip()) for line in lines)
    if not count:
        raise DataError(f"{file}: is empty; name {what}")
    return count
