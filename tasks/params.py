"""The params of an audit, as pydantic models: one YAML an audit, every key checked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from candling.audit.policy import Policy
from candling.audit.yamlfile import parse

if TYPE_CHECKING:
    from candling.data import DataSource
    from candling.models import ModelSource

__all__ = [
    "AttackParams",
    "AuditParams",
    "Count",
    "ModelParams",
    "Name",
    "Params",
    "Place",
    "Section",
    "SourceParams",
    "model_source",
    "read_params",
]

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _expanded(text: str) -> str:
    """`text` with ``${NAME}`` and ``${NAME:-default}`` replaced from the environment."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise ValueError(f"the environment variable {name} is not set; set it or write ${{{name}:-…}}")
        return found

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


Place = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]


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


class ModelParams(Section):
    """A model that is not one folder: the fields of `candling.models.ModelSource`."""

    source: Literal["folder", "torchvision", "timm", "transformers", "mlflow", "factory", "onnx", "http"]
    name: Place
    weights: Place | None = None
    classes: Place | tuple[str, ...] | None = None
    preprocessing: Place | dict[str, Any] | None = None
    head: Literal["auto", "softmax", "binary", "multilabel"] = "auto"
    output: Literal["auto", "logits", "probabilities"] = "auto"
    image_size: tuple[Count, Count] | None = None
    arguments: dict[str, Any] = {}


class SourceParams(Section):
    """Pictures wherever they are: the fields of `candling.data.DataSource`.

    `location` may name a revision of DVC-tracked data, ``data/photos@v1.0``.
    """

    location: Place
    format: Literal["auto", "folder", "manifest", "coco", "huggingface"] = "auto"
    columns: dict[str, str] = {}
    split: str | None = None
    labels: dict[str, str] = {}
    images: Place | None = None

    def source(self, location: Path, root: Path) -> DataSource:
        """The source, with its data at `location`."""
        from candling.data import DataSource
        from tasks.revisions import checked_out

        images = None if self.images is None else checked_out(self.images, root)
        return DataSource(location, self.format, self.columns, self.split, self.labels, images)


Split = SourceParams | str


class DataParams(Section):
    """What the audit looks at.

    A split is a name in `folder`, which holds pictures in candling's own form, or says where its pictures
    are. `classes` are those that are audited; by default all that the model knows and the data show.
    """

    folder: Path | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    eval: Split
    like_train: Split | None = None
    train: Split | None = None
    donors: Split | None = None
    parts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_folder(self) -> DataParams:
        for role in ("eval", "like_train", "train", "donors"):
            split = getattr(self, role)
            if isinstance(split, str) and self.folder is None:
                raise ValueError(
                    f"{role}: {split!r} is a split of a folder and none is named; "
                    "write folder: or {location: …}"
                )
        return self


class ScheduleParams(Section):
    """What is not given is as in `candling.vision.training.Schedule`."""

    steps: Count
    batch: Count | None = None
    optimiser: Literal["adamw", "sgd"] | None = None
    learning_rate: Annotated[float | None, Field(gt=0)] = None
    weight_decay: Annotated[float | None, Field(ge=0)] = None
    l1: Annotated[float | None, Field(ge=0)] = None
    freeze_norm: bool | None = None


class TrainParams(Section):
    """The first training: of a network of candling's own, or of another model with a new head."""

    split: Split
    start: Annotated[str, AfterValidator(_expanded)] | ModelParams | None = None
    image_size: tuple[Count, Count]
    arguments: dict[str, list[int]] = {}
    schedule: ScheduleParams

    @model_validator(mode="after")
    def _one_network(self) -> TrainParams:
        if self.start is not None and self.arguments:
            raise ValueError("arguments: describe a fresh network, and start: names one that is there")
        return self


class RetrainParams(Section):
    start: Literal["before", "scratch"] = "before"
    schedule: ScheduleParams
    subjects: dict[Name, Split]

    @model_validator(mode="after")
    def _names(self) -> RetrainParams:
        if "before" in self.subjects:
            raise ValueError("a retrained subject cannot be called 'before'")
        return self


class PrototypeParams(Section):
    """What is not given is as in `candling.vision.prototypes`, `MACO` or `FOURIER`."""

    parameterisation: Literal["maco", "fourier"] = "maco"
    seeds: Count | None = None
    steps: Count | None = None


class ChannelParams(Section):
    """The `strongest` channels of each of `layers`, which are dotted paths of modules, drawn `seeds` times.

    `pictures` are those of the eval split beside each. How they are drawn is as under `prototypes`.
    """

    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    strongest: Count = 6
    pictures: Count = 4
    seeds: Count = 1

    @model_validator(mode="after")
    def _each_once(self) -> ChannelParams:
        for layer in self.layers:
            if self.layers.count(layer) > 1:
                raise ValueError(f"layers: {layer!r} is named twice")
        return self


