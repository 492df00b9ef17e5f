"""The report in a real Chromium: what a person can do with it, and what it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from candling.audit.comparison import compare
from candling.audit.gate import judge
from candling.audit.record import AuditRecord, read_record, write_record
from candling.report.html import write_html
from tests.report import synthetic_audit as synthetic
from tests.report import test_formats as formats
from tests.report.browser import browser, examine, needs_chromium, opened
from tests.report.thousand import CLASSES, TWINS, thousand

pytestmark = needs_chromium

REPORTS = Path(__file__).resolve().parents[2] / "reports"
AUDITS = ("tanks", "words", "imagenet-mobilenet")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def tanks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tanks")
    return write_html(synthetic.tank_audit(root), root / "report.html")


def page_of(record: AuditRecord, root: Path) -> Path:
    write_record(record, root / "model")
    return write_html([(record, root / "model", judge(record))], root / "report.html")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("thousand")
    return page_of(thousand(root / "model"), root)


@pytest.fixture(scope="module")
def of_large(chromium: Any, large: Path) -> Iterator[Any]:
    """One page of a thousand classes that the tests below go on with; each begins where it wants."""
    with opened(chromium, large) as one:
        yield one.page
        one.quiet(large)


def told(page: Any) -> str:
    return str(page.locator(".map-read").inner_text())


def pairs(page: Any) -> list[list[str]]:
    rows = page.locator(".map-side tbody tr")
    return [row.locator("td").all_inner_texts() for row in rows.all()[:20]]


# -- A thousand classes, whose page takes a while to write ------------------------------------------


@pytest.mark.slow
def test_a_page_of_a_thousand_classes_can_be_sent(large: Path) -> None:
    assert large.stat().st_size < 12_000_000
    text = large.read_text(encoding="utf-8")
    # A thumbnail of each, which leads to the picture beside the page.
    assert text.count("data:image/webp;base64,") == 3 * len(CLASSES)
    assert 'href="./model/pictures/prototypes/0-0.png"' in text


@pytest.mark.slow
def test_three_subjects_of_a_thousand_classes_can_be_sent(large: Path) -> None:
    record = read_record(large.parent / "model")
    three = [record.model_copy(update={"subject": name}) for name in ("before", "control", "after")]
    audited = [(one, large.parent / "model", judge(one)) for one in three]
    file = write_html(audited, large.parent / "three.html")
    assert file.stat().st_size < 17_000_000
    text = file.read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") > 0.98 * 9 * len(CLASSES)


@pytest.mark.slow
def test_a_thumbnail_leads_to_its_picture(chromium: Any, large: Path) -> None:
    with opened(chromium, large) as one:
        one.page.locator("#prototypes .gallery a").first.click()
        one.page.wait_for_url("**/model/pictures/prototypes/0-0.png")
        assert one.page.evaluate("document.images[0].naturalWidth") == 96


@pytest.mark.slow
def test_the_map_begins_at_the_strongest_pair(of_large: Any) -> None:
    assert all(name in told(of_large) for name in (*TWINS, "0.900", "95% interval 0.800 to 1.000, n = 3"))
    assert of_large.locator(".map-read img").count() == 2
    assert sorted(pairs(of_large)[0][:2]) == sorted(TWINS)


@pytest.mark.slow
def test_the_map_is_searched(of_large: Any) -> None:
    search = of_large.locator("#heatmap input[type=search]")
    search.fill(TWINS[1])
    assert told(of_large).startswith(f"{TWINS[1]} → {TWINS[0]}: 0.900")
    assert all(TWINS[1] in row[:2] for row in pairs(of_large))
    assert "1 of 1000 classes" in of_large.locator("#heatmap .count").inner_text()
    search.fill("van 00")
    assert "10 of 1000 classes" in of_large.locator("#heatmap .count").inner_text()
    search.fill("no class is called so")
    assert pairs(of_large) == []
    search.fill("")
    assert len(pairs(of_large)) == 20


@pytest.mark.slow
def test_the_map_is_walked_with_the_keys(of_large: Any) -> None:
    of_large.locator("#heatmap select").select_option("model")
    canvas = of_large.locator("#heatmap canvas")
    canvas.focus()
    for key in ("Home", "PageUp", "ArrowDown", "ArrowRight", "Shift+ArrowRight"):
        canvas.press(key)
    assert told(of_large).startswith(f"{CLASSES[1]} → {CLASSES[11]}: ")
    canvas.press("End")
    assert told(of_large).startswith(f"{CLASSES[1]} → {CLASSES[-1]}: ")
    wider = of_large.get_by_role("button", name="Zoom out")
    assert wider.is_disabled()
    for _ in range(7):
        canvas.press("+")
    assert wider.is_enabled()
    # What is pointed at stays in view: the last column is the right edge.
    box = canvas.bounding_box()
    canvas.hover(position={"x": box["width"] - 4, "y": box["height"] * 0.5})
    assert f"→ {CLASSES[-1]}: " in told(of_large)
    canvas.press("0")
    assert wider.is_disabled()


@pytest.mark.slow
def test_the_map_tells_what_is_hovered_and_zooms_where_it_is_clicked_twice(of_large: Any) -> None:
    of_large.locator("#heatmap select").select_option("model")
    canvas = of_large.locator("#heatmap canvas")
    canvas.press("0")
    box = canvas.bounding_box()
    at = {"x": box["width"] * 0.25, "y": box["height"] * 0.75}
    canvas.hover(position=at)
    first, second = told(of_large).split(":")[0].split(" → ")
    assert abs(CLASSES.index(first) - 750) <= 2
    assert abs(CLASSES.index(second) - 250) <= 2
    canvas.dblclick(position=at)
    assert of_large.get_by_role("button", name="Whole map").is_enabled()
    canvas.hover(position=at)
    first, second = told(of_large).split(":")[0].split(" → ")
    assert abs(CLASSES.index(first) - 750) <= 4
    of_large.get_by_role("button", name="Whole map").click()


@pytest.mark.slow
def test_the_map_is_put_in_order(of_large: Any) -> None:
    canvas = of_large.locator("#heatmap canvas")
    for order, first in (("model", CLASSES[0]), ("name", sorted(CLASSES)[0]), ("strong", TWINS[1])):
        of_large.locator("#heatmap select").select_option(order)
        canvas.press("Home")
        canvas.press("PageUp")
        expected = TWINS if order == "strong" else (first,)
        assert any(told(of_large).startswith(f"{name}, itself") for name in expected), order


@pytest.mark.slow
def test_pairs_are_sorted_and_lead_into_the_map(of_large: Any) -> None:
    of_large.locator("#heatmap input[type=search]").fill("")
    head = of_large.locator(".map-side th").nth(3)
    head.locator("button").click()
    back = [float(row[3].replace("≈", "").replace("−", "-")) for row in pairs(of_large)]
    assert head.get_attribute("aria-sort") == "descending"
    assert back == sorted(back, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    row = pairs(of_large)[3]
    of_large.locator(".map-side tbody tr").nth(3).locator("button").press("Enter")
    assert told(of_large).startswith(f"{row[0]} → {row[1]}: {row[2]}")


@pytest.mark.slow
def test_prototypes_are_filtered_by_class_and_by_trust(of_large: Any) -> None:
    tools = of_large.get_by_role("group", name="Prototypes: search")
    shown = of_large.locator("#prototypes .gallery:visible")
    assert shown.count() == 48
    of_large.get_by_role("button", name="Show 48 more").click()
    assert shown.count() == 96
    tools.locator("input[type=search]").fill("dog 01")
    assert {name.split()[-2] for name in shown.locator("h3").all_inner_texts()} == {"dog"}
    assert shown.count() == 10
    tools.locator("select").select_option("most")
    trust = [float(one.get_attribute("data-trust")) for one in shown.all()]
    assert trust == sorted(trust, reverse=True)
    slider = tools.locator("input[type=range]")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowRight")
    kept = [float(one.get_attribute("data-trust")) for one in shown.all()]
    assert kept == [value for value in trust if value >= 0.5] != trust
    assert f"{len(kept)} of 1000 classes" in tools.locator(".count").inner_text()
    tools.locator("input[type=search]").fill("")
    slider.fill("0")


@pytest.mark.slow
def test_a_long_table_is_searched_and_sorted(of_large: Any) -> None:
    table = of_large.locator("#prototypes .table")
    rows = table.locator("tbody tr")
    assert rows.count() == 50
    table.locator("input[type=search]").fill("dog 017 trust")
    assert rows.count() == 1
    assert "dog 017" in rows.first.inner_text()
    table.locator("input[type=search]").fill("trust dish")
    table.locator("thead button").nth(1).click()
    values = [float(one.get_attribute("value")) for one in rows.locator("strong data").all()]
    assert len(values) == 50
    assert values == sorted(values, reverse=True)
    assert "200 found" in table.locator(".count").inner_text()
    table.locator("button", has_text="Show 50 more").click()
    assert rows.count() == 100


# -- The tank audit ---------------------------------------------------------------------------------


def test_an_image_is_wiped_and_faded_from_subject_to_subject(chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks) as one:
        panel = one.page.locator(".comparison")
        wipe, along = panel.locator("input[type=range]").all()
        wipe.focus()
        wipe.press("Home")
        assert "inset(0px 0px 0px 100%)" in panel.locator(".stage img").nth(1).evaluate(
            "x => x.style.clipPath"
        )
        wipe.press("End")
        assert "0%)" in panel.locator(".stage img").nth(1).evaluate("x => x.style.clipPath")
        before = panel.locator(".told").inner_text()
        assert "0.057" in before
        along.focus()
        assert along.get_attribute("aria-valuetext") == "before"
        along.press("End")
        assert along.get_attribute("aria-valuetext") == "after"
        assert "0.612" in panel.locator(".told").inner_text()
        for _ in range(10):  # half a subject back: both are seen
            along.press("ArrowLeft")
        assert 0 < float(panel.locator(".stage img").nth(2).evaluate("x => x.style.opacity")) < 1
        first = panel.locator("h3").inner_text()
        panel.get_by_role("button", name="Next image").click()
        assert panel.locator("h3").inner_text() != first
        box = panel.locator(".stage").bounding_box()
        one.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 20)
        assert wipe.input_value() == "75"
        look = one.page.get_by_role("button", name="Look closer at image eval-tank-snow-000")
        look.click()
        assert panel.locator("h3").inner_text() == "Image eval-tank-snow-000"
        assert one.page.evaluate("document.activeElement.type") == "range"
        one.quiet(tanks)


def test_the_theme_is_switched_and_remembered_where_it_can_be(chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks, scheme="dark") as one:
        dark = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
        one.page.get_by_role("button", name="Switch to the light theme").press("Enter")
        light = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light
        one.page.reload()
        assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_everything_is_reached_by_keyboard_alone(chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks) as one:
        one.page.keyboard.press("Tab")
        assert one.page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(150):
            one.page.keyboard.press("Tab")
            reached.add(
                one.page.evaluate(
                    "document.activeElement.tagName + ' ' + (document.activeElement.type || '')"
                )
            )
        assert {"A ", "BUTTON button", "INPUT range", "INPUT search", "SUMMARY "} <= reached


def test_print_shows_what_is_folded_away(chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks) as one:
        assert one.page.locator("details:not([open])").count() > 0
        one.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        one.page.emulate_media(media="print")
        assert one.page.locator("details:not([open])").count() == 0
        assert not one.page.locator(".tools input").first.is_visible()
        assert one.page.locator(".tools .count").first.is_visible()
        assert one.page.pdf()[:4] == b"%PDF"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_is_light(scheme: Any, chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks, scheme=scheme) as one:
        if scheme == "light":
            one.page.get_by_role("button", name="Switch to the dark theme").click()
        one.page.emulate_media(media="print")
        assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 247, 241)"


def test_an_image_is_wiped_by_dragging(chromium: Any, tanks: Path) -> None:
    with opened(chromium, tanks) as one:
        stage = one.page.locator(".comparison .stage")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        y = box["y"] + box["height"] / 2
        one.page.mouse.move(box["x"] + box["width"] * 0.2, y)
        one.page.mouse.down()
        for share in (0.3, 0.5, 0.7, 0.8):
            one.page.mouse.move(box["x"] + box["width"] * share, y)
        one.page.mouse.up()
        assert one.page.locator(".comparison input[type=range]").first.input_value() == "20"


def entangled(values: dict[tuple[str, str], float], unsure: str = "") -> AuditRecord:
    """A record of pairs; those from `unsure` are inconclusive."""
    return synthetic.small_record(
        synthetic.Measurement(
            id="entanglement.directed", scope={"from": a, "to": b}, value=value, n=3,
            status="inconclusive" if a == unsure else "ok",
        )
        for (a, b), value in values.items()
    )  # fmt: skip


def test_the_strongest_pair_comes_first_whatever_the_others(chromium: Any, tmp_path: Path) -> None:
    names = [f"c{number:03d}" for number in range(60)]
    values = {(a, b): 0.3 for a in names for b in names if a != b} | {("c058", "c059"): 5.0}
    file = page_of(entangled(values), tmp_path)
    with opened(chromium, file) as one:
        assert told(one.page).startswith("c058 → c059: 5.000")
        assert pairs(one.page)[0] == ["c058", "c059", "5.000", "0.300"]
        one.page.get_by_role("button", name="Show 25 more").click()
        assert one.page.locator(".map-side tbody tr").count() == 50


def test_a_zoomed_map_stays_under_the_pointer_to_its_last_cell(chromium: Any, tmp_path: Path) -> None:
    names = [f"c{number:02d}" for number in range(10)]
    values = {(a, b): 0.1 for a in names for b in names if a != b}
    with opened(chromium, page_of(entangled(values), tmp_path), width=1018) as one:
        one.page.locator("#heatmap select").select_option("model")
        canvas = one.page.locator("#heatmap canvas")
        canvas.evaluate("x => x.scrollIntoView({block: 'center'})")
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] - 1.5, box["y"] + box["height"] - 1.5
        one.page.mouse.move(x, y)
        assert told(one.page).startswith("c09, itself")
        one.page.mouse.dblclick(x, y)
        one.page.mouse.move(x - 1, y)
        assert told(one.page).startswith("c09, itself")
        # The last fraction of a point along the edge, again and again.
        for nudge in range(4):
            one.page.mouse.move(box["x"] + box["width"] - 0.1, y - 20 - nudge)
            assert "→ c09: " in told(one.page) or "c09, itself" in told(one.page)


def test_a_pair_that_tells_too_little_is_marked(chromium: Any, tmp_path: Path) -> None:
    names = ("a", "b", "c")
    values = {(a, b): 0.5 if a == "a" else 0.1 for a in names for b in names if a != b}
    with opened(chromium, page_of(entangled(values, unsure="a"), tmp_path)) as one:
        assert told(one.page).startswith("a → b: 0.500 ?")
        assert "inconclusive" in told(one.page)


def test_without_scripts_the_page_tells_the_same(chromium: Any, tanks: Path) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(tanks.as_uri())
    assert page.locator("#prototypes .gallery:visible").count() == 2
    assert page.locator(".card:visible").count() == 3
    context.close()


# -- All of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    ["tanks", "difference", "errored", "own", "hostile", pytest.param("large", marks=pytest.mark.slow)],
)
def test_nothing_keeps_people_out(
    made: str, chromium: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if made in ("tanks", "large"):
        file = request.getfixturevalue(made)
    elif made == "difference":
        before, _, after = synthetic.tank_audit(tmp_path)
        found = compare(before[0], after[0])
        file = write_html([before, after], tmp_path / "report.html", comparison=found)
        assert '<span class="badge is-passed">fixed</span>' in file.read_text(encoding="utf-8")
    elif made == "own":
        file = write_html([synthetic.audited(tmp_path, synthetic.own(tmp_path))], tmp_path / "report.html")
    else:
        file = write_html([getattr(synthetic, made)(tmp_path)], tmp_path / "report.html")
    examine(chromium, file, tmp_path / "looks", made)


@pytest.mark.parametrize("case", formats.HOSTILE)
def test_no_name_acts_in_the_page(case: str, chromium: Any, tmp_path: Path) -> None:
    name = formats.HOSTILE[case]
    made = formats.hostile(name)
    picture = synthetic.artifact(
        tmp_path / "model", "a.png", synthetic.scene("snow", 1, tank=True), section="prototypes",
        scope={"class": name, "seed": name}, caption=name, values={"trust": 0.5},
    )  # fmt: skip
    nowhere = synthetic.Artifact(
        path=name, sha256="0" * 64, section="isolation", scope={"image": name, "class": name, "group": name}
    )
    others = ["one", "two", name]
    pair = [
        synthetic.Measurement(
            id="entanglement.directed", scope={"from": a, "to": b}, value=0.5, n=3, note=name
        )
        for a in others for b in others if a != b
    ]  # fmt: skip
    made = made.model_copy(
        update={
            "artifacts": (picture, nowhere),
            "measurements": (*made.measurements, *pair),
            "classes": tuple(others),
        }
    )
    file = write_html([(made, tmp_path / "model", judge(made))], tmp_path / "report.html", title=name)
    text = file.read_text(encoding="utf-8")
    assert not any(letter in text for letter in formats.ACTING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.html"]
    with opened(chromium, file) as one:
        page = one.page
        assert (
            page.evaluate("document.querySelectorAll('main script:not([type]), iframe, form, base').length")
            == 0
        )
        assert (
            page.evaluate(
                "[...document.querySelectorAll('*')].filter(x => x.onmouseover || x.onerror).length"
            )
            == 0
        )
        page.locator("#heatmap input[type=search]").fill(name[:40].split("\n")[0])
        for row in page.locator(".map-side tbody tr").all()[:3]:
            row.locator("button").click()
        page.locator("#heatmap canvas").press("+")
        one.quiet(file)


@pytest.mark.slow
@pytest.mark.parametrize("audit", AUDITS)
def test_the_page_of_a_real_audit(audit: str, chromium: Any, tmp_path: Path) -> None:
    file = REPORTS / audit / "report.html"
    if not file.is_file():
        pytest.skip(f"{audit} has not been audited here")
    taken = examine(chromium, file, tmp_path, audit)
    assert {f"{audit}-{look}.png" for look in ("light", "dark", "narrow", "print")} <= {
        shot.name for shot in taken
    }
