"""The policy: rules that measurements are held to."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from candling.audit.measurements import REGISTRY
from candling.audit.yamlfile import load, parse

__all__ = ["Policy", "Rule", "read_policy"]

Number = Annotated[float, Field(allow_inf_nan=False)]
# No sample at all is never enough, so 0 is not on offer.
SampleSize = Annotated[int, Field(ge=1)]


class Rule(BaseModel):
    """One bound, or two, on one measurement.

    Attributes
    ----------
    measurement, scope
        Which measurement, by its registered id and exactly its scope.
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
    at_least: Number | None = None
    at_most: Number | None = None
    on: Literal["interval", "estimate"] = "interval"
    severity: Literal["block", "warn"] = "block"
    min_n: SampleSize | None = None
    why: str = ""

    @field_validator("measurement")
    @classmethod
    def _registered(cls, id: str) -> str:
        if id not in REGISTRY:
            near = get_close_matches(id, REGISTRY, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`candling rules` lists those that are"
            raise ValueError(f"{id!r} is not a registered measurement; {hint}")
        return id

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rule needs at_least or at_most")
        kind = REGISTRY[self.measurement]
        for key, bound in (("at_least", self.at_least), ("at_most", self.at_most)):
            if bound is not None and not kind.low <= bound <= kind.high:
                raise ValueError(
                    f"{key}: {bound:g} is outside the range of {kind.id}, {kind.low:g} to {kind.high:g}"
                )
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
        scope = ", ".join(f"{key} {value}" for key, value in sorted(self.scope.items()))
        return f"{self.measurement} ({scope})" if scope else self.measurement


class Policy(BaseModel):
    """The rules of an audit; `min_n` is the smallest sample that a rule trusts unless it says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    min_n: SampleSize = 30


def read_policy(path: Path | str) -> Policy:
    """Read a policy: the `policy:` section of a params file, or a file with `rules:` at its top.

    Raises
    ------
    ParamsError
        If the file is not usable or holds neither.
    """
    file = load(path)
    if isinstance(file.data, dict) and "policy" in file.data:
        return parse(Policy, file, section="policy")
    if isinstance(file.data, dict) and "rules" in file.data:
        return parse(Policy, file)
    raise file.error((), "neither `policy:` nor `rules:` stands at the top, so there is no policy here")
