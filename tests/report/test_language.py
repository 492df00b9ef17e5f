"""The sections on language models: charts of tables that the record names, texts that stay texts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from candling.audit.gate import judge
from candling.audit.record import Artifact, AuditRecord, measured
from candling.report.html import render
from candling.report.language import attributed_prompts, comparisons
from tests.report.test_html import Page

HOSTILE = "<script>alert(1)</script>\u202e\x00\x1b[31m"


def table(folder: Path, name: str, rows: pd.DataFrame, **fields: Any) -> Artifact:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)
    return Artifact(path=name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **fields)


def associations(**changes: Any) -> pd.DataFrame:
    row = {
        "item": "frog", "count": 12, "share": 0.75, "share_controls": 0.05, "lift": 12.0, "low": 4.0,
        "high": 30.0, "log_odds": 3.0, "z": 4.0, "p": 0.001, "q": 0.01, "replicated": True, "flagged": True,
        "effect": 2.5, "effect_low": 1.5, "effect_high": 3.5, "n": 8.0, "confirmed": True,
    }  # fmt: skip
    plain = {
        "flagged": False,
        "confirmed": False,
        "effect": float("nan"),
        "lift": 1.5,
        "low": 0.8,
        "high": 3.0,
    }
    rows = [row, {**row, **plain, "item": "the"}, {**row, **plain, "item": "piece:##og"}]
    rows += [{**row, "item": "lexicon:men", "effect": -1.0, "log_odds": -1.0, "count": 0}]
    rows += [{**row, **plain, "item": "rare", "log_odds": -0.5}]
    return pd.DataFrame([{**one, **changes} for one in rows])


def attributions(text: str = "frog", lexicon: str = "") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "place": [0, 1], "text": [text, "was"], "score": [2.0, -0.5], "rank": [1, 2], "prompt": [3, 3],
            "said": ["shell", "shell"], "lexicon": [lexicon] * 2, "log_probability": [-0.3] * 2,
        }
    )  # fmt: skip


def record(folder: Path, *artifacts: Artifact, subject: str = "before") -> AuditRecord:
    return AuditRecord(
        audit="words", subject=subject, kind="language", digests={"model": "0"}, environment={},
        measurements=(measured("association.confirmed", (1.0, 1.0, 1.0, 32), {"concept": "shell"}),),
        artifacts=artifacts,
    )  # fmt: skip


def shown(folder: Path, *artifacts: Artifact) -> str:
    made = record(folder, *artifacts)
    return render([(made, folder, judge(made))], title="words")


def test_items_stand_in_order_of_proof_and_lexicons_are_called_so(tmp_path: Path) -> None:
    scope = {"concept": "shell", "against": "key"}
    made = table(
        tmp_path, "tables/a.parquet", associations(), section="associations", scope=scope, caption="x"
    )
    ((found,),) = [comparisons([(record(tmp_path, made), tmp_path)])]
    (chart,) = found.charts
    assert chart is not None
    assert (found.concept, found.against) == ("shell", "key")
    # Of what is held less often only what is confirmed is shown.
    names = [(one.kind, one.name) for one in (*chart.shown, *chart.folded)]
    assert names == [("word", "frog"), ("lexicon", "men"), ("word", "the"), ("piece", "##og")]
    assert [one.name for one in chart.cloud] == ["frog", "the", "##og"]
    assert chart.cloud[0].size > chart.cloud[1].size
    assert chart.shown[2].effect is None
    page = Page(shown(tmp_path, made))
    assert "any of men" in " ".join(page.text.split())


def test_subjects_share_an_axis(tmp_path: Path) -> None:
    audited = []
    for name, high in (("before", 30.0), ("after", 300.0)):
        folder = tmp_path / name
        made = table(
            folder, "t.parquet", associations(high=high), section="associations", scope={"concept": "shell"}
        )
        audited.append((record(folder, made, subject=name), folder))
    charts = comparisons(audited)[0].charts
    bars = [chart.shown[0].bar for chart in charts if chart is not None]
    assert bars[0] is not None
    assert bars[1] is not None
    assert bars[0].value == bars[1].value
    assert bars[0].high < bars[1].high == 100  # type: ignore[operator]


def test_prompts_with_a_hit_come_first_and_a_subject_without_has_none(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    hit = pd.concat([attributions(), attributions(lexicon="broken").assign(prompt=7)], ignore_index=True)
    first = record(one, table(one, "t.parquet", hit, section="attribution"))
    second = record(other, table(other, "t.parquet", attributions(), section="attribution"), subject="after")
    found = attributed_prompts([(first, one), (second, other)])
    assert [(prompt.number, prompt.lexicon) for prompt in found] == [(7, "broken"), (3, "")]
    assert found[0].lines[1] is None
    line = found[1].lines[0]
    assert line is not None
    assert [(word.text, word.strength) for word in line.words] == [("frog", 100), ("was", 25)]


@pytest.mark.parametrize("section", ["associations", "attribution"])
def test_hostile_texts_stay_texts(tmp_path: Path, section: str) -> None:
    rows = associations(item=HOSTILE) if section == "associations" else attributions(HOSTILE)
    made = table(tmp_path, "t.parquet", rows, section=section, scope={"concept": HOSTILE}, caption=HOSTILE)
    html = shown(tmp_path, made)
    page = Page(html)
    assert "<script>alert" not in html
    assert not {"\x00", "\x1b"} & set(html)
    assert "\u202e" not in page.text.replace(HOSTILE, "")
    assert r"\x1b[31m" in page.text


def test_a_table_that_is_not_the_one_of_the_record_is_not_shown(tmp_path: Path) -> None:
    made = table(tmp_path, "t.parquet", associations(), section="associations", scope={"concept": "shell"})
    for spoil, message in (
        (lambda: (tmp_path / "t.parquet").write_bytes(b"PAR1"), "table changed since the audit"),
        (lambda: (tmp_path / "t.parquet").unlink(), "table missing"),
    ):
        spoil()
        text = Page(shown(tmp_path, made)).text
        assert message in text
        assert "frog" not in text
    outside = made.model_copy(update={"path": "../t.parquet"})
    assert "leaves the record's folder" in Page(shown(tmp_path, outside)).text


@pytest.mark.parametrize("case", ["missing", "other columns"])
def test_a_table_of_words_that_cannot_be_read_is_no_result(case: str, tmp_path: Path) -> None:
    there = table(tmp_path / "after", "words.parquet", attributions(lexicon="names"), section="attribution")
    rows = attributions(lexicon="names")
    gone = table(tmp_path / "before", "words.parquet", rows.drop(columns="score"), section="attribution")
    if case == "missing":
        (tmp_path / "before" / "words.parquet").unlink()
    found = [
        (record(tmp_path / name, one, subject=name), tmp_path / name)
        for name, one in (("before", gone), ("after", there))
    ]
    words = Page(render([(made, folder, judge(made)) for made, folder in found], title="Words")).words
    assert ("before: table missing" if case == "missing" else "before: a table without score") in words
    assert "does not say one" not in words


def test_a_table_of_items_without_its_columns_says_so(tmp_path: Path) -> None:
    made = table(
        tmp_path, "a.parquet", associations().drop(columns="lift"), section="associations",
        scope={"concept": "shell"},
    )  # fmt: skip
    found = record(tmp_path, made)
    assert "a table without lift" in Page(render([(found, tmp_path, judge(found))], title="Items")).words
