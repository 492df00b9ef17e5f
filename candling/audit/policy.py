"""The policy: rules that measurements are held to, and waivers of what is known and accepted for a while."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from candling.audit.measurements import REGISTRY
from candling.audit.yamlfile import YamlFile, load, parse

__all__ = [
    "ANY",
    "LONGEST_WAIVER",
    "Policy",
    "PolicySource",
    "Rule",
    "Waiver",
    "read_policy",
    "read_source",
    "today",
]

Number = Annotated[float, Field(allow_inf_nan=False)]
# No sample at all is never enough, so 0 is not on offer.
SampleSize = Annotated[int, Field(ge=1)]
Words = Annotated[str, Field(min_length=1, pattern=r"\S")]

LONGEST_WAIVER = timedelta(days=90)
ANY = "*"


def today() -> date:
    """The day by which waivers are judged, the same everywhere."""
    return datetime.now(UTC).date()


def _registered(id: str) -> str:
    if id not in REGISTRY:
        near = get_close_matches(id, REGISTRY, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`candling rules` lists those that are"
        raise ValueError(f"{id!r} is not a registered measurement; {hint}")
    return id


def label(id: str, scope: dict[str, str]) -> str:
    """A measurement and its scope in words."""
    words = ", ".join(f"{key} {value}" for key, value in sorted(scope.items()))
    return f"{id} ({words})" if words else id


class Rule(BaseModel):
    """One bound, or two, on one measurement.

    Attributes
    ----------
    measurement, scope
        Which measurement, by its registered id and exactly its scope; ``"*"`` in a scope stands for any
        value, each of which is held to the rule, and for ``class`` for every class of the record.
    against
        ``baseline``: the bounds are of the change since a baseline record, new less old.
    at_least, at_most
        The bounds, in the measurement's unit; at least one of them.
    on
        ``interval``: the conservative end decides (low for `at_least`, high for `at_most`);
        ``estimate``: the value does.
    severity
        ``block`` keeps a model from passing, ``warn`` says so and lets it pass.
    min_n
        Fewer samples than this are inconclusive; None takes the policy's.
    why
        What the rule protects, for the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurement: str
    scope: dict[str, str] = {}
    against: Literal["baseline"] | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    on: Literal["interval", "estimate"] = "interval"
    severity: Literal["block", "warn"] = "block"
    min_n: SampleSize | None = None
    why: str = ""

    @field_validator("measurement")
    @classmethod
    def _known(cls, id: str) -> str:
        return _registered(id)

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most")
        kind = REGISTRY[self.measurement]
        low, high, what = kind.low, kind.high, kind.id
        if self.against:
            low, high, what = low - high, high - low, f"a change of {kind.id}"
        for key, bound in (("at_least", self.at_least), ("at_most", self.at_most)):
            if bound is not None and not low <= bound <= high:
                raise ValueError(f"{key}: {bound:g} is outside the range of {what}, {low:g} to {high:g}")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least: {self.at_least:g} is above at_most: {self.at_most:g}")
        return self

    @property
    def threshold(self) -> str:
        """The bounds in words: ``at least 0.85``."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return ", ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

    @property
    def label(self) -> str:
        """The measurement and its scope in words."""
        said = label(self.measurement, self.scope)
        return f"change of {said}" if self.against else said


class Waiver(BaseModel):
    """A rule that may be broken until a day, because someone answers for it.

    Attributes
    ----------
    id, scope, against
        The measurement of the rule and exactly its scope, ``{}`` for the whole subject; ``against: baseline``
        for the rule on its change, which a waiver of its level leaves alone.
    reason, owner
        Why, and who answers for it.
    expires
        The last day on which it holds, at most 90 days away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    scope: dict[str, str]
    against: Literal["baseline"] | None = None
    reason: Words
    owner: Words
    expires: date

    @field_validator("id")
    @classmethod
    def _known(cls, id: str) -> str:
        return _registered(id)

    @property
    def label(self) -> str:
        """What it waives, in words."""
        said = label(self.id, self.scope)
        return f"change of {said}" if self.against else said

    def covers(self, rule: Rule) -> bool:
        """Whether it is about a rule."""
        return (self.id, self.scope, self.against) == (rule.measurement, rule.scope, rule.against)

    def trouble(self, day: date) -> str | None:
        """Why it does not hold on a day, or None where it does."""
        if self.expires < day:
            return f"expired on {self.expires}"
        if self.expires - day > LONGEST_WAIVER:
            away = (self.expires - day).days
            return f"would hold {away} days more; at most {LONGEST_WAIVER.days} are allowed"
        return None


class Policy(BaseModel):
    """The rules of an audit; `min_n` is the smallest sample that a rule trusts unless it says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    min_n: SampleSize = 30
    waivers: tuple[Waiver, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Policy:
        labels = [waiver.label for waiver in self.waivers]
        for name in labels:
            if labels.count(name) > 1:
                raise ValueError(f"waivers: {name} is waived twice; keep one")
        return self


class PolicySource(BaseModel):
    """Where a policy was read: the file, relative to the repository, and the line of each rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    lines: tuple[int, ...] = ()


def read_policy(path: Path | str) -> Policy:
    """Read a policy: the `policy:` section of a params file, or a file with `rules:` at its top.

    Raises
    ------
    ParamsError
        If the file is not usable or holds neither, or a waiver would hold for longer than is allowed.
    """
    file, section = _found(path)
    policy = parse(Policy, file, section=section)
    for number, waiver in enumerate(policy.waivers):
        if waiver.expires - today() > LONGEST_WAIVER:
            inside: tuple[str | int, ...] = ("waivers", number, "expires")
            keys = (section, *inside) if section else inside
            raise file.error(keys, f"the waiver of {waiver.label} {waiver.trouble(today())}")
    return policy


def read_source(path: Path | str, name: str) -> PolicySource:
    """Where the rules of a policy stand in its file, which is called `name`.

    Raises
    ------
    ParamsError
        As `read_policy`.
    """
    file, section = _found(path)
    keys = (*([section] if section else []), "rules")
    data = file.data[section] if section else file.data
    rules = data.get("rules") if isinstance(data, dict) else None
    return PolicySource(file=name, lines=tuple(file.line((*keys, i)) for i in range(len(rules or ()))))


def _found(path: Path | str) -> tuple[YamlFile, str | None]:
    """The file of a policy, and the section that it is there."""
    file = load(path)
    if isinstance(file.data, dict) and "policy" in file.data:
        return file, "policy"
    if isinstance(file.data, dict) and "rules" in file.data:
        return file, None
    raise file.error((), "neither `policy:` nor `rules:` stands at the top, so there is no policy here")
