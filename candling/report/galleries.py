"""Pictures in the order of a page: prototypes by class, channels by layer, isolated images by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from candling.audit.record import Artifact
from candling.report.artifacts import NotThere, read_artifact
from candling.report.pictures import Picture
from candling.report.subjects import Subject
from candling.report.wording import scope_line, spaced

__all__ = ["all_pictures", "channel_layers", "class_galleries", "isolation_groups", "plates_of"]

_CHANNELS_OPEN = 4  # of each layer, the strongest
_PROTOTYPES_OPEN = 4  # the first of each class in the record's order: nothing is picked
_IMAGES_OPEN = 2  # of each group
_UNGROUPED_OPEN = 6


@dataclass(frozen=True)
class _Gallery:
    """One class: for each subject its pictures, those in view and those folded away."""

    name: str
    shown: tuple[tuple[Picture, ...], ...]
    folded: tuple[tuple[Picture, ...], ...]

    @property
    def trust(self) -> float | None:
        """What all its pictures are trusted on average: what a reader sorts by."""
        found = [dict(p.values).get("trust") for by in (*self.shown, *self.folded) for p in by]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class _Specimen:
    """One image; for each class that was looked at, each subject's picture."""

    image: str
    original: Picture | None
    targets: tuple[tuple[str, tuple[Picture | None, ...]], ...]


@dataclass(frozen=True)
class _IsolationGroup:
    name: str
    shown: tuple[_Specimen, ...]
    folded: tuple[_Specimen, ...]


@dataclass(frozen=True)
class _Channel:
    """One channel: what is known of it, its optimised pictures, and the eval images that excite it most."""

    name: str
    facts: tuple[tuple[str, float], ...]
    optimised: tuple[Picture, ...]
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class _Layer:
    """One layer: for each subject its channels, those in view and those folded away."""

    name: str
    shown: tuple[tuple[_Channel, ...], ...]
    folded: tuple[tuple[_Channel, ...], ...]


def class_galleries(subjects: Sequence[Subject]) -> list[_Gallery]:
    """Prototypes by class, each subject's in the record's order."""
    found: dict[str, dict[int, list[Picture]]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "prototypes"):
            name = artifact.scope.get("class", "")
            what = f"prototype of {scope_line(artifact.scope)}"
            pictures = found.setdefault(name, {}).setdefault(subject.index, [])
            rank = max(0, len(pictures) + 1 - _PROTOTYPES_OPEN)
            picture = _picture(artifact, subject, what, rank)
            # What to make of a picture comes before what it was made of.
            picture.values = tuple(sorted(picture.values, key=lambda pair: pair[0] != "trust"))
            pictures.append(picture)
    return [
        _Gallery(
            name,
            tuple(tuple(by.get(s.index, [])[:_PROTOTYPES_OPEN]) for s in subjects),
            tuple(tuple(by.get(s.index, [])[_PROTOTYPES_OPEN:]) for s in subjects),
        )
        for name, by in found.items()
    ]


def channel_layers(subjects: Sequence[Subject]) -> list[_Layer]:
    """Channels by layer, each subject's in the record's order: its strongest first."""
    found: dict[str, dict[int, dict[str, list[Artifact]]]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "channels"):
            layer, channel = (artifact.scope.get(key, "") for key in ("layer", "channel"))
            by_channel = found.setdefault(layer, {}).setdefault(subject.index, {})
            by_channel.setdefault(channel, []).append(artifact)
    layers = []
    for name, by in found.items():
        rows = [
            tuple(_channel(s, name, *one, rank) for rank, one in enumerate(by.get(s.index, {}).items()))
            for s in subjects
        ]
        shown = tuple(row[:_CHANNELS_OPEN] for row in rows)
        layers.append(_Layer(name, shown, tuple(row[_CHANNELS_OPEN:] for row in rows)))
    return layers


