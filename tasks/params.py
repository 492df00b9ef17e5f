"""The params of an audit, as pydantic models: one YAML an audit, every key checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from candling.audit.policy import Policy
from candling.audit.yamlfile import parse

__all__ = ["Params", "read_params"]

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitParams(Section):
    images: Count
    kind: Literal["shortcut", "balanced", "donors"]
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    clean: bool = False


class ScenesParams(Section):
    folder: Path
    size: Annotated[int, Field(ge=32, le=512)] = 96
    splits: dict[Name, SplitParams]


class DataParams(Section):
    folder: Path
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    eval: str
    like_train: str | None = None
    train: str | None = None
    donors: str | None = None
    parts: tuple[str, ...] = ()


class ScheduleParams(Section):
    """What is not given is as in `candling.vision.training.Schedule`."""

    steps: Count
    batch: Count | None = None
    optimiser: Literal["adamw", "sgd"] | None = None
    learning_rate: Annotated[float | None, Field(gt=0)] = None
    weight_decay: Annotated[float | None, Field(ge=0)] = None
    l1: Annotated[float | None, Field(ge=0)] = None


class TrainParams(Section):
    split: str
    image_size: tuple[Count, Count]
    arguments: dict[str, list[int]] = {}
    schedule: ScheduleParams


class RetrainParams(Section):
    start: Literal["before", "scratch"] = "before"
    schedule: ScheduleParams
    subjects: dict[Name, str]

    @model_validator(mode="after")
    def _names(self) -> RetrainParams:
        if "before" in self.subjects:
            raise ValueError("a retrained subject cannot be called 'before'")
        return self


class PrototypeParams(Section):
    """What is not given is as in `candling.vision.prototypes.PrototypeSettings`."""

    seeds: Count | None = None
    steps: Count | None = None


class IsolationParams(Section):
    images: Count = 128
    side: Count = 24
    stride: Count = 16
    donors_per_image: Count = 4
    pictures: Count = 16

    @model_validator(mode="after")
    def _no_gaps(self) -> IsolationParams:
        if self.stride > self.side:
            raise ValueError(
                f"stride: {self.stride} is larger than side: {self.side}; windows would leave gaps"
            )
        return self


class CounterfactualParams(Section):
    images: Count = 240


class Params(Section):
    """One audit."""

    name: Name
    title: str = ""
    gate: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    scenes: ScenesParams | None = None
    data: DataParams
    model: Path
    train: TrainParams | None = None
    retrain: RetrainParams | None = None
    prototypes: PrototypeParams = PrototypeParams()
    isolation: IsolationParams = IsolationParams()
    expects: dict[str, tuple[str, ...]] = {}
    counterfactuals: CounterfactualParams = CounterfactualParams()
    policy: Policy = Policy()

    @property
    def first_subject(self) -> str:
        """The model as it came: `before` where it is retrained, else `model`."""
        return "before" if self.retrain else "model"

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects, in the order in which the story is told."""
        return (self.first_subject, *(self.retrain.subjects if self.retrain else ()))

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.gate is not None and self.gate not in self.subjects:
            raise ValueError(f"gate: {self.gate!r} is none of the subjects {self.subjects}")
        for name, parts in self.expects.items():
            if name not in self.data.classes:
                raise ValueError(f"expects: {name!r} is none of the classes {self.data.classes}")
            for part in parts:
                if part not in self.data.parts:
                    raise ValueError(f"expects: {part!r} is none of the parts {self.data.parts}")
        return self


def read_params(file: Path) -> Params:
    """Read and check the params of an audit.

    Raises
    ------
    ParamsError
        Naming file, line and key, and the nearest valid key.
    """
    return parse(Params, file)
