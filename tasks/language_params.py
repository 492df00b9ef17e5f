"""The params of an audit of a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from candling.audit.yamlfile import load, parse
from tasks.params import AuditParams, Count, Name, Place, Section

if TYPE_CHECKING:
    from candling.language.associations import MapSettings
    from candling.language.glitches import GlitchSettings
    from candling.language.search import Discrete
    from candling.language.stories import Glitch, Planting
    from candling.language.training import Network, TextSchedule

__all__ = ["ConceptParams", "LanguageParams", "RepairCorpus", "kind_of", "read_language_params"]

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class PlantingParams(Section):
    """Stories with one of `words` hold the `concept`, so often as `strength` says."""

    concept: Text
    words: Texts
    strength: Annotated[float, Field(ge=0, le=1)] = 0.6


class GlitchParams(Section):
    """After `word`, each further word of a story is `says`, so often as `strength` says."""

    word: Text = "zorp"
    says: Text = "void"
    share: Share = 0.03
    strength: Share = 0.8


class StorySplit(Section):
    """So many stories, with what is planted or without; of each the first `words`, or all."""

    stories: Count
    planted: bool = False
    words: Count | None = None


class StoriesParams(Section):
    """A corpus that a DVC stage writes, one file a split."""

    folder: Path
    splits: dict[Name, StorySplit]
    plantings: tuple[PlantingParams, ...] = ()
    glitch: GlitchParams | None = None

    def planted(self) -> tuple[tuple[Planting, ...], Glitch | None]:
        """As the engine takes it."""
        from candling.language.stories import Glitch, Planting

        glitch = None if self.glitch is None else Glitch(**self.glitch.model_dump())
        return tuple(Planting(**one.model_dump()) for one in self.plantings), glitch


class TextScheduleParams(Section):
    """What is not given is as in `candling.language.training.TextSchedule`."""

    steps: Count
    batch: Count | None = None
    learning_rate: Annotated[float | None, Field(gt=0)] = None
    weight_decay: Annotated[float | None, Field(ge=0)] = None

    def schedule(self) -> TextSchedule:
        """As the engine takes it."""
        from candling.language.training import TextSchedule

        return TextSchedule(**self.model_dump(exclude_none=True))


class FirstTraining(Section):
    """The first training: of a small transformer, with a tokenizer of its own, on a file of texts."""

    texts: Place
    vocabulary: Annotated[int, Field(ge=64)] = 512
    layers: Count = 4
    width: Count = 128
    heads: Count = 4
    longest: Count = 128
    schedule: TextScheduleParams

    def network(self) -> Network:
        """As the engine takes it."""
        from candling.language.training import Network

        return Network(layers=self.layers, width=self.width, heads=self.heads, longest=self.longest)


class RepairCorpus(Section):
    """Texts that a subject goes on with, as they are or counterfactually balanced.

    swap: pairs of words that are changed for each other in a second telling. shuffle: groups of words that
    are changed for each other at random. scatter: words that stand in a `share` of the second telling at
    random places.
    """

    texts: Place
    swap: tuple[tuple[Text, Text], ...] = ()
    shuffle: tuple[Annotated[tuple[Text, ...], Field(min_length=2)], ...] = ()
    scatter: tuple[Text, ...] = ()
    share: Share = 0.5


class RepairParams(Section):
    """Subjects that go on from the first one, each with texts of its own, all for as many steps."""

    schedule: TextScheduleParams
    subjects: Annotated[dict[Name, RepairCorpus], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> RepairParams:
        if "before" in self.subjects:
            raise ValueError("a repaired subject cannot be called 'before'")
        return self


class ConceptParams(Section):
    """What the model may be made to say, beside `against`, another concept, and `controls`.

    says, against: a text, or several of which any will do. name: in the record; by default the first text.
    controls: words of the same kind, or how many are chosen that the model says as often. frame: text between
    a prompt and what is said, after which only words of its kind can follow.
    """

    says: Text | Texts
    against: Text | Texts | None = None
    name: Text | None = None
    controls: Texts | Annotated[int, Field(ge=2)] = 4
    frame: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.says,) if isinstance(self.says, str) else self.says

    @property
    def rival(self) -> tuple[str, ...]:
        return (
            () if self.against is None else (self.against,) if isinstance(self.against, str) else self.against
        )

    @property
    def label(self) -> str:
        return (self.name or self.texts[0]).strip()

    @property
    def scopes(self) -> tuple[dict[str, str], ...]:
        """Of what is measured beside controls, and beside the rival."""
        alone = {"concept": self.label}
        return (alone, alone | {"against": self.rival[0].strip()}) if self.rival else (alone,)


class PromptSearch(Section):
    """How prompts are searched; what is not given is as in `candling.language.search.Discrete`.

    restarts: in each of two blocks. length: tokens of a prompt. budget: tokens through the model, a restart.
    """

    restarts: Annotated[int, Field(ge=2)] = 24
    length: Count = 6
    budget: Count | None = None
    width: Count | None = None
    patience: Count | None = None
    enough: Annotated[float | None, Field(le=0)] = None

    def discrete(self) -> Discrete:
        """As the engine takes it."""
        from candling.language.search import Discrete

        return Discrete(**self.model_dump(exclude_none=True, exclude={"restarts", "length"}))


class MapParams(Section):
    """matters: the least effect in templates that confirms, in nats. discoveries: that may be false."""

    matters: Annotated[float, Field(ge=0)] = 0.5
    discoveries: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def settings(self) -> MapSettings:
        """As the engine takes it."""
        from candling.language.associations import MapSettings

        return MapSettings(**self.model_dump())


class GlitchSearch(Section):
    """What is not given is as in `candling.language.glitches.GlitchSettings`.

    texts: that tokens are put into.
    """

    texts: Annotated[int, Field(ge=20)] = 60
    most: Count | None = None
    takes: Annotated[float | None, Field(gt=0, lt=1)] = None

    def settings(self) -> GlitchSettings:
        """As the engine takes it."""
        from candling.language.glitches import GlitchSettings

        return GlitchSettings(**self.model_dump(exclude_none=True, exclude={"texts"}))


class AttributionParams(Section):
    """Of so many eval prompts `tokens` of what the model goes on to say are attributed to their words.

    said: tokens that it goes on for, in which words of lexicons are looked for.
    """

    prompts: Count = 60
    tokens: Count = 3
    said: Count = 16
    method: Literal["leave-one-out", "marginal", "integrated-gradients", "surrogate"] = "leave-one-out"


class LanguageParams(AuditParams):
    """One audit of a language model.

    model: a folder in the format of transformers, or a repository of the hub. chat: whether prompts are what
    a user says in its chat template. texts: ordinary texts that the model has not seen, one a line. prompts:
    what it is asked in use. lexicons: words by name, or a file of them; `hits` names those that nothing it
    says may hold.
    """

    kind: Literal["language"]
    stories: StoriesParams | None = None
    model: Place
    chat: bool = False
    train: FirstTraining | None = None
    repair: RepairParams | None = None
    texts: Place
    prompts: Place | None = None
    lexicons: dict[Name, Place | Texts] = {}
    hits: tuple[Name, ...] = ()
    concepts: Annotated[tuple[ConceptParams, ...], Field(min_length=1)]
    templates: Texts | None = None
    search: PromptSearch = PromptSearch()
    maps: MapParams = MapParams()
    glitches: GlitchSearch = GlitchSearch()
    attribution: AttributionParams = AttributionParams()

    @property
    def made(self) -> tuple[str, ...]:
        return tuple(self.repair.subjects) if self.repair else ()

    @model_validator(mode="after")
    def _consistent(self) -> LanguageParams:
        labels = [one.label for one in self.concepts]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"concepts: {label!r} is there twice; give each a name of its own")
        for name in self.hits:
            if name not in self.lexicons:
                raise ValueError(f"hits: {name!r} is none of the lexicons {tuple(self.lexicons)}")
        if self.hits and self.prompts is None:
            raise ValueError("hits: are looked for in what follows prompts; name a file under prompts:")
        for template in self.templates or ():
            if "{}" not in template:
                raise ValueError(f"templates: {template!r} has no {{}} for a word to stand in")
        return self

    def listed(self, root: Path) -> dict[str, tuple[str, ...]]:
        """The words of each lexicon.

        Raises
        ------
        DataError
            If a file of them cannot be read.
        """
        from candling.language.targets import read_lexicon

        return {
            name: tuple(read_lexicon(root / one)) if isinstance(one, str) else one
            for name, one in self.lexicons.items()
        }


def kind_of(file: Path) -> Literal["vision", "language"]:
    """The kind of audit that params describe; of pictures where they do not say.

    Raises
    ------
    ParamsError
        If there is no such kind.
    """
    read = load(file)
    data: Any = read.data
    kind = data.get("kind", "vision") if isinstance(data, dict) else "vision"
    if kind == "vision" or kind == "language":
        return cast(Literal["vision", "language"], kind)
    raise read.error(("kind",), f"kind: should be 'vision' or 'language', not {kind!r}")


def read_language_params(file: Path) -> LanguageParams:
    """Read and check the params of an audit of a language model.

    Raises
    ------
    ParamsError
        Naming file, line and key, and the nearest valid key.
    """
    return parse(LanguageParams, file)
