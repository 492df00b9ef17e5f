"""Every error that candling raises on purpose, as one tree.

CandlingError                  one clear sentence: what, where, what to do
├── ParamsError                params or policy that cannot be used
├── DataError                  pictures, masks or manifests that cannot be used
├── ModelError                 weights or outputs that cannot be used
├── RecordError                a record that is truncated, edited or from a newer schema
├── NothingAudited             there is no record, or a record that measured nothing
└── ServiceError               MLflow, Prefect or a folder that cannot be reached or written

`exit_code` is what the command line ends with: 2 incomplete or errored, 3 nothing was audited,
4 usage or configuration error.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CandlingError",
    "DataError",
    "ModelError",
    "NothingAudited",
    "ParamsError",
    "RecordError",
    "ServiceError",
]


class CandlingError(Exception):
    """Base of all errors meant for people; its message is one sentence they can act on."""

    exit_code: ClassVar[int] = 4


class ParamsError(CandlingError):
    """Params or a policy that cannot be used."""


class DataError(CandlingError):
    """Pictures, masks or manifests that cannot be used."""


class ModelError(CandlingError):
    """Weights that cannot be loaded, or a model whose outputs cannot be used."""

    exit_code = 2


class RecordError(CandlingError):
    """A record that is truncated, edited, or from a newer schema."""

    exit_code = 2


class NothingAudited(CandlingError):
    """There is no record, or a record that measured nothing."""

    exit_code = 3


class ServiceError(CandlingError):
    """MLflow, Prefect or a folder that cannot be reached or written."""
