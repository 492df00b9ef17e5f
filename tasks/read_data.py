"""DVC's data as the audit sees it: which splits, with which digests, and whether the rules can be held."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from candling.data import split_digest
from candling.errors import DataError, ParamsError
from tasks.params import Params

if TYPE_CHECKING:
    from candling.data import Pictures

__all__ = ["Dataset", "read_digests"]

_reading = threading.Lock()


@dataclass(frozen=True)
class Dataset:
    """The splits that an audit reads: where they lie, their class names and the digest of each."""

    folder: Path
    classes: tuple[str, ...]
    digests: Mapping[str, str]

    def read(self, split: str) -> Pictures:
        """The pictures of a split, decoded once a process however many steps ask for them."""
        # Two steps that ask at once should not both decode.
        with _reading:
            return _read(self.folder, split, self.classes, self.digests[split])


@lru_cache(maxsize=8)
def _read(folder: Path, split: str, classes: tuple[str, ...], digest: str) -> Pictures:
    from candling.data import read_split

    return read_split(folder, split, classes)


NEEDS_MASKS = ("object_evidence.", "background.", "counterfactual.")


def read_digests(params: Params, folder: Path) -> dict[str, str]:
    """Digest of every split that the audit reads.

    Raises
    ------
    DataError
        If a split is missing or empty.
    ParamsError
        If a rule needs masks and the eval split has none.
    """
    data = params.data
    retrained = params.retrain.subjects.values() if params.retrain else ()
    splits = dict.fromkeys(s for s in (data.eval, data.like_train, data.train, data.donors, *retrained) if s)
    digests = {split: split_digest(folder, split) for split in splits}
    for split in splits:
        file = folder / f"{split}.parquet"
        try:
            rows = pq.read_metadata(file).num_rows
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: not a readable Parquet file; make the data again") from error
        if rows == 0:
            raise DataError(f"{file}: the split {split!r} is empty; an audit needs pictures")
    needing = [rule.measurement for rule in params.policy.rules if rule.measurement.startswith(NEEDS_MASKS)]
    lacking = _lacking_masks(folder / f"{data.eval}.parquet") if needing else ""
    if lacking:
        raise ParamsError(
            f"the rule on {needing[0]} needs masks, and the split {data.eval!r} has {lacking}; "
            "add masks to its manifest or drop the rule"
        )
    return digests


def _lacking_masks(manifest: Path) -> str:
    """What a manifest lacks in masks, in words; "" where every picture has one."""
    if "mask" not in pq.read_schema(manifest).names:
        return "no column 'mask'"
    without = pq.read_table(manifest, columns=["mask"])["mask"].null_count
    return f"{without} pictures without one" if without else ""
