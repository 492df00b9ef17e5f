"""Galleries: files that hold what was drawn, sheets on which nothing overlaps, folders whole or untouched."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from candling.errors import DataError, ParamsError, ServiceError
from candling.vision import gallery
from candling.vision.gallery import as_html, check_place, contact_sheet, write

HOSTILE = [
    "../x", "<script>alert('&')</script>", "", "long " * 4000, "שלום עולם", "\u202egnp.exe", "a\x00b",
    "\ud800", "con", "a/b\\c:d*e?", "éclair", "Éclair", "日本語", "\n\n\t", "W" * 300,
]  # fmt: skip
GAP, LEAD, NARROWEST, LINE = 12, 4, 96, 19  # of a sheet, in pixels


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- contact sheets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "side", "shown"),
    [
        (64, 64, None, (256, 256)),
        (224, 224, None, (224, 224)),
        (100, 30, None, (200, 60)),
        (512, 256, None, (256, 128)),
        (7, 5, 64, (63, 45)),
        (64, 64, 64, (64, 64)),
        (1, 1000, 64, (1, 64)),
    ],
)
def test_a_sheet_is_as_large_as_its_cells(
    height: int, width: int, side: int | None, shown: tuple[int, int]
) -> None:
    sheet = contact_sheet(noise(5, 3, height, width), ["a\nb"] + ["a"] * 4, columns=3, side=side)
    cell = max(shown[1], NARROWEST)
    assert sheet.mode == "RGB"
    assert sheet.size == (GAP + 3 * (cell + GAP), GAP + 2 * (shown[0] + LEAD + 2 * LINE + GAP))


def test_a_sheet_without_captions_keeps_no_room_for_them() -> None:
    assert contact_sheet(noise(4, 3, 256, 256), [""] * 4, columns=2).size == (12 + 2 * 268, 12 + 2 * 268)


def test_a_sheet_is_about_square_by_default_and_columns_are_no_more_than_pictures() -> None:
    for shape in ((30, 1, 20, 9), (30, 1, 9, 60), (100, 1, 32, 32)):
        wide, high = contact_sheet(noise(*shape), ["x"] * shape[0], side=64).size
        assert 0.6 < wide / high < 1.7
    assert contact_sheet(noise(2, 1, 100, 100), ["", ""], columns=9, side=100).size == (236, 124)


def test_pictures_of_large_sheets_get_smaller() -> None:
    def side(count: int) -> int:
        wide, _ = contact_sheet(torch.zeros(count, 1, 64, 64).byte(), [""] * count, columns=1).size
        return wide - 2 * GAP

    assert (side(256), side(257)) == (256, 128)


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    image = noise(2, 3, 50, 40)
    sheet = pixels(contact_sheet(image, ["a", "b"], columns=2, side=170))  # 3 times: 150 x 120
    for row in range(2):
        left = GAP + row * (120 + GAP)
        found = sheet[GAP : GAP + 150, left : left + 120]
        want = image[row].permute(1, 2, 0).numpy().repeat(3, axis=0).repeat(3, axis=1)
        assert np.array_equal(found, want)


def test_captions_stay_in_their_cells() -> None:
    count = len(HOSTILE)
    sheet = pixels(
        contact_sheet(torch.full((count, 1, 64, 64), 255).byte(), HOSTILE, columns=4, side=64)
    )  # white pictures: all ink is captions
    ink = (sheet < 200).any(axis=2)
    cells = np.zeros_like(ink)
    lines = 1  # no name has two lines
    for index in range(count):
        top = GAP + index // 4 * (64 + LEAD + lines * LINE + GAP) + 64 + LEAD
        left = GAP + index % 4 * (NARROWEST + GAP)
        cells[top : top + lines * LINE, left : left + NARROWEST] = True
        drawn = ink[top : top + LINE, left : left + NARROWEST].any()
        assert drawn == bool(HOSTILE[index].strip("\n\t \ud800"))
    assert not (ink & ~cells).any()


@pytest.mark.parametrize("text", [*HOSTILE, "African elephant, Loxodonta africana", "AVAVAV" * 20, "i" * 200])
@pytest.mark.parametrize("width", [3, 20, 96, 256])
def test_captions_are_shortened_by_measure(text: str, width: int) -> None:
    font = gallery._font()
    lines = ["".join(map(gallery._drawable, line)) for line in gallery._lines(text)]
    for line in lines:
        short, wide = gallery._shortened(line, width)
        assert font.getlength(short) <= wide <= width
        if short.endswith("…") and not line.endswith("…"):
            kept = short[:-1]
            assert line.startswith(kept)
            # Nothing would be gained by less: the next two letters do not fit.
            assert font.getlength(line[: len(kept) + 2].rstrip() + "…") > width - 1
        else:
            assert short in ("", line)
            assert short or width < font.getlength("…") + 1


def test_short_captions_stay_whole_and_accents_are_left_out() -> None:
    assert gallery._shortened("zebra", 96)[0] == "zebra"
    assert gallery._shortened("Éclair au café \u2212 0.5", 256)[0] == "Eclair au cafe - 0.5"
    assert gallery._lines("one\n\ntwo\nthree") == ["one", "two three"]


@pytest.mark.parametrize(
    ("planes", "want"),
    [
        (1, lambda p: [p[0]] * 3),
        (3, lambda p: p[:3]),
        (5, lambda p: p[:3]),
        (13, lambda p: p[:3]),
    ],
)
def test_any_number_of_planes_is_shown(planes: int, want) -> None:  # type: ignore[no-untyped-def]
    image = noise(1, planes, 100, 100)
    sheet = pixels(contact_sheet(image, [""], side=100))
    assert np.array_equal(sheet[12:112, 12:112], np.stack(list(want(image[0].numpy())), axis=-1))


@pytest.mark.parametrize("planes", [2, 4])
def test_what_is_transparent_lies_over_a_light_checkerboard(planes: int) -> None:
    image = torch.zeros(1, planes, 96, 96)
    image[:, -1, :, 48:] = 1  # the right half is opaque black
    image[:, -1, 48:, 40:48] = 0.5
    found = pixels(contact_sheet(image, [""], side=96))[12:108, 12:108]
    assert (found[:, 48:] == 0).all()
    assert {tuple(c) for c in found[:48, :40].reshape(-1, 3)} == {(255, 255, 255), (228, 228, 228)}
    assert (found[0, 0] != found[0, 8]).all()
    assert (found[0, 0] != found[8, 0]).all()
    assert (found[0, 0] == found[8, 8]).all()
    assert {int(v) for v in found[48:, 40:48, 0].ravel()} <= {127, 128, 113, 114}


def test_floats_are_the_same_as_their_bytes() -> None:
    image = noise(2, 3, 20, 30)
    want = pixels(contact_sheet(image, ["a", "b"]))
    for given in (image.float() / 255, (image.double() / 255).requires_grad_()):
        assert np.array_equal(pixels(contact_sheet(given, ["a", "b"])), want)
    grey = torch.full((1, 1, 100, 100), 0.5, dtype=torch.bfloat16)
    assert (pixels(contact_sheet(grey, [""], side=100))[12:112, 12:112] == 128).all()


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(3, 8, 8), r"shape \(R, C, H, W\)"),
        (torch.zeros(1, 3, 0, 8), r"shape \(R, C, H, W\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "uint8 or float"),
        (torch.full((1, 3, 8, 8), 1.5), r"from 1.5 to 1.5"),
        (torch.full((1, 3, 8, 8), -0.1), r"in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
    ],
)
def test_pictures_that_are_none_are_refused(images: Tensor, says: str, tmp_path: Path) -> None:
    captions = ["x"] * len(images)
    for show in (contact_sheet, as_html):
        with pytest.raises(DataError, match=says):
            show(images, captions)
    with pytest.raises(DataError, match=says):
        write(tmp_path / "out", images, pd.DataFrame({"class": captions}), name="prototypes")
    assert not listing(tmp_path)


def test_a_sheet_needs_pictures_and_as_many_captions() -> None:
    with pytest.raises(DataError, match="there is none"):
        contact_sheet(noise(0, 3, 8, 8), [])
    with pytest.raises(ParamsError, match="2 pictures need as many captions"):
        contact_sheet(noise(2, 3, 8, 8), ["a"])
    with pytest.raises(ParamsError, match="columns .* is 0"):
        contact_sheet(noise(2, 3, 8, 8), ["a", "b"], columns=0)
    with pytest.raises(ParamsError, match="side .* is -1"):
        contact_sheet(noise(2, 3, 8, 8), ["a", "b"], side=-1)


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("planes", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA"), (7, "RGB")])
def test_files_hold_the_pictures_bit_by_bit(planes: int, mode: str, tmp_path: Path) -> None:
    images = noise(3, planes, 9, 14)
    table = pd.DataFrame(
        {"class": ["zebra", "School bus", "zebra"], "seed": [0, 0, 1], "trust": [0.5, 1, 0.25]}
    )
    given = table.copy()
    write(tmp_path / "deep" / "out", images, table, name="prototypes")
    pd.testing.assert_frame_equal(table, given)

    back = pd.read_parquet(tmp_path / "deep" / "out" / "prototypes.parquet")
    pd.testing.assert_frame_equal(back.drop(columns="file"), table)
    assert list(back.file) == ["0000-zebra.png", "0001-school-bus.png", "0002-zebra.png"]
    for row, file in enumerate(back.file):
        with Image.open(tmp_path / "deep" / "out" / file) as image:
            assert image.mode == mode
            kept = images[row] if planes <= 4 else images[row, :3]
            found = pixels(image)
        assert np.array_equal(found if planes > 1 else found[..., None], kept.permute(1, 2, 0).numpy())
    with Image.open(tmp_path / "deep" / "out" / "prototypes.png") as sheet:
        want = contact_sheet(images, ["zebra\nseed 0", "School bus\nseed 0", "zebra\nseed 1"])
        assert np.array_equal(pixels(sheet), pixels(want))
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {"out"}


def test_any_class_name_gives_a_file_of_its_own_inside_the_folder(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name != "\ud800"]  # Parquet knows no half of a pair; see below
    write(tmp_path / "out", noise(len(names), 1, 4, 4), pd.DataFrame({"class": names}), name="p")
    back = pd.read_parquet(tmp_path / "out" / "p.parquet")
    assert list(back["class"]) == names
    assert set(listing(tmp_path)) == {f"out/{file}" for file in [*back.file, "p.parquet", "p.png"]}
    assert all(re.fullmatch(r"\d{4}(-[a-z0-9]+)*\.png", file) for file in back.file)
    assert len({file.lower() for file in back.file}) == len(names)
    assert max(map(len, back.file)) <= 60
    assert back.file[0] == "0000-x.png"
    assert back.file[names.index("éclair")].endswith("-eclair.png")


def test_captions_come_from_their_own_column_where_there_is_one(tmp_path: Path) -> None:
    table = pd.DataFrame({"layer": ["a", "b"], "channel": [1, 2], "caption": ["b[1]\nbest", "b[2]\nbest"]})
    images = noise(2, 3, 8, 8)
    write(tmp_path / "out", images, table, name="channels")
    with Image.open(tmp_path / "out" / "channels.png") as sheet:
        assert np.array_equal(pixels(sheet), pixels(contact_sheet(images, list(table["caption"]))))
    assert (tmp_path / "out" / "0001-b-2.png").is_file()


def test_a_later_result_replaces_an_earlier_one_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # empty is as good as new
    write(out, noise(3, 3, 8, 8), pd.DataFrame({"class": list("abc")}), name="prototypes")
    write(out, noise(1, 3, 8, 8), pd.DataFrame({"class": ["d"], "file": ["old"]}), name="prototypes")
    assert set(listing(tmp_path)) == {"out/0000-d.png", "out/prototypes.parquet", "out/prototypes.png"}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("other", ["notes.txt", "9999-mine.png", "sub/x.png", ".hidden"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_folder_with_other_things_is_refused(other: str, earlier: bool, tmp_path: Path) -> None:
    table = pd.DataFrame({"class": ["a"]})
    if earlier:
        write(tmp_path / "out", noise(1, 3, 8, 8), table, name="prototypes")
    (tmp_path / "out" / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / other).write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(ParamsError, match=re.escape(other.split("/")[0])):
        write(tmp_path / "out", noise(1, 3, 8, 8, seed=1), table, name="prototypes")
    assert listing(tmp_path) == before


def test_results_of_others_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"class": ["a"]})
    write(tmp_path / "out", noise(1, 3, 8, 8), table, name="channels")
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "prototypes.parquet")  # says nothing of files
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "prototypes.parquet").write_text("no table")
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    for folder in ("out", "data", "broken", "file"):
        with pytest.raises(ParamsError, match=f"{folder}: "):
            write(tmp_path / folder, noise(1, 3, 8, 8), table, name="prototypes")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("moment", ["picture", "table", "last rename"])
def test_an_interrupted_write_leaves_what_was_there(
    error: BaseException | type[BaseException],
    earlier: bool,
    moment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pd.DataFrame({"class": list("abcd")})
    if earlier:
        write(tmp_path / "out", noise(4, 3, 8, 8), table, name="prototypes")
    before = listing(tmp_path)
    calls = []
    save, replace = Image.Image.save, os.replace

    def saves(self: Image.Image, *arguments: object, **options: object) -> None:
        calls.append(moment)
        if len(calls) == 3:
            raise error
        save(self, *arguments, **options)  # type: ignore[arg-type]

    def replaces(source: Path, target: Path) -> None:
        if target == tmp_path / "out" and not calls:
            calls.append(moment)
            raise error
        replace(source, target)

    def tables(*_: object, **__: object) -> None:
        calls.append(moment)
        raise error

    with monkeypatch.context() as patch:
        if moment == "picture":
            patch.setattr(Image.Image, "save", saves)
        elif moment == "table":
            patch.setattr(pd.DataFrame, "to_parquet", tables)
        else:
            patch.setattr(os, "replace", replaces)
        with pytest.raises(ServiceError if isinstance(error, OSError) else error):
            write(tmp_path / "out", noise(4, 3, 8, 8, seed=1), table, name="prototypes")
    assert calls
    assert listing(tmp_path) == before
    assert os.listdir(tmp_path) == (["out"] if earlier else [])


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    images = noise(2, 3, 8, 8)
    for table, says in (
        (pd.DataFrame({"class": ["a"]}), "2 pictures need as many captions or rows of a table, not 1"),
        (pd.DataFrame({"class": ["a", "\ud800"]}, dtype=object), "cannot be saved as Parquet"),
        (pd.DataFrame({"class": ["a", "b"], "x": [1, "one"]}), "cannot be saved as Parquet"),
    ):
        with pytest.raises(ParamsError, match=says):
            write(tmp_path / "out", images, table, name="prototypes")
    for name in ("", "../p", "0000-a", "a b", "p\n", ".p"):
        with pytest.raises(ParamsError, match="cannot name files"):
            write(tmp_path / "out", images, pd.DataFrame({"class": ["a", "b"]}), name=name)
    assert os.listdir(tmp_path) == []


def test_captions_in_place_of_columns(tmp_path: Path) -> None:
    images, table = noise(2, 3, 8, 8), pd.DataFrame({"class": [1, 2]})
    write(tmp_path / "out", images, table, name="prototypes", captions=["Zebra 1\nseed 0", "no"])
    saved = pd.read_parquet(tmp_path / "out" / "prototypes.parquet")
    assert list(saved) == ["class", "file"]
    assert saved["file"].tolist() == ["0000-zebra-1.png", "0001-no.png"]
    with pytest.raises(ParamsError, match="2 pictures need as many rows of a table, not 1"):
        write(tmp_path / "new", images, table[:1], name="prototypes", captions=["a", "b"])
    assert os.listdir(tmp_path) == ["out"]


def test_a_place_is_seen_to_before_there_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "new" / "folder", "prototypes")
    assert os.listdir(tmp_path) == []
    write(tmp_path / "out", noise(1, 3, 8, 8), pd.DataFrame({"class": ["a"]}), name="prototypes")
    check_place(tmp_path / "out", "prototypes")
    with pytest.raises(ParamsError, match="no part of an earlier visualizations"):
        check_place(tmp_path / "out", "visualizations")
    with pytest.raises(ServiceError, match=r"prototypes.png gives no access"):
        check_place(tmp_path / "out" / "prototypes.png" / "x", "prototypes")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ServiceError, match="cannot be written"):
        check_place(tmp_path / "new", "prototypes")


# --- notebooks ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, captions and pictures of a page, and whether all that opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_shows_each_picture_with_its_caption_whatever_it_says() -> None:
    images = noise(len(HOSTILE), 3, 224, 224)
    text = as_html(images, HOSTILE)
    text.encode()
    page = Page(text)
    assert set(page.tags) == {"div", "figure", "img", "figcaption"}
    assert page.tags.count("figure") == page.tags.count("img") == len(HOSTILE)
    assert page.text[:2] == ["../x", "<script>alert('&')</script>"]
    assert "שלום עולם" in page.text
    assert page.images[1]["alt"] == "<script>alert('&')</script>"
    assert max(map(len, page.text)) <= 300
    for row, image in enumerate(page.images):
        assert set(image) == {"src", "alt", "width", "height", "style"}
        head, _, data = str(image["src"]).partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as shown:
            assert np.array_equal(pixels(shown), images[row].permute(1, 2, 0).numpy())


def test_a_quote_in_a_caption_does_not_end_its_attribute() -> None:
    page = Page(as_html(noise(1, 1, 8, 8), ['" onerror="alert(1)']))
    assert set(page.images[0]) == {"src", "alt", "width", "height", "style"}


def test_html_takes_its_colours_from_the_notebook() -> None:
    text = re.sub(r"base64,[^\"]*", "", as_html(noise(2, 4, 8, 8), ["a", "b"]))
    assert "color" not in text
    assert "background" not in text


@pytest.mark.parametrize(
    ("count", "shown", "more"), [(0, 0, "no pictures"), (60, 60, ""), (67, 60, "7 more")]
)
def test_html_shows_sixty_pictures_at_most(count: int, shown: int, more: str) -> None:
    page = Page(as_html(noise(count, 1, 4, 4), [""] * count))
    assert len(page.images) == shown
    assert "".join(page.text) == more


def test_files_may_have_names_of_their_own(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    table = pd.DataFrame({"caption": ["a", "b"]})
    for _ in range(2):  # an earlier result is replaced
        write(tmp_path / "out", images, table, name="pair", files=["before.png", "after.png"])
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "before.png", "after.png", "pair.png", "pair.parquet"
    }  # fmt: skip
    assert pd.read_parquet(tmp_path / "out" / "pair.parquet")["file"].tolist() == ["before.png", "after.png"]
