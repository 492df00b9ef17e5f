"""The HTML report: self-contained, deterministic, honest about what is missing, deaf to hostile names."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from candling.audit.gate import judge
from candling.audit.policy import Policy, Rule
from candling.audit.record import AuditRecord, Measurement, write_record
from candling.errors import NothingAudited
from candling.report.heatmaps import heat_map
from candling.report.html import render, write_html
from candling.report.rows import rows_of, rule_rows, starting
from candling.report.subjects import subjects_of
from candling.report.wording import bound_written, end_of_axis, figure, told
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
        "accuracy",
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


def test_how_maps_were_made_is_stated_once_where_all_share_it(page: Page) -> None:
    assert "how maps were made Hierarchical(donors=480 pictures)" in page.words


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
    html = render([synthetic.errored(tmp_path)], title="Crashed")
    page = Page(html)
    assert "isolate_features the model returned NaN for 3 of 96 images" in page.words
    assert html.index('<section class="errors"') < html.index('<section id="verdict"')
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


# -- An audit of somebody's own model ------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> synthetic.Audited:
    folder = tmp_path_factory.mktemp("own")
    return synthetic.audited(folder, synthetic.own(folder))


@pytest.fixture(scope="module")
def own_page(own: synthetic.Audited) -> Page:
    return Page(render([own], title="Own"))


def part(page: Page, start: str, end: str) -> str:
    """The words between two headings or sentences."""
    words = page.words
    return words[words.index(start) : words.index(end, words.index(start))]


def without(record: AuditRecord, *dropped: str) -> AuditRecord:
    """The record less measurements, notes and pictures whose id, key or section starts so."""
    return record.model_copy(
        update={
            "measurements": tuple(m for m in record.measurements if not m.id.startswith(dropped)),
            "notes": {k: v for k, v in record.notes.items() if not k.startswith(dropped)},
            "artifacts": tuple(a for a in record.artifacts if not a.section.startswith(dropped)),
        }
    )


WHOLE = [
    "verdict", "rules", "accuracy", "robustness", "prototypes", "channels", "entanglement", "isolation",
    "left_out", "facts", "glossary",
]  # fmt: skip


@pytest.mark.parametrize(
    ("dropped", "gone"),
    [
        ((), ()),
        (("isolation",), ("isolation",)),
        (("isolation.",), ()),
        (("prototype",), ("prototypes",)),
        (("prototypes",), ()),
        (("channels",), ("channels",)),
        (("channels.",), ()),
        (("entanglement",), ("entanglement",)),
        (("entanglement.directed",), ()),
        (("entanglement.strongest_pair",), ()),
        (("accuracy", "calibration", "confusion"), ("accuracy",)),
        (("accuracy",), ()),
        (("accuracy", "calibration"), ()),
        (("accuracy", "confusion"), ()),
        (("accuracy.class",), ()),
        (("calibration.bin_accuracy",), ()),
        (("calibration.bin_confidence",), ()),
        (("confusion.rate",), ()),
        (("robustness",), ("robustness",)),
        (("robustness.accuracy",), ()),
        (("robustness.mean", "robustness.worst"), ()),
        (("left_out",), ("left_out",)),
        (("data",), ()),
        (
            ("",),
            ("accuracy", "robustness", "prototypes", "channels", "entanglement", "isolation", "left_out"),
        ),
    ],
)
def test_what_is_absent_leaves_no_empty_heading(
    own: synthetic.Audited, dropped: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    record, folder, _ = own
    found = without(record, *dropped) if dropped else record
    page = render([(found, folder, judge(found))], title="Own")
    order = re.findall(r'<section id="(\w+)"', page)
    assert order == [name for name in WHOLE if name not in gone]
    assert not re.search(r"<h3>[^<]*(?:<span[^>]*>[^<]*</span>[^<]*)?</h3>\s*(?:<h[23]|</section>)", page)
    for empty in ("tbody", "details", "dl", "figure", "div"):
        assert not re.search(rf"<{empty}[^>]*>\s*</{empty}>", page)
    # After its heading and its introduction every section has something to show.
    for body in re.findall(r"<section id=.*?</h2>(.*?)(?=<section id=|</main>)", page, re.DOTALL):
        content = re.sub(r'<p class="(?:intro|formula)">.*?</p>', "", body, flags=re.DOTALL)
        assert len(re.sub(r"<[^>]*>|\s", "", content)) > 10
    Page(page)


def test_every_value_of_it_is_on_the_page(own: synthetic.Audited, own_page: Page) -> None:
    shown = set(own_page.data_values)
    assert {repr(m.value) for m in own[0].measurements} <= shown
    known = {repr(v) for m in own[0].measurements for v in (m.value, m.low, m.high, m.n)}
    known |= {repr(v) for a in own[0].artifacts for v in a.values.values()}
    assert shown - {""} <= known


def test_the_worst_classes_and_slices_come_first(own_page: Page) -> None:
    classes = part(own_page, "Classes Measured", "Slices Measured")
    order = [classes.index(f"class {name}") for name in ("goldfish", "zebra", "banana", "school bus")]
    assert order == sorted(order)
    slices = part(own_page, "Slices Measured", "Confusion model")
    assert slices.index("object small") < slices.index("indoor yes") < slices.index("object large")


def confusions(classes: int) -> tuple[Measurement, ...]:
    names = [f"class {number}" for number in range(classes)]
    return tuple(
        Measurement(
            id="confusion.rate",
            scope={"from": "class 0", "to": name},
            value=number / 100,
            low=0.0,
            high=1.0,
            n=90,
        )
        for number, name in enumerate(names)
    ) + tuple(
        Measurement(id="confusion.rate", scope={"from": name, "to": name}, value=0.9, low=0.8, high=1.0, n=90)
        for name in names[1:]
    )


@pytest.mark.parametrize(("classes", "matrix"), [(2, True), (20, True), (21, False), (30, False)])
def test_confusion_is_a_map_of_few_classes_or_ten_pairs_of_many(classes: int, matrix: bool) -> None:
    names = tuple(f"class {number}" for number in range(classes))
    found = bare(kind="vision", classes=names, measurements=confusions(classes))
    html = render([(found, Path("/nowhere"), judge(found))], title="Many")
    assert ('class="heat' in html) == matrix
    start = html.index("The strongest confusions")
    details = html[start : html.index("</details>", start)]
    listed = re.findall(r"<span>to</span> class (\d+)<", details)
    # The strongest first; what never happened and what is right is no confusion.
    assert listed == [str(number) for number in range(classes - 1, 0, -1)][:10]


def test_the_reliability_diagram_draws_what_the_record_holds(own: synthetic.Audited, own_page: Page) -> None:
    bins = [m for m in own[0].measurements if m.id == "calibration.bin_accuracy"]
    sure = {m.scope["bin"]: m.value for m in own[0].measurements if m.id == "calibration.bin_confidence"}
    dots = [c for c in own_page.all("circle") if c.get("class", "").startswith("dot") and c["cx"][-1] != "%"]
    assert len(dots) == len(bins) == 2
    for dot, m in zip(dots, bins, strict=True):
        assert m.value is not None
        assert float(dot["cx"]) == pytest.approx(100 * (sure[m.scope["bin"]] or 0), abs=0.01)
        assert float(dot["cy"]) == pytest.approx(100 - 100 * m.value, abs=0.01)
        assert ("unsure" in dot["class"]) == (m.status != "ok")


def test_corruptions_are_a_table_of_severities(own_page: Page) -> None:
    table = part(own_page, "corruption ↓ severity →", "accuracy 1 0")
    assert table.startswith("corruption ↓ severity →12345 noise 0.580")
    assert re.findall(r"[a-z]+(?= 0\.)", table) == ["noise", "blur", "contrast", "brightness", "jpeg"]
    titles = [cell.get("title", "") for cell in own_page.all("td")]
    assert any(
        re.fullmatch(r"noise → 5: 0\.1399\d+, 95% interval 0\.000 to 0\.332, n = 26, inconclusive", title)
        for title in titles
    )
    assert "clean pictures: 0.692" in own_page.words


@pytest.mark.parametrize(("weak", "said", "marks"), [(0, False, 0), (1, False, 1), (5, True, 0)])
def test_cells_that_tell_too_little_are_marked(weak: int, said: bool, marks: int) -> None:
    cells = tuple(
        Measurement(
            id="robustness.accuracy",
            scope={"corruption": "blur", "severity": str(severity)},
            value=0.5,
            n=20,
            status="inconclusive" if severity <= weak else "ok",
        )
        for severity in range(1, 6)
    )
    found = bare(kind="vision", measurements=cells)
    html = render([(found, Path("/nowhere"), judge(found))], title="Weak")
    grid = html[html.index('class="heat') : html.index("accuracy 1")]
    assert ("all of it" in grid) == said
    assert grid.count("<sup>?</sup>") == marks


def test_sentences_have_their_places(own_page: Page) -> None:
    left = part(own_page, "What this audit did not measure", "What was audited, byte for byte")
    assert all(sentence in left for sentence in synthetic.OWN_LEFT_OUT.values())
    data = part(own_page, "Provenance What was audited", "Digests Name")
    assert all(sentence in data for sentence in synthetic.OWN_DATA.values())
    assert "Pictures that could not be read" in data
    notes = part(own_page, "Notes Name", "Glossary What each")
    assert "isolation.method" in notes
    assert "left_out" not in notes
    assert "quarantined" not in notes


def test_what_subjects_left_out_differently_is_said_of_each(tmp_path: Path) -> None:
    one = bare(subject="one", notes={"left_out.masks": "No masks.", "left_out.groups": "No groups."})
    other = bare(subject="other", notes={"left_out.masks": "No masks."})
    page = Page(render([(r, tmp_path, judge(r)) for r in (one, other)], title="Two"))
    left = part(page, "What this audit did not", "Everything on this page")
    assert left.count("No masks.") == 1
    assert "one No groups." in left


def test_pictures_with_many_pixels_are_smoothed(tmp_path: Path) -> None:
    sizes = {"small.png": 96, "large.png": 224}
    pictures = tuple(
        synthetic.artifact(tmp_path, name, synthetic.speckled(1, side), section="prototypes", scope={})
        for name, side in sizes.items()
    )
    found = bare(kind="vision", artifacts=pictures)
    images = Page(render([(found, tmp_path, judge(found))], title="Sizes")).all("img")
    assert [image.get("class", "") for image in images] == ["", "fine"]


def test_an_original_is_embedded_once_whatever_is_isolated_in_it(
    own: synthetic.Audited, own_page: Page
) -> None:
    sources = [image["src"] for image in own_page.all("img")]
    assert len(sources) == len(own[0].artifacts) == 9 * 4 + 26 * 3 + 2 * 6 * 5
    assert "20 more" in own_page.words


def test_trust_stands_first_under_each_prototype(own: synthetic.Audited, own_page: Page) -> None:
    gallery = part(own_page, "trust geometric mean of", "Channels A layer sees")
    captions = re.findall(r"seed \d(trust)0\.\d{3}(probability)0\.\d{3}agreement0\.\d{3}", gallery)
    assert set(captions) == {("trust", "probability")}
    assert len(captions) == 9 * 4
    assert "0 is no more than chance" in own_page.words


def test_channels_are_shown_beside_their_images(own: synthetic.Audited, own_page: Page) -> None:
    shown = part(own_page, "Channels A layer sees", "Entanglement Each row")
    assert "shown of each layer the 6 channels that carry most of the evidence" in shown
    first, second = (shown.index(f"layer {name}") for name in synthetic.OWN_LAYERS)
    assert first < second
    of_first = shown[first:second]
    # Four in view and two folded away, each optimised before its images.
    assert "2 more of features.14" in of_first
    channels = re.split(r"channel (?=\d+ evidence)", of_first)[1:]
    assert [int(one.split()[0]) for one in channels] == [137 * number for number in range(6)]
    for one in channels:
        assert re.match(
            r"\d+ evidence over average \d\.\d{3} usual activation 0\.210 optimisedactivation\d\.\d{3} ", one
        )
        assert one.count("activation") == 1 + 5
    alternatives = {image["alt"] for image in own_page.all("img")}
    assert "model, channel 137 of features.14, optimised: optimised" in alternatives
    assert "model, channel 137 of features.14, an image that excites it: zebra" in alternatives


def test_subjects_have_channels_of_their_own(tmp_path: Path) -> None:
    records = []
    for number, name in enumerate(("one", "other", "third")):
        pictures = synthetic.channel_pictures(tmp_path / name, side=8, channels=number, images=1)
        records.append((bare(subject=name, artifacts=tuple(pictures)), tmp_path / name))
    html = render([(r, folder, judge(r)) for r, folder in records], title="Three")
    for layer in synthetic.OWN_LAYERS:
        for number, name in enumerate(("one", "other", "third")):
            start = html.index(f'aria-label="{name}, channels of {layer}"')
            section = html[start : html.index("</section>", start)]
            assert section.count("<img") == 2 * number
            assert ("no channel recorded" in section) == (number == 0)


def noise(folder: Path, path: str, bytes_: int, **fields: object) -> synthetic.Artifact:
    """A file that passes for a PNG of this size."""
    data = b"\x89PNG\r\n\x1a\n" + path.encode() + b"\0" * bytes_
    (folder / path).write_bytes(data)
    return synthetic.Artifact(path=path, sha256=digest(data), section="prototypes", **fields)  # type: ignore[arg-type]


def test_the_page_stays_small_enough_to_send(tmp_path: Path) -> None:
    pictures = [
        noise(tmp_path, f"{name}-{seed}.png", 300_000, scope={"class": name, "seed": str(seed)})
        for name in ("one", "two", "three", "four")
        for seed in range(6)
    ]
    found = bare(kind="vision", artifacts=tuple(pictures))
    html = render([(found, tmp_path, judge(found))], title="Large")
    page = Page(html)
    assert 7_000_000 < len(html) < 8_000_000
    assert len(page.all("img")) == 18
    # All that are in view come first, then one that is folded away of each class.
    for name, kept in (("one", 5), ("two", 5), ("three", 4), ("four", 4)):
        for seed in range(6):
            assert (f"300 kB, not embedded: {name}-{seed}.png" in page.words) == (seed >= kept)
    assert "6 pictures are not embedded" in page.words


def test_one_huge_picture_takes_no_room_from_the_others(tmp_path: Path) -> None:
    pictures = (noise(tmp_path, "huge.png", 5_000_000), noise(tmp_path, "small.png", 1000))
    found = bare(kind="vision", artifacts=pictures)
    page = Page(render([(found, tmp_path, judge(found))], title="Huge"))
    assert len(page.all("img")) == 1
    assert "5,000 kB, not embedded: huge.png" in page.words
    assert "1 picture is not embedded" in page.words


# -- A small model, all of whose classes were audited --------------------------------------------


@pytest.fixture(scope="module")
def small_html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("small")
    return render([synthetic.audited(folder, synthetic.small(folder))], title="Small")


def confusion_columns(html: str) -> list[str]:
    """The names above the first confusion table."""
    start = html.index('aria-label="Confusion of')
    head = html[start : html.index("</thead>", start)]
    return re.findall(r'<th scope="col"><span>(.*?)</span>', head)


def test_no_column_for_another_class_where_nothing_was_taken_for_one(small_html: str) -> None:
    assert confusion_columns(small_html) == list(synthetic.SMALL_CLASSES)


@pytest.mark.parametrize("change", ["seen", "incomplete rows", "classes unknown"])
def test_the_column_for_another_class_stays_where_something_may_be_in_it(tmp_path: Path, change: str) -> None:
    found = synthetic.small(tmp_path, others=0.004 if change == "seen" else 0.0)
    if change == "incomplete rows":
        one = synthetic.SMALL_CLASSES[0]
        kept = [m for m in found.measurements if not (m.scope.get("from") == m.scope.get("to") == one)]
        found = found.model_copy(update={"measurements": tuple(kept)})
    if change == "classes unknown":
        found = found.model_copy(update={"classes": ()})
    html = render([synthetic.audited(tmp_path, found)], title="Small")
    assert confusion_columns(html) == [*synthetic.SMALL_CLASSES, "another class"]
    assert html.count("→ another class: 0.004") == (3 if change == "seen" else 0)


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ("", "spoiled in the usual ways. Strong"),
        ("3", "spoiled in the usual ways at severity 3. Strong"),
        ("51", "spoiled in the usual ways at 2 severities (1 and 5). Strong"),
        ("0153", "spoiled in the usual ways at 3 severities (1, 3 and 5). Strong"),
        ("12345", "spoiled in the usual ways at 5 severities (1, 2, 3, 4 and 5). Strong"),
    ],
)
def test_the_severities_are_those_of_the_record(tmp_path: Path, severities: str, said: str) -> None:
    cells = tuple(
        Measurement(id="robustness.accuracy", scope={"corruption": "blur", "severity": one}, value=0.5, n=90)
        for one in severities
    )
    mean = Measurement(id="robustness.mean", value=0.5, n=90)
    found = bare(kind="vision", measurements=(*cells, mean))
    assert said in Page(render([(found, tmp_path, judge(found))], title="Severities")).words


def test_no_number_in_sight_has_an_exponent(small_html: str) -> None:
    page = Page(small_html)
    assert not re.search(r"\d[eE][+−-]\d", page.words)
    assert "6.1e-05" in page.data_values
    assert "-6.1e-05" in page.data_values
    cells = re.findall(r'<data value="(-?6.1e-05)" title="-?6.1e-05">(.*?)</data>', unescape(small_html))
    # In a heat map with its three digits; with the digits of a small number elsewhere.
    assert set(cells) == {
        ("6.1e-05", "<\xa00.001"), ("6.1e-05", "<\xa00.0001"),
        ("-6.1e-05", ">\xa0−0.001"), ("-6.1e-05", ">\xa0−0.0001"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"), (0.0, "0.000"), (-0.0, "0.000"), (9.9e-05, "<\xa00.0001"), (-1e-12, ">\xa0−0.0001"),
        (0.0001, "0.0001"), (0.00061, "0.0006"), (-0.5, "−0.500"), (12.34, "12.3"), (-1.2e6, "−1,200,000"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(value: float | None, words: str) -> None:
    assert figure(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0.9, "0.9"), (1e-05, "0.00001"), (-2.5e6, "−2500000"), (0.0, "0"), (100.0, "100")]
)
def test_bounds_and_ends_of_axes_have_no_exponent(value: float, words: str) -> None:
    assert bound_written(value) == end_of_axis(value) == words


def test_groups_of_one_picture_stand_side_by_side(small_html: str) -> None:
    groups = re.findall(r'<section class="(group[^"]*)" aria-label="isolated of ([^"]*)"', small_html)
    assert groups == [
        (f"group{' single' if images == 1 else ''}", name) for name, images in synthetic.SMALL_GROUPS.items()
    ]


def test_pictures_without_groups_are_one_block(own: synthetic.Audited) -> None:
    html = render([own], title="Own")
    assert re.findall(r'<section class="(group[^"]*)" aria-label="([^"]*)"', html) == [
        ("group", "isolated images")
    ]


LONG = "x" * 400  # a name without a place to break it


@pytest.fixture(scope="module")
def measured_by_a_browser(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, str], Any]:
    """What a script finds on the page laid out so many pixels wide."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no browser to lay the page out")

    def measure(html: str, width: int, script: str) -> Any:
        folder = tmp_path_factory.mktemp("browser")
        # A headless window is never narrower than 500 px; a frame is. The page's own policy allows no script.
        inside = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        (folder / "page.html").write_text(inside, encoding="utf-8")
        (folder / "frame.html").write_text(
            f'<iframe src="page.html" style="border:0;width:{width}px;height:900px" onload="'
            "document.title = JSON.stringify(contentWindow.eval(document.querySelector('script').text))"
            f'"></iframe><script type="text/plain">{script}</script>',
            encoding="utf-8",
        )
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars",
            "--window-size=1600,1000", "--virtual-time-budget=5000", "--dump-dom",
            (folder / "frame.html").as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        (title,) = re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
        return json.loads(unescape(title))

    return measure


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("subjects", [1, 3])
@pytest.mark.parametrize("more", [(LONG,), ("great white shark, man-eater", "snowmobile", LONG, "lorry")])
def test_names_break_only_where_they_would_not_fit(
    measured_by_a_browser: Callable[[str, int, str], Any],
    tmp_path: Path,
    width: int,
    subjects: int,
    more: tuple[str, ...],
) -> None:
    script = """({
        page: document.documentElement.scrollWidth,
        names: [...document.querySelectorAll('.heat th')].map(function (th) {
            var range = document.createRange(), turned = th.querySelector('span') && th.closest('.dense');
            range.selectNodeContents(th);
            var lines = new Set([...range.getClientRects()].map((r) => turned ? r.left : r.top));
            return [th.textContent, lines.size, turned ? th.offsetHeight : th.offsetWidth];
        }),
    })"""
    found = synthetic.small(tmp_path, classes=("no_tank", "tank", *more), others=0.02)
    records = [found.model_copy(update={"subject": f"model {number}"}) for number in range(subjects)]
    html = render([synthetic.audited(tmp_path, record) for record in records], title="Small")
    seen = measured_by_a_browser(html, width, script)
    assert seen["page"] == width
    short = [lines for name, lines, _ in seen["names"] if name in ("no_tank", "tank", "brightness")]
    # Confusion and entanglement name each class twice, robustness each corruption once.
    assert short == [1] * 9 * subjects
    long = [(lines, length) for name, lines, length in seen["names"] if name == LONG]
    assert len(long) == 4 * subjects
    assert all(lines > 5 and length <= 15 * 16 for lines, length in long)


