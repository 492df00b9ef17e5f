"""Complaints about YAML files: the exact sentences that people see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from candling.audit.yamlfile import load, parse
from candling.errors import ParamsError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Schedule(Section):
    steps: Annotated[int, Field(ge=1)] = 10
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 0.1


class Isolation(Section):
    images: int = 1
    side: int | None = None


class Rule(Section):
    measurement: str = ""
    on: str = "interval"


class Model(Section):
    name: str = "a"
    seed: int = 0
    classes: tuple[str, ...] = ()
    isolation: Isolation = Isolation()
    schedule: Schedule | None = None
    rules: tuple[Rule, ...] = ()
    splits: dict[str, Isolation] = {}
    expects: dict[str, tuple[str, ...]] = {}
    flag: bool = False

    @model_validator(mode="after")
    def _check(self) -> Model:
        if self.seed == 13:
            raise ValueError("seed: 13 is not lucky")
        if self.seed == 14:
            raise ValueError("nothing is lucky")
        return self


def complaint(tmp_path: Path, text: str | bytes, section: str | None = None) -> str:
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError) as caught:
        parse(Model, file, section=section)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    return message.removeprefix(str(file))


KEYS = "name, seed, classes, isolation, schedule, rules, splits, expects, flag"

CASES = {
    "unknown": ("name: a\nsed: 1\n", ":2: sed: unknown key; did you mean 'seed'?"),
    "unknown, nothing near": ("zzz: 1\n", f":1: zzz: unknown key; valid keys are {KEYS}"),
    "nested": ("isolation:\n  imagse: 1\n", ":2: isolation.imagse: unknown key; did you mean 'images'?"),
    "optional": ("schedule:\n\n  stepps: 1\n", ":3: schedule.stepps: unknown key; did you mean 'steps'?"),
    "in a list": (
        "rules:\n  - measurement: a\n  - measurment: b\n",
        ":3: rules.1.measurment: unknown key; did you mean 'measurement'?",
    ),
    "in a dict": ("splits:\n  a: {image: 1}\n", ":2: splits.a.image: unknown key; did you mean 'images'?"),
    "type": ("seed: many\n", ':1: seed: should be a valid integer, not "many"'),
    "type in a list": ("classes:\n  - a\n  - 3\n", ":3: classes.1: should be a valid string, not 3"),
    "number as text": ('seed: "1"\n', ':1: seed: should be a valid integer, not "1"'),
    "yes is no integer": ("seed: true\n", ":1: seed: should be a valid integer, not true"),
    "yes is no boolean": ("flag: yes\n", ':1: flag: should be a valid boolean, not "yes"'),
    "range": ("schedule: {steps: 0}\n", ":1: schedule.steps: should be greater than or equal to 1, not 0"),
    "choice": (
        "schedule:\n  optimiser: adam\n",
        ":2: schedule.optimiser: should be 'adamw' or 'sgd', not \"adam\"",
    ),
    "a list for a section": (
        "isolation: [1]\n",
        ":1: isolation: should be an object, not [1]",
    ),
    "check that names a key": ("name: a\nseed: 13\n", ":2: seed: 13 is not lucky"),
    "check that names none": ("name: a\nseed: 14\n", ":1: nothing is lucky"),
    "two, in order": ("\nflag: 3\nseed: x\n", ":2: flag: should be a valid boolean, not 3 (and 1 more)"),
    "unknown first": ("seed: x\nflg: 3\n", ":2: flg: unknown key; did you mean 'flag'? (and 1 more)"),
    "duplicate": ("name: a\nseed: 1\nname: b\n", ":3: name: duplicate key, first on line 1"),
    "duplicate below": (
        "rules:\n  - on: a\n    on: b\n",
        ":3: rules.0.on: duplicate key, first on line 2",
    ),
    "key": ("expects:\n  1: [a]\n", ":2: a key that is not text; put it in quotes"),
    "tag": ("name: !!python/name:os.system\n", ":1: not YAML: tag 'tag:yaml.org,2002:python/name:os.system' is not allowed"),  # noqa: E501
    "tagged map": ("name: a\nisolation: !x {images: 1}\n", ":2: tag '!x' is not allowed"),
    "endless": ("isolation: &a {images: *a}\n", ":1: aliases that never end are not allowed"),
    "no mapping": ("- a\n", ':1: should hold keys and values, not ["a"]'),
    "syntax": ("name: a\nseed: [1\n", ":3: not YAML: expected ',' or ']', but got '<stream end>'"),
    "tab": ("isolation:\n\timages: 1\n", r":2: not YAML: found character '\t' that cannot start any token"),
    "two documents": ("name: a\n---\nname: b\n", ":2: not YAML: but found another document"),
    "control character": (b"name: a\nseed: \x07\n", ":2: not YAML: a control character"),
    "encoding": (b"name: a\n# caf\xe9\n", ":2: not UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_complaint_names_line_key_and_what_is_wrong(tmp_path: Path, case: str) -> None:
    text, expected = CASES[case]
    assert complaint(tmp_path, text) == expected


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    class Needs(Section):
        inner: Inner

    class Inner(Section):
        folder: str

    Needs.model_rebuild(_types_namespace={"Inner": Inner})
    file = tmp_path / "a.yaml"
    file.write_text("\ninner: {}\n")
    with pytest.raises(ParamsError, match=r"a\.yaml:2: inner\.folder: this key is missing$"):
        parse(Needs, file)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in complaint(tmp_path, "a: " + "[" * 5000)


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "aliases that never end" in complaint(tmp_path, "\n".join(lines))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"/nowhere\.yaml: no such file$"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ParamsError, match="is a folder, not a YAML file$"):
        load(tmp_path)


def test_scalars_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "on: off\nrate: 1e-3\nday: 2026-01-01\ntime: 1:30\nnull_: ~\nbig: 1_000\nx: .5\ni: -3\nt: True\n"
    )
    assert load(file).data == {
        "on": "off", "rate": 1e-3, "day": "2026-01-01", "time": "1:30", "null_": None, "big": "1_000",
        "x": 0.5, "i": -3, "t": True,
    }  # fmt: skip


def test_lines_of_keys_and_items(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffa:\n  b: 1\n  c:\n    - x\n    - y: 2\n", encoding="utf-8")
    read = load(file)
    wanted = {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1, "y"): 5}
    assert {keys: read.line(keys) for keys in wanted} == wanted
    assert read.line(("a", "c", 1, "nothing", "below")) == 5
    assert read.line(("elsewhere",)) == 1


def test_an_empty_file_holds_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# nothing\n")
    assert parse(Model, file) == Model()


def test_a_section_keeps_its_lines(tmp_path: Path) -> None:
    text = "other: 1\npolicy:\n  sed: 1\n"
    assert complaint(tmp_path, text, "policy") == ":3: policy.sed: unknown key; did you mean 'seed'?"
    assert complaint(tmp_path, text, "nothing") == ":1: nothing: this section is missing"
    file = tmp_path / "b.yaml"
    file.write_text("policy: {seed: 3, classes: [a, b]}\n")
    assert parse(Model, file, section="policy") == Model(seed=3, classes=("a", "b"))
