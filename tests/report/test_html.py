"""The HTML report: self-contained, deterministic, honest about what is missing, deaf to hostile names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from candling.audit.gate import judge
from candling.audit.policy import Policy, Rule
from candling.audit.record import AuditRecord, Measurement
from candling.errors import NothingAudited
from candling.report.html import render, write_html
from tests.report import synthetic_audit as synthetic

VOID = {"br", "hr", "img", "input", "link", "meta", "col"}


class Page(HTMLParser):
    """Every tag, text and `<data value>` of a page; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.data_values: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag == "data":
            self.data_values.append(found["value"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open[-1:]):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> list[synthetic.Audited]:
    return synthetic.tank_audit(tmp_path_factory.mktemp("tanks"))


@pytest.fixture(scope="module")
def html(audit: list[synthetic.Audited]) -> str:
    return render(audit, title="The tank audit")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_policy_lets_in_nothing_from_outside(html: str, page: Page) -> None:
    metas = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (policy,) = [m["content"] for m in metas]
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_page_refers_only_to_itself(html: str, page: Page) -> None:
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_anchors_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert {u["href"][1:] for u in page.all("use")} <= set(ids)


def test_same_records_same_bytes(tmp_path: Path, html: str) -> None:
    again = synthetic.tank_audit(tmp_path / "elsewhere")
    assert render(again, title="The tank audit") == html


def test_sections_tell_the_story_in_order(page: Page) -> None:
    order = [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs]
    assert order == [
        "verdict",
        "rules",
        "prototypes",
        "entanglement",
        "isolation",
        "evidence",
        "counterfactuals",
        "groups",
        "findings",
        "facts",
        "glossary",
    ]


def test_verdicts_come_as_words_with_the_strongest_failing_rule(page: Page) -> None:
    assert "3 subjects · 2 blocked · 1 passed" in page.words
    first = page.words.index("strongest failing rule Conflict swaps that follow the background 0.985")
    assert first < page.words.index("Each rule holds one measurement")


def test_every_number_of_the_records_is_on_the_page(audit: list[synthetic.Audited], page: Page) -> None:
    shown = set(page.data_values)
    for record, _, verdict in audit:
        for m in record.measurements:
            assert {repr(v) for v in (m.value, m.low, m.high) if v is not None} <= shown
        for outcome in verdict.outcomes:
            assert repr(outcome.value) in shown
        for artifact in record.artifacts:
            assert {repr(v) for v in artifact.values.values()} <= shown


def test_no_number_is_invented(audit: list[synthetic.Audited], page: Page) -> None:
    known = {""}
    for record, _, _ in audit:
        evidence = [m for finding in record.findings for m in finding.evidence]
        for m in [*record.measurements, *evidence]:
            known |= {repr(v) for v in (m.value, m.low, m.high, m.n)}
        known |= {repr(v) for artifact in record.artifacts for v in artifact.values.values()}
    assert set(page.data_values) <= known


def test_every_picture_is_shown_with_an_alternative_text(audit: list[synthetic.Audited], page: Page) -> None:
    shown = [image["src"] for image in page.all("img")]
    assert all(image["alt"] for image in page.all("img"))
    for record, folder, _ in audit:
        for artifact in record.artifacts:
            data = base64.b64encode((folder / artifact.path).read_bytes()).decode()
            assert f"data:image/png;base64,{data}" in shown
    # 2 classes x 6 seeds, then 24 isolated images, for 3 subjects; each original only once.
    assert len(shown) == 3 * (12 + 24) + 24


def test_the_fill_is_stated_once_where_all_share_it(page: Page) -> None:
    assert "hidden patches replaced with patches of clean backgrounds (donors)" in page.words


def test_inconclusive_measurements_say_so(page: Page) -> None:
    assert "inconclusive only 6 images show this part" in page.words


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    html = render([synthetic.hostile(tmp_path)], title=synthetic.SCRIPT)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert all(image["src"].startswith("data:image/png") for image in page.all("img"))
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert synthetic.SCRIPT in page.text
    assert synthetic.BREAKOUT in page.text
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_an_errored_record_says_so_before_its_verdict(tmp_path: Path) -> None:
    page = Page(render([synthetic.errored(tmp_path)], title="Crashed"))
    said = page.words.index("isolate_features the model returned NaN for 3 of 96 images")
    assert said < page.words.index("One card for each model")
    assert "incomplete" in page.words
    assert "the isolation step failed" in page.words


def with_picture(folder: Path, path: str, sha256: str = "0" * 64) -> str:
    folder.mkdir(exist_ok=True)
    artifact = synthetic.Artifact(path=path, sha256=sha256, section="prototypes", scope={"class": "tank"})
    found = synthetic.record(folder, "model", artifacts=(artifact,))
    return render([synthetic.audited(folder, found)], title="Pictures")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_missing_picture_leaves_a_box(tmp_path: Path) -> None:
    page = Page(with_picture(tmp_path, "prototypes/gone.png"))
    assert page.all("img") == []
    assert "picture missing" in page.words


@pytest.mark.parametrize("path", ["../secret.png", "inside/../../secret.png", "link.png", "ABSOLUTE"])
def test_a_picture_outside_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(synthetic.png(synthetic.scene("snow", 1, tank=True)))
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / "inside").mkdir()
    (folder / "link.png").symlink_to(secret)
    html = with_picture(folder, path.replace("ABSOLUTE", str(secret)), digest(secret.read_bytes()))
    assert Page(html).all("img") == []
    assert "leaves the record's folder" in Page(html).words