def _channel(subject: Subject, layer: str, name: str, artifacts: Sequence[Artifact], rank: int) -> _Channel:
    facts: dict[str, float] = {}
    optimised: list[Picture] = []
    images: list[Picture] = []
    for artifact in artifacts:
        made = artifact.scope.get("view") == "optimised"
        what = f"channel {name} of {layer}, {'optimised' if made else 'an image that excites it'}"
        picture = _picture(artifact, subject, what, max(0, rank + 1 - _CHANNELS_OPEN))
        (optimised if made else images).append(picture)
        if made:  # of the picture is its activation, and all else of the channel
            facts |= {key: value for key, value in picture.values if key != "activation"}
            picture.values = tuple(pair for pair in picture.values if pair[0] == "activation")
    return _Channel(name, tuple(facts.items()), tuple(optimised), tuple(images))


def isolation_groups(subjects: Sequence[Subject]) -> list[_IsolationGroup]:
    """One specimen an image, its original first, images gathered by group."""
    originals: dict[str, tuple[Subject, Artifact]] = {}
    maps: dict[str, dict[str, dict[int, Artifact]]] = {}
    groups: dict[str, dict[str, None]] = {}
    for subject in subjects:
        for artifact in _artifacts(subject, "isolation"):
            image = artifact.scope.get("image", artifact.path)
            if artifact.scope.get("view") == "original":
                # Of copies that several subjects wrote, one that is there.
                if image not in originals or not _is_there(*originals[image]):
                    originals[image] = (subject, artifact)
                continue
            target = artifact.scope.get("class", "")
            maps.setdefault(image, {}).setdefault(target, {})[subject.index] = artifact
            groups.setdefault(artifact.scope.get("group", ""), {})[image] = None
    return [
        _isolation_group(name, subjects, [(image, originals.get(image), maps[image]) for image in images])
        for name, images in groups.items()
    ]


def _isolation_group(
    name: str,
    subjects: Sequence[Subject],
    found: Sequence[tuple[str, tuple[Subject, Artifact] | None, dict[str, dict[int, Artifact]]]],
) -> _IsolationGroup:
    shown = _IMAGES_OPEN if name else _UNGROUPED_OPEN
    specimens = []
    for number, (image, original, targets) in enumerate(found):
        rank = max(0, number + 1 - shown)
        before = None
        if original is not None:
            before = _picture(original[1], original[0], f"original image {image}", rank)
        lines = []
        for target, by in targets.items():
            what = f"what the prediction of {target} uses in image {image}"
            line = tuple(_picture(by[s.index], s, what, rank) if s.index in by else None for s in subjects)
            lines.append((target, line))
        specimens.append(_Specimen(image, before, tuple(lines)))
    return _IsolationGroup(name, tuple(specimens[:shown]), tuple(specimens[shown:]))


def _is_there(subject: Subject, artifact: Artifact) -> bool:
    try:
        read_artifact(artifact, subject.folder, "picture")
    except NotThere:
        return False
    return True


def plates_of(subjects: Sequence[Subject], section: str) -> list[tuple[Subject, list[Picture]]]:
    """Other pictures of a section; tables lie beside the record and are not shown."""
    plates = []
    for subject in subjects:
        pictures = [
            _picture(artifact, subject, spaced(section))
            for artifact in _artifacts(subject, section)
            if artifact.path.lower().endswith((".png", ".jpg", ".jpeg"))
        ]
        if pictures:
            plates.append((subject, pictures))
    return plates


def _picture(artifact: Artifact, subject: Subject, what: str, rank: int = 0) -> Picture:
    alt = ": ".join(part for part in (f"{subject.name}, {what}", artifact.caption) if part)
    values = tuple(artifact.values.items())
    return Picture(artifact, subject.folder, alt, artifact.caption, values, rank)


def _artifacts(subject: Subject, section: str) -> Iterator[Artifact]:
    return (a for a in subject.record.artifacts if a.section == section)


def all_pictures(part: object) -> Iterator[Picture]:
    """Every picture of a section's body, in the order of the page."""
    if isinstance(part, Picture):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from all_pictures(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from all_pictures(value)
    elif isinstance(part, _Gallery | _IsolationGroup | _Layer):
        yield from all_pictures((part.shown, part.folded))
    elif isinstance(part, _Specimen):
        yield from all_pictures((part.original, part.targets))
    elif isinstance(part, _Channel):
        yield from all_pictures((part.optimised, part.images))