@pytest.mark.parametrize(("width", "columns"), [(390, 1), (1280, 2)])
def test_small_groups_flow(
    measured_by_a_browser: Callable[[str, int, str], Any], small_html: str, width: int, columns: int
) -> None:
    script = """[...document.querySelectorAll('.group')].map(function (group) {
        var box = group.getBoundingClientRect();
        return [Math.round(box.left), Math.round(box.top), Math.round(box.width)];
    })"""
    snow, grass, *others = measured_by_a_browser(small_html, width, script)
    singles = [snow, *others]
    assert len({left for left, _, _ in singles}) == columns
    assert len({top for _, top, _ in singles}) == (2 if columns == 2 else 3)
    assert all(wide <= grass[2] / columns for _, _, wide in singles)


def test_nothing_to_report_is_an_error() -> None:
    with pytest.raises(NothingAudited):
        render([], title="None")


def test_write_html_leaves_one_whole_file(audit: list[synthetic.Audited], tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_html(audit, path, title="The tank audit") == path
    assert path.read_text(encoding="utf-8") == render(audit, title="The tank audit")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert "<title>Audit of tanks</title>" in write_html(audit, path).read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_page(
    audit: list[synthetic.Audited], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one", encoding="utf-8")
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    for writing in (lambda: write_html(audit, path), lambda: write_record(audit[0][0], tmp_path)):
        with pytest.raises(OSError, match="No space left"):
            writing()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == "the old one"


# -- What is not as it should be ------------------------------------------------------------------


def tabled(folder: Path, rows: pd.DataFrame) -> AuditRecord:
    """A record whose matrix of entanglement is this table, beside three classes' pairs."""
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    (folder / "matrix.parquet").write_bytes(buffer.getvalue())
    artifact = synthetic.Artifact(
        path="matrix.parquet",
        sha256=digest(buffer.getvalue()),
        section="entanglement",
        scope={"view": "matrix"},
    )  # fmt: skip
    pairs = [
        Measurement(id="entanglement.directed", scope={"from": a, "to": b}, value=0.25, n=3)
        for a in "abc" for b in "abc" if a != b
    ]  # fmt: skip
    return synthetic.small_record(pairs, classes=("a", "b", "c", "a"), artifacts=(artifact,))


def square(values: list[list[Any]], names: str = "abc") -> pd.DataFrame:
    table = pd.DataFrame(values, columns=[str(k) for k in range(len(values))])
    table.insert(0, "class", list(names))
    return table


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rows", "known", "problem"),
    [
        (square([[1.0, 0.5, 0.1], [0.2, 1.0, 0.3], [0.1, 0.1, 1.0]]), 9, ""),
        (square([[1.0, INF, 0.1], [-INF, 1.0, NAN], [0.1, 0.1, 1.0]]), 6, ""),
        (square([[1.0, 0.5, 0.1]] * 3, "aab"), 6, "not a matrix of as many classes as it names"),
        (square([[{"x": 1}, {"x": 2}, {"x": 3}]] * 3), 6, "not a matrix"),
        (pd.DataFrame({"class": ["a", "b"], "0": [1.0, 2.0]}), 6, "not a matrix of as many classes"),
        (pd.DataFrame({"0": [1.0]}), 6, "not a matrix"),
    ],
)
def test_a_matrix_that_is_none_leaves_the_pairs(
    rows: pd.DataFrame, known: int, problem: str, tmp_path: Path
) -> None:
    record = tabled(tmp_path, rows)
    found = heat_map([("model", record, tmp_path)])
    assert found is not None
    assert found["classes"] == ["a", "b", "c"]
    steps = np.frombuffer(base64.b64decode(found["subjects"][0]["steps"]), np.int8)
    assert int((steps != -128).sum()) == known
    page = Page(render([(record, tmp_path, judge(record))], title="Matrix"))
    assert problem in page.words
    assert ("shown are the pairs that the record holds" in page.words) == bool(problem)


def test_the_map_holds_what_the_table_holds(tmp_path: Path) -> None:
    values = [[1.0, -0.5, 0.125], [0.25, 1.0, 2.0], [0.0, 0.75, 1.0]]
    found = heat_map([("model", tabled(tmp_path, square(values)), tmp_path)])
    assert found is not None
    assert found["full"] == 2.0
    steps = np.frombuffer(base64.b64decode(found["subjects"][0]["steps"]), np.int8).reshape(3, 3)
    assert np.abs(steps / 127 * 2.0 - np.array(values)).max() <= 2.0 / 127 / 2
    assert sorted(found["alike"]) == [0, 1, 2]


def test_a_rule_on_a_change_has_an_axis_of_changes() -> None:
    old, new = (
        synthetic.small_record(
            [Measurement(id="accuracy.overall", value=value, low=value - 0.01, high=value + 0.01, n=900)]
        )
        for value in (0.8, 0.75)
    )
    rule = Rule(measurement="accuracy.overall", at_least=-0.03, against="baseline")
    absolute = Rule(measurement="accuracy.overall", at_least=0.5)
    new = new.model_copy(update={"policy": Policy(rules=(rule, absolute))})
    subjects = subjects_of([(new, Path(), judge(new, baseline=old))])
    by_rule = {row.rule.against: row for row in rule_rows(subjects)}
    change = by_rule["baseline"].cells[0]
    assert change is not None
    assert change.bar is not None
    assert change.outcome.status == "failed"
    assert change.bar.value < change.bar.bounds[0]
    (row,) = rows_of(subjects, starting("accuracy."))
    assert row.bounds == (0.5,)


def test_a_rule_for_every_class_draws_its_bound_on_each() -> None:
    found = synthetic.small_record(
        [Measurement(id="accuracy.class", scope={"class": name}, value=0.9, n=90) for name in "ab"],
        policy=Policy(rules=(Rule(measurement="accuracy.class", scope={"class": "*"}, at_least=0.7),)),
    )
    rows = rows_of(subjects_of([(found, Path(), judge(found))]), starting("accuracy."))
    assert [row.bounds for row in rows] == [(0.7,), (0.7,)]


def test_what_is_recorded_twice_says_so() -> None:
    found = synthetic.small_record(
        [Measurement(id="accuracy.overall", value=value, n=90) for value in (0.7, 0.9)]
    )
    words = Page(render([(found, Path(), judge(found))], title="Twice")).words
    assert "recorded more than once, the last is shown" in words


def test_a_value_that_holds_shows_the_end_that_does_not() -> None:
    found = synthetic.small_record(
        [Measurement(id="accuracy.overall", value=0.9, low=0.6, high=0.95, n=90)],
        policy=Policy(rules=(Rule(measurement="accuracy.overall", at_least=0.8),)),
    )
    assert "0.900 ≥ 0.8 low end 0.600" in Page(render([(found, Path(), judge(found))], title="End")).words


def test_a_test_is_told_in_words_and_loses_nothing() -> None:
    test = {
        "effect": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 40, "p": 0.003, "placebo": "X"},
        "placebos": {"own_class": 0.0, "another": {"value": 1.0, "low": None, "high": None}},
        "curve": [{"below": 0.05, "left": 0.5}, {"below": 0.25, "left": 0.75}],
        "interval": [0.1, 0.2], "significant": True, "empty": {}, "none": None,
    }  # fmt: skip
    assert told(test) == [
        ("effect", "0.250 [0.125 to 0.500], n = 40, p 0.003, placebo X"),
        ("placebos: own class", "0.000"),
        ("placebos: another", "1.000 [– to –]"),
        ("curve", "below 0.050, left 0.500; below 0.250, left 0.750"),
        ("interval", "0.100, 0.200"),
        ("significant", "yes"),
        ("empty", ""),
        ("none", "–"),
    ]