@pytest.mark.parametrize("path", ["nul\0.png", "x" * 5000 + ".png", ".", ""])
def test_an_impossible_path_never_crashes(tmp_path: Path, path: str) -> None:
    page = Page(with_picture(tmp_path, path))
    assert page.all("img") == []
    assert "picture" in page.words


def test_a_picture_that_changed_since_the_audit_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(synthetic.png(synthetic.scene("snow", 1, tank=True)))
    page = Page(with_picture(tmp_path, "p.png"))
    assert page.all("img") == []
    assert "changed since the audit" in page.words


def test_only_png_and_jpeg_are_pictures(tmp_path: Path) -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    (tmp_path / "p.png").write_bytes(svg)
    html = with_picture(tmp_path, "p.png", digest(svg))
    assert "not a PNG or JPEG" in Page(html).words
    jpeg = b"\xff\xd8\xff\xe0 made up"
    (tmp_path / "q.jpg").write_bytes(jpeg)
    (image,) = Page(with_picture(tmp_path, "q.jpg", digest(jpeg))).all("img")
    assert image["src"].startswith("data:image/jpeg;base64,")


def bare(**changes: object) -> AuditRecord:
    fields: dict[str, object] = {
        "audit": "words",
        "subject": "model",
        "kind": "language",
        "digests": {},
        "measurements": (),
        "environment": {},
    }
    return AuditRecord.model_validate(fields | changes)


def test_an_empty_record_shows_that_nothing_was_audited(tmp_path: Path) -> None:
    found = bare()
    page = Page(render([(found, tmp_path, judge(found))], title="Empty"))
    assert "nothing audited" in page.words
    assert "no rule was judged" in page.words


def test_many_classes_list_the_strongest_pairs_in_place_of_a_heat_map(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(30)]
    pairs = tuple(
        Measurement(
            id="entanglement.directed",
            scope={"from": "class 0", "to": name},
            value=number / 100,
            low=0.0,
            high=1.0,
            n=8,
        )
        for number, name in enumerate(names)
        if number
    )
    found = bare(kind="vision", classes=tuple(names), measurements=pairs)
    html = render([(found, tmp_path, judge(found))], title="Many")
    assert 'class="heat"' not in html
    assert html.index("class 29") < html.index("class 1<")


def test_subjects_may_have_different_policies(tmp_path: Path) -> None:
    kept = bare(
        subject="kept",
        measurements=(Measurement(id="accuracy.overall", value=0.91, low=0.9, high=0.92, n=500),),
        policy=Policy(rules=(Rule(measurement="accuracy.overall", at_least=0.8),)),
    )
    other = bare(subject="other")
    page = Page(render([(r, tmp_path, judge(r)) for r in (kept, other)], title="Two"))
    assert "not a rule of this subject" in page.words


def test_nothing_to_report_is_an_error() -> None:
    with pytest.raises(NothingAudited):
        render([], title="None")


def test_write_html_leaves_one_whole_file(audit: list[synthetic.Audited], tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_html(audit, path, title="The tank audit") == path
    assert path.read_text(encoding="utf-8") == render(audit, title="The tank audit")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert "<title>Audit of tanks</title>" in write_html(audit, path).read_text(encoding="utf-8")
