"""The data as the audit sees it: which splits, where they lie, and the digest of each."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from candling.data.pictures import split_digest
from candling.errors import DataError, ParamsError
from tasks.params import Params, Split
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.data import Pictures

__all__ = ["Dataset", "Located", "check_masks", "locate", "roles"]

_NEED_MASKS = ("object_evidence.", "background.", "counterfactual.")

_reading = threading.Lock()


@dataclass(frozen=True)
class Located:
    """A split in candling's own form: the folder, its name there, and its digest."""

    folder: Path
    split: str
    digest: str


@dataclass(frozen=True)
class Dataset:
    """What an audit looks at.

    classes: all that the model knows, in the order of its logits. audited: indices of those that are looked
    at. splits: by role, ``eval``, ``like_train``, ``train``, ``donors`` or ``retrain.<subject>``. imports:
    the steps that brought pictures into candling's form.
    """

    classes: tuple[str, ...] = ()
    audited: tuple[int, ...] = ()
    splits: Mapping[str, Located] = field(default_factory=dict)
    imports: tuple[Stored, ...] = ()

    def __contains__(self, role: str) -> bool:
        return role in self.splits

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the audited classes."""
        return tuple(self.classes[k] for k in self.audited)

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each split by its role, as the record keeps it."""
        return {role: located.digest for role, located in self.splits.items()}

    def read(self, role: str) -> Pictures:
        """The pictures of a split, decoded once a process however many steps ask for them."""
        located = self.splits[role]
        # Two steps that ask at once should not both decode.
        with _reading:
            return _read(located.folder, located.split, self.classes, located.digest)


@lru_cache(maxsize=8)
def _read(folder: Path, split: str, classes: tuple[str, ...], digest: str) -> Pictures:
    from candling.data import read_split

    return read_split(folder, split, classes)


def roles(params: Params) -> dict[str, Split]:
    """Every split that the audit reads, by its role."""
    data = params.data
    named = {"eval": data.eval, "like_train": data.like_train, "train": data.train, "donors": data.donors}
    found = {role: split for role, split in named.items() if split is not None}
    subjects = params.retrain.subjects if params.retrain else {}
    return found | {f"retrain.{name}": split for name, split in subjects.items()}


def locate(params: Params, root: Path) -> dict[str, Located]:
    """The splits that lie in candling's own form already.

    Raises
    ------
    DataError
        If a split is missing or empty.
    ParamsError
        If a rule needs masks and the eval split has none.
    """
    if params.data.folder is None:
        return {}
    folder = root / params.data.folder
    found = {
        role: Located(folder, split, split_digest(folder, split))
        for role, split in roles(params).items()
        if isinstance(split, str)
    }
    for located in found.values():
        file = folder / f"{located.split}.parquet"
        try:
            rows = pq.read_metadata(file).num_rows
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: not a readable Parquet file; make the data again") from error
        if rows == 0:
            raise DataError(f"{file}: the split {located.split!r} is empty; an audit needs pictures")
    if "eval" in found:
        check_masks(params, found["eval"])
    return found


def check_masks(params: Params, located: Located) -> None:
    """See that rules which need masks can be held.

    Raises
    ------
    ParamsError
        If a rule needs masks and the split has none.
    """
    needing = [rule.measurement for rule in params.policy.rules if rule.measurement.startswith(_NEED_MASKS)]
    lacking = _lacking_masks(located.folder / f"{located.split}.parquet") if needing else ""
    if lacking:
        raise ParamsError(
            f"the rule on {needing[0]} needs masks, and the split {located.split!r} has {lacking}; "
            "add masks to its manifest or drop the rule"
        )


def _lacking_masks(manifest: Path) -> str:
    """What a manifest lacks in masks, in words; "" where there are some."""
    if "mask" not in pq.read_schema(manifest).names:
        return "no column 'mask'"
    masks = pq.read_table(manifest, columns=["mask"])["mask"]
    return f"{len(masks)} pictures without one" if masks.null_count == len(masks) else ""
