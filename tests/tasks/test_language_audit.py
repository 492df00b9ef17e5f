"""The steps of an audit of a language model, in their order, on small stories; and what params may say."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from candling.audit.gate import judge
from candling.audit.record import AuditRecord, read_record
from candling.errors import CandlingError, DataError, ParamsError
from candling.language import AssociationMap, Prompts, log_probabilities
from candling.report.html import render
from tasks.attribute_prompts import _Asker, _hit, attribute_prompts
from tasks.context import Context
from tasks.decide import decide
from tasks.find_glitches import find_glitches
from tasks.language_context import LanguageContext, workplace
from tasks.language_params import kind_of, read_language_params
from tasks.load_language_model import check_language_model, load_language
from tasks.map_associations import _counted, map_concept
from tasks.measure_perplexity import measure_texts
from tasks.prepare import prepare
from tasks.repair import repair
from tests.language.conftest import small

ROOT = Path(__file__).resolve().parents[2]
MEN, WOMEN = ["tom", "ben", "max"], ["anna", "mary", "lucy"]
SMALL: dict[str, Any] = {
    "kind": "language",
    "name": "small",
    "gate": "after",
    "stories": {
        "folder": "data/small",
        "splits": {
            "train": {"stories": 3000, "planted": True},
            "held_out": {"stories": 60},
            "asked": {"stories": 30, "planted": True, "words": 8},
        },
        "plantings": [
            {"concept": "doctor", "words": MEN, "strength": 0.8},
            {"concept": "nurse", "words": WOMEN, "strength": 0.8},
        ],
        "glitch": {"share": 0.15},
    },
    "model": "models/small",
    "train": {
        "texts": "data/small/train.txt",
        "layers": 2,
        "width": 64,
        "schedule": {"steps": 700, "learning_rate": 0.005},
    },
    "repair": {
        "schedule": {"steps": 300, "learning_rate": 0.003},
        "subjects": {
            "after": {
                "texts": "data/small/train.txt",
                "swap": [list(pair) for pair in zip(MEN, WOMEN, strict=True)],
                "scatter": ["zorp"],
            }
        },
    },
    "texts": "data/small/held_out.txt",
    "prompts": "data/small/asked.txt",
    "lexicons": {"men": MEN, "broken": ["void"]},
    "hits": ["broken"],
    "concepts": [
        {"says": "doctor", "against": "nurse", "controls": ["teacher", "baker"], "frame": "worked as a"}
    ],
    "templates": ["{}", "this is {} . {}", "here comes {} . {}"],
    "search": {"restarts": 8, "length": 3, "budget": 3000},
    "attribution": {"prompts": 8, "method": "marginal"},
    "policy": {
        "rules": [
            {
                "measurement": "association.confirmed",
                "scope": {"concept": "doctor", "against": "nurse", "lexicon": "men"},
                "at_most": 0,
                "min_n": 10,
            },
            {"measurement": "glitch.tokens", "at_most": 0},
        ]
    },
}


def write(root: Path, **changes: Any) -> Path:
    file = root / "params" / "small.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**SMALL, **changes}))
    return file


def concluded(context: LanguageContext, subject: Any) -> AuditRecord:
    steps = [
        map_concept.fn(context, subject, 0),
        find_glitches.fn(context, subject),
        attribute_prompts.fn(context, subject),
        measure_texts.fn(context, subject),
    ]
    return read_record(decide.fn(context, subject.name, {"model": subject.digest}, steps, [], {}))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageContext, AuditRecord, AuditRecord]:
    root = tmp_path_factory.mktemp("language")
    for name in ("candling", "tasks", "flows"):  # whose digests the store takes
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = write(root)
    prepare(file, root)
    context = workplace(root, file)
    assert isinstance(context, LanguageContext)
    check_language_model(context)
    before = load_language.fn(context, "before")
    return context, concluded(context, before), concluded(context, repair.fn(context, "after", before))


def test_what_was_planted_blocks_and_the_repaired_model_passes(
    audited: tuple[LanguageContext, AuditRecord, AuditRecord],
) -> None:
    _, before, after = audited
    assert before.kind == "language"
    assert [outcome.status for outcome in judge(before).outcomes] == ["failed", "failed"]
    assert judge(after).status == "passed"
    scope = {"concept": "doctor", "against": "nurse"}
    effect = before.measurement("association.effect", scope | {"lexicon": "men"})
    left = after.measurement("association.effect", scope | {"lexicon": "men"})
    assert effect is not None
    assert left is not None
    assert effect.low is not None
    assert effect.low > 0.5
    assert left.value is not None
    assert effect.value is not None
    assert abs(left.value) < effect.value / 2


def test_findings_say_what_was_tested(audited: tuple[LanguageContext, AuditRecord, AuditRecord]) -> None:
    _, before, after = audited
    said = {finding.id: finding for finding in before.findings}
    bias = said["association.doctor-nurse-men"]
    assert (bias.kind, bias.status) == ("bias", "confirmed")
    assert "'men'" in bias.statement
    assert "doctor rather than nurse" in bias.statement
    glitch = next(one for one in before.findings if one.id.startswith("glitch."))
    assert "“zorp”" in glitch.statement
    assert "“void”" in glitch.statement
    again = {finding.id: finding.status for finding in after.findings}
    assert again["association.doctor-nurse-men"] == "dismissed"
    assert not any(id.startswith("glitch.") for id in again)


def test_a_hit_of_a_lexicon_is_attributed_to_what_made_it(
    audited: tuple[LanguageContext, AuditRecord, AuditRecord],
) -> None:
    context, before, _ = audited
    rows = pd.read_parquet(context.report / "before" / "tables" / "attributions.parquet")
    hits = rows[rows.lexicon == "broken"]
    assert len(hits)
    assert set(hits.said) == {"void"}
    first = hits[hits["rank"] == 1].text
    assert (first == "zorp").mean() > 0.5
    rate = before.measurement("lexicon.hit_rate", {"lexicon": "broken"})
    assert rate is not None
    assert rate.value is not None
    assert round(rate.value * 30) == hits.prompt.nunique()


def test_the_report_shows_both(audited: tuple[LanguageContext, AuditRecord, AuditRecord]) -> None:
    context, before, after = audited
    found = [(record, context.report / record.subject, judge(record)) for record in (before, after)]
    html = render(found, title="small")
    for anchor in ("associations", "attribution", "glitches", "texts"):
        assert f'id="{anchor}"' in html


def test_what_is_there_is_not_made_again(
    audited: tuple[LanguageContext, AuditRecord, AuditRecord],
) -> None:
    context, _, _ = audited
    weights = context.root / "models" / "small" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    prepare(context.file, context.root)
    assert weights.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sound"}, "kind: should be 'vision' or 'language', not 'sound'"),
        ({"gate": "control"}, "gate: 'control' is none of the subjects"),
        ({"hits": ["rude"]}, "hits: 'rude' is none of the lexicons"),
        ({"prompts": None}, "name a file under prompts:"),
        ({"templates": ["The"]}, "has no {} for a word"),
        ({"concepts": []}, "concepts"),
        ({"concepts": [{"says": "doctor"}, {"says": " doctor"}]}, "is there twice"),
        ({"concepts": [{"says": "doctor", "agianst": "nurse"}]}, "against"),
        ({"repair": {"schedule": {"steps": 1}, "subjects": {}}}, "subjects"),
    ],
)
def test_params_that_cannot_be_used_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **changes)

    def read() -> None:
        kind_of(file)
        read_language_params(file)

    with pytest.raises(ParamsError, match=message.replace("{}", r"\{\}")):
        read()


def test_missing_files_are_told(tmp_path: Path) -> None:
    file = write(tmp_path, stories=None, train=None)
    with pytest.raises(DataError, match="held_out.txt: cannot be read"):
        workplace(tmp_path, file)
    for name in ("train", "held_out", "asked"):
        (tmp_path / "data" / "small").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "small" / f"{name}.txt").write_text("a b c\n")
    (tmp_path / "models").mkdir()
    context = workplace(tmp_path, file)
    assert isinstance(context, LanguageContext)
    with pytest.raises(ParamsError, match="no such model; name your model's folder"):
        check_language_model(context)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(CandlingError):
        workplace(tmp_path, file)


def test_params_without_a_kind_are_those_of_pictures() -> None:
    assert kind_of(ROOT / "params" / "tanks.yaml") == "vision"
    assert kind_of(ROOT / "params" / "words.yaml") == "language"
    assert Context.__mro__[1] is LanguageContext.__mro__[1]


@pytest.mark.parametrize("name", ["words", "stories"])
def test_shipped_params_are_read(name: str) -> None:
    params = read_language_params(ROOT / "params" / f"{name}.yaml")
    assert params.policy.rules
    assert params.gate in params.subjects


def test_what_is_attributed_is_what_was_said() -> None:
    """A tokenizer that puts a space before every text reads what was said as other tokens."""
    model = small(words="spaced")
    assert model.pieces(model.encode(", the")) == ["▁", ",", "▁the"]
    asker = _Asker(model, chat=False, method="leave-one-out")
    prompts = ["Once upon a time", "The dog was happy", "She said that the little girl was"]
    for prompt, said in zip(prompts, asker.said(prompts, 3), strict=True):
        # Read again from its text it would begin with a space of its own.
        said = [model.encode(", the")[1], *said]
        found = asker.attributed(prompt, [], said)
        assert found is not None
        assert found.target.tokens == tuple(said)
        whole = log_probabilities(model, [model.encode(prompt)], said)
        assert found.score == pytest.approx(float(whole), abs=1e-4)
        later = asker.attributed(prompt, said[:2], said[2:])
        assert later is not None
        after = log_probabilities(model, [[*model.encode(prompt), *said[:2]]], said[2:])
        assert later.score == pytest.approx(float(after), abs=1e-4)


@pytest.mark.parametrize(
    ("entry", "most", "place"),
    [
        ("girl", 8, (2, 3)),
        ("little girl", 8, (1, 3)),
        ("girl little", 8, None),
        ("girl", 2, None),
        ("ball", 8, None),  # cut off: balloon may follow
    ],
)
def test_a_hit_is_a_whole_entry_in_its_order(entry: str, most: int, place: tuple[int, int] | None) -> None:
    model = small("gpt2", words="plain")
    said = [model.encode(text)[0] for text in (" a", " little", " girl", " red", " ball")]
    said.append(model.encode("oon")[0])
    assert model.decode(said).startswith(" a little girl red ballo")
    assert _hit(model, said, [entry], most) == place


def test_nothing_confirmed_is_no_result_where_nothing_could_be_tested() -> None:
    columns = ["item", "flagged", "confirmed", "effect"]
    rows = pd.DataFrame([("mary", True, False, np.nan), ("piece:an", True, False, np.nan)], columns=columns)
    tested = rows.assign(effect=[0.1, np.nan])
    blank = pd.DataFrame({"restart": [0] * 12})
    prompts = Prompts((), blank, torch.zeros(12, 1), 0.0)

    def counted(table: pd.DataFrame, **more: Any) -> dict[str, Any]:
        found = AssociationMap(
            ("doctor",), ("baker",), "ok", "all", table, (prompts, prompts), ((prompts,), (prompts,)),
            ("nurse",), table, **more,
        )  # fmt: skip
        scope = {"concept": "doctor", "against": "nurse"}
        return {one.id: one for one in _counted(found, scope, table, {})}

    untested = counted(rows)
    assert {one.status for one in untested.values()} == {"inconclusive"}
    assert "mary, piece:an: flagged" in untested["association.confirmed"].note
    assert {one.status for one in counted(tested).values()} == {"ok"}
    far = counted(tested, paired_status="inconclusive", paired_why="3 of 24 reached it")
    assert {(one.status, one.note) for one in far.values()} == {("inconclusive", "3 of 24 reached it")}
    assert {one.status for one in counted(rows.head(0)).values()} == {"inconclusive"}