class IsolationParams(Section):
    """What is not given is as in the `method` of `candling.vision.isolation`.

    cells, depths, contexts: of the hierarchical one. side, stride: of windows, in pixels. donors_per_image:
    of both, where there are clean backgrounds. precision: in which they look; bfloat16 is for devices that
    multiply it. checks: pictures whose maps are made again, of noisy copies
    and of a randomised model. pictures: shown in the report.
    """

    images: Count = 128
    method: Literal["hierarchical", "windows"] = "hierarchical"
    cells: Count | None = None
    depths: Count | None = None
    contexts: Annotated[int, Field(ge=0)] | None = None
    side: Count | None = None
    stride: Count | None = None
    donors_per_image: Count | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    checks: Annotated[int, Field(ge=0)] = 12
    pictures: Count = 16

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the method that are given."""
        names = ("cells", "depths", "contexts", "side", "stride", "donors_per_image")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _of_the_method(self) -> IsolationParams:
        own = {"hierarchical": ("cells", "depths", "contexts"), "windows": ("side", "stride")}
        for method, names in own.items():
            for name in names:
                if self.method != method and getattr(self, name) is not None:
                    raise ValueError(f"{name}: is a setting of method: {method}, and this is {self.method}")
        if self.stride is not None and self.side is None:
            raise ValueError("stride: needs side: beside it")
        if self.side is not None and self.stride is not None and self.stride > self.side:
            raise ValueError(
                f"stride: {self.stride} is larger than side: {self.side}; windows would leave gaps"
            )
        return self


class SuspicionParams(Section):
    """About `images` pictures in which candidates are removed and transplanted, and factors are changed."""

    images: Count = 480


class RobustnessParams(Section):
    """About `images` are corrupted, the same number of each group."""

    images: Count = 200
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] = (1, 3, 5)


class EntanglementParams(Section):
    """`hierarchy` is class to parent, and parent to its own: what is no surprise if it is entangled."""

    hierarchy: dict[str, str] = {}


class AttackParams(Section):
    """About `images` are attacked, those of them that are predicted rightly.

    epsilon: the largest change, of pixels in [0, 1]; a saved picture knows none below 1/255. steps: of each
    walk, of which the search for the smallest epsilon takes several. pictures: shown in the report.
    """

    images: Count = 64
    epsilon: Annotated[float, Field(ge=1 / 255, allow_inf_nan=False)] = 8 / 255
    steps: Count = 20
    norm: Literal["linf", "l2"] = "linf"
    pictures: Count = 6


class CounterfactualParams(Section):
    images: Count = 240


class AuditParams(Section):
    """What the params of every audit hold, of pictures or of texts."""

    kind: Literal["vision", "language"]
    name: Name
    title: str = ""
    gate: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    policy: Policy = Policy()

    @property
    def made(self) -> tuple[str, ...]:
        """The subjects that the audit makes of the first one."""
        return ()

    @property
    def first_subject(self) -> str:
        """The model as it came: `before` where others are made of it, else `model`."""
        return "before" if self.made else "model"

    @property
    def subjects(self) -> tuple[str, ...]:
        """All subjects, in the order in which the story is told."""
        return (self.first_subject, *self.made)

    @model_validator(mode="after")
    def _gated(self) -> Self:
        if self.gate is not None and self.gate not in self.subjects:
            raise ValueError(f"gate: {self.gate!r} is none of the subjects {self.subjects}")
        return self


class Params(AuditParams):
    """One audit of a classifier of pictures."""

    kind: Literal["vision"] = "vision"
    scenes: ScenesParams | None = None
    data: DataParams
    model: Place | ModelParams
    train: TrainParams | None = None
    retrain: RetrainParams | None = None
    prototypes: PrototypeParams = PrototypeParams()
    channels: ChannelParams | None = None
    isolation: IsolationParams = IsolationParams()
    suspicions: SuspicionParams = SuspicionParams()
    expects: dict[str, tuple[str, ...]] = {}
    counterfactuals: CounterfactualParams = CounterfactualParams()
    entanglement: EntanglementParams = EntanglementParams()
    robustness: RobustnessParams = RobustnessParams()
    attacks: AttackParams = AttackParams()

    @property
    def made(self) -> tuple[str, ...]:
        return tuple(self.retrain.subjects) if self.retrain else ()

    def source(self) -> ModelSource:
        """Where the first subject comes from.

        Raises
        ------
        ParamsError
            If `model:` is of no form that there is.
        """
        return model_source(self.model)

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        for name, parts in self.expects.items():
            if self.data.classes is not None and name not in self.data.classes:
                raise ValueError(f"expects: {name!r} is none of the classes {self.data.classes}")
            for part in parts:
                if part not in self.data.parts:
                    raise ValueError(f"expects: {part!r} is none of the parts {self.data.parts}")
        if self.train is not None and not isinstance(self.model, str):
            raise ValueError("train: makes a model, so that model: has to be the folder that it goes to")
        return self


def model_source(model: str | ModelParams) -> ModelSource:
    """A model of params as the engine names it: the short form in one line, or its fields."""
    from candling.models import ModelSource

    if isinstance(model, str):
        return ModelSource.parse(model)
    return ModelSource(**model.model_dump())


def read_params(file: Path) -> Params:
    """Read and check the params of an audit of pictures.

    Raises
    ------
    ParamsError
        Naming file, line and key, and the nearest valid key.
    """
    return parse(Params, file)
