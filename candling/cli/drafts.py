"""The files that `candling init` writes, as text: params with their policy, and what CI runs.

Built here rather than dumped, so that a person finds each key with a word on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["CI_FILES", "Bound", "ci_file", "language_params", "vision_params"]

# What YAML 1.1 and 1.2 both take for text without quotes.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")
_SENTENCE = re.compile(r"[A-Za-z](?:[^:#\"'\n]*[^:#\"'\s])?")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


@dataclass(frozen=True)
class Bound:
    """A rule of the policy to be.

    side: ``at_least`` or ``at_most``. why: what it protects. asked: what a person is asked, where that is not
    the measurement's name alone.
    """

    measurement: str
    side: str
    bound: float
    why: str
    scope: Mapping[str, str] = field(default_factory=dict)
    severity: str = "block"


def scalar(text: str) -> str:
    """A text as YAML has it: as it is where that is unmistakable, else in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _quoted(text)


def _prose(text: str) -> str:
    """A sentence as YAML has it: without quotes where nothing in it means anything else."""
    return text if text.isprintable() and _SENTENCE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    # Of what cannot be printed only escapes are YAML, and beyond the 16-bit plane those of eight digits.
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + '"'


def _flow(mapping: Mapping[str, str]) -> str:
    """A mapping on one line; in it a `:` or a comma may not stand unquoted."""
    return "{" + ", ".join(f"{scalar(key)}: {_inside(value)}" for key, value in mapping.items()) + "}"


def _inside(text: str) -> str:
    return _quoted(text) if ":" in text else scalar(text)


def _listed(texts: Sequence[str]) -> str:
    return "[" + ", ".join(_inside(text) for text in texts) + "]"


def _policy(rules: Sequence[Bound]) -> str:
    out = "policy:                  # `candling rules` lists what a rule can be about\n  rules:\n"
    for rule in rules:
        out += f"    - measurement: {rule.measurement}\n"
        if rule.scope:
            out += f"      scope: {_flow(rule.scope)}\n"
        out += f"      {rule.side}: {rule.bound:.12g}\n"
        if rule.severity != "block":
            out += f"      severity: {rule.severity}      # told, and blocks nothing\n"
        out += f"      why: {_prose(rule.why)}\n"
    return out


def vision_params(
    name: str,
    model: Mapping[str, str],
    location: str,
    rules: Sequence[Bound],
    *,
    split: str | None = None,
    classes: Sequence[str] = (),
) -> str:
    """The params of an audit of a classifier of pictures.

    Parameters
    ----------
    name
        Of the audit.
    model
        The keys of `model:`.
    location, split
        Where the pictures are that it is audited with.
    rules
        Of the policy.
    classes
        Those that are audited; none for all.
    """
    described = "".join(f"  {key}: {scalar(value)}\n" for key, value in model.items())
    eval_split = {"location": location} | ({"split": split} if split else {})
    chosen = f"  classes: {_listed(classes)}\n" if classes else ""
    return f"""\
# Written by `candling init`; docs/your-model.md says what else there is.
name: {scalar(name)}
gate: model              # the subject that `candling audit --gate` judges

model:
{described}
data:
  eval: {_flow(eval_split)}    # pictures that the model was not trained on
{chosen}
# A first look, in minutes. More narrows the intervals, and `candling plan` tells what it costs.
prototypes: {{parameterisation: fourier, seeds: 2, steps: 64}}
isolation: {{images: 64}}
robustness: {{images: 200}}

{_policy(rules)}"""


def language_params(
    name: str,
    model: str,
    texts: str,
    concepts: Sequence[Mapping[str, str]],
    rules: Sequence[Bound],
    *,
    prompts: str | None = None,
    lexicons: Mapping[str, str] | None = None,
    hits: Sequence[str] = (),
) -> str:
    """The params of an audit of a language model.

    Parameters
    ----------
    name
        Of the audit.
    model
        A folder, or a repository of the hub.
    texts, prompts
        Files of ordinary texts and of what it is asked in use.
    concepts
        What it may be made to say, with the keys `says` and `against`.
    rules
        Of the policy.
    lexicons
        Files of words by name.
    hits
        Names of those that nothing it says may hold.
    """
    out = f"""\
# Written by `candling init`; params/words.yaml and params/stories.yaml show what else there is.
kind: language
name: {scalar(name)}
gate: model              # the subject that `candling audit --gate` judges

model: {scalar(model)}

texts: {scalar(texts)}    # ordinary texts that it has not seen, one a line
"""
    if prompts:
        out += f"prompts: {scalar(prompts)}    # what it is asked in use, one a line\n"
    if lexicons:
        out += "\nlexicons:\n" + "".join(
            f"  {scalar(key)}: {scalar(file)}\n" for key, file in lexicons.items()
        )
    if hits:
        out += f"hits: {_listed(hits)}    # nothing that it says may hold these\n"
    out += "\nconcepts:                # what it may be made to say, and what to compare that with\n"
    out += "".join(f"  - {_flow(concept)}\n" for concept in concepts)
    return (
        out
        + f"""
# A first look; more restarts find more, and take longer.
search: {{restarts: 16, length: 5, budget: 12000, patience: 4, enough: -0.1}}

{_policy(rules)}"""
    )


CI_FILES = {
    # system: what is written, and what of the audit repository that needs
    "github": (".github/workflows/candling.yml", "action.yml"),
    "gitlab": (".gitlab-ci.yml", "ci/gitlab.yml"),
}
"""Where the file of each CI system lies, and the file of the repository that does the work there."""

_GITHUB = """\
# Written by `candling init`; docs/ci.md says what else the action takes.
name: candling
on: [pull_request, workflow_dispatch]
permissions: {{contents: read, pull-requests: write}}
jobs:
  audit:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: ./
        with:
          params: {params}
          report: {report}
"""

_GITLAB = """\
# Written by `candling init`; docs/ci.md says more.
include: {{local: ci/gitlab.yml}}
audit:
  extends: .candling
  variables: {{PARAMS: {params}, REPORT: {report}}}
"""


def ci_file(system: str, params: str, report: str) -> str:
    """What `github` or `gitlab` runs: the audit, and the gate.

    Parameters
    ----------
    system
        One of `CI_FILES`.
    params, report
        Paths from the repository's root.
    """
    return (_GITHUB if system == "github" else _GITLAB).format(params=params, report=report)
