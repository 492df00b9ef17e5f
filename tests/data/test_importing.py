"""What becomes of pictures on their way into the folder form, and what is said of it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from candling.data import (
    DataSource,
    ImportReport,
    Sample,
    Samples,
    Unreadable,
    import_pictures,
    read_source,
    read_split,
)
from candling.errors import CandlingError, DataError

CLASSES = ("ant", "bee", "cow")
ASSETS = Path(os.environ.get("CANDLING_ASSETS", Path(__file__).resolve().parents[3] / "shared" / "assets"))


def png(value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(row: int, label: str | int | None = "ant", content: Any = None, **more: Any) -> Sample:
    return Sample(f"in/p {row}.jpg", content or (lambda: png(row)), label, **more)


def unreadable() -> bytes:
    raise Unreadable("the file is not there")


def with_clean(row: int, clean: Callable[[], bytes] | None, **more: Any) -> Sample:
    return Sample(f"in/p {row}.jpg", lambda: png(row), "ant", clean=clean, **more)


def many(*samples: Sample, **more: Any) -> Samples:
    return Samples(Path("source"), samples, **more)


def import_(samples: Samples, folder: Path, **more: Any) -> ImportReport:
    return import_pictures(samples, CLASSES, None, folder, "eval", **more)


def test_everything_that_happens_is_reported(tmp_path: Path) -> None:
    samples = many(
        sample(
            0, "Ant", mask=lambda: np.ones((4, 6), np.uint8), group="sky", metadata={"lux": 1, "by": "me"}
        ),
        sample(1, 1, content=lambda: png(1, mode="L"), metadata={"lux": 2, "by": "you"}),
        sample(2, "lorry"),
        sample(3, "bee", content=unreadable),
        sample(4, "bee", content=lambda: b"no picture"),
        sample(5, None, group="donor/grass", metadata={"lux": 1}),
        sample(6, "boat"),
        sample(7, "lorry"),
        sample(8, "Formica", group="Formica/grass", mask=lambda: png(0, mode="L")),
        sample(9, "ant", mask=lambda: b"no mask"),
        labels={"Formica": "ant"},
        notes=("A note.",),
    )
    report = import_(samples, tmp_path)
    assert report == ImportReport(
        images=4,
        quarantined=(
            ("in/p 3.jpg", "the file is not there"),
            ("in/p 4.jpg", "it is no picture, or of a format that is not read"),
            (
                "in/p 9.jpg",
                "its mask cannot be used: it is no picture, or of a format that is not read",
            ),
        ),
        converted={"converted from grey": 1},
        unmapped={"boat": 1, "lorry": 2},
        mapped={"1": "bee", "Ant": "ant", "Formica": "ant"},
        classes={"ant": 2, "bee": 1, "cow": 0},
        without_mask=2,
        unlabelled=1,
        notes=("A note.", "No slice became by: every picture has a value of its own."),
    )
    assert report.sentences() == [
        "4 pictures of 2 classes: ant 2, bee 1.",
        "No picture shows cow.",
        "1 picture without a label.",
        "1 picture left out because it is no picture, or of a format that is not read: in/p 4.jpg.",
        "1 picture left out because its mask cannot be used: "
        "it is no picture, or of a format that is not read: in/p 9.jpg.",
        "1 picture left out because the file is not there: in/p 3.jpg.",
        "3 pictures left out because no class has the label: lorry 2, boat 1.",
        "Labels were mapped: Ant to ant, Formica to ant, 1 to bee.",
        "Pictures were converted from grey: 1.",
        "2 of 4 pictures without a mask.",
        "A note.",
        "No slice became by: every picture has a value of its own.",
    ]
    found = read_split(tmp_path, "eval", CLASSES)
    assert found.names == ("00000-p_0", "00001-p_1", "00002-p_5", "00003-p_8")
    assert found.labels.tolist() == [0, 1, -1, 0]
    assert found.groups == ("ant/sky", "bee", "donor/grass", "ant/grass")
    assert found.environments == ("sky", "", "grass", "grass")
    assert found.slices == {"lux": ("1", "2", "1", "")}
    assert found.has_mask is not None
    assert found.has_mask.tolist() == [True, False, False, True]
    assert found.masks is not None
    assert found.masks.flatten(1).max(1).values.tolist() == [1, 0, 0, 0]
    table = pd.read_parquet(tmp_path / "eval.parquet")
    assert table["source"].tolist() == [f"in/p {row}.jpg" for row in (0, 1, 5, 8)]
    assert table["path"][0] == "eval/images/00000-p_0.png"


@pytest.mark.parametrize(
    ("samples", "more", "message"),
    [
        (many(sample(0, mask=lambda: np.ones((6, 4), np.uint8))), {}, "the mask is 4×6 and the picture 6×4"),
        (many(with_clean(0, lambda: png(0, (4, 6)))), {}, "the clean picture is 4×6 and the picture 6×4"),
        (many(sample(0), sample(1, content=lambda: png(1, (5, 5)))), {}, r"picture is 5×5, in/p 0\.jpg has"),
        (many(sample(0)), {"expected": (6, 4)}, "the picture is 6×4, the model has 4×6"),
        (many(sample(0, 3)), {}, "label 3 is out of range: the model has 3 classes, 0 to 2"),
        (many(sample(0, "lorry"), sample(1, "boat")), {}, "the labels are 'lorry', 'boat': say"),
        (many(sample(0, content=unreadable)), {}, r"none of the 1 picture .*p 0\.jpg, the file is not there"),
    ],
)  # fmt: skip
def test_nothing_is_left_of_an_import_that_fails(
    samples: Samples, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        import_(samples, tmp_path / "new", **more)
    assert not (tmp_path / "new").exists()
    import_(many(sample(0)), tmp_path / "old")
    before = {file: file.read_bytes() for file in (tmp_path / "old").rglob("*") if file.is_file()}
    with pytest.raises(DataError, match=message):
        import_(samples, tmp_path / "old", **more)
    assert {file: file.read_bytes() for file in (tmp_path / "old").rglob("*") if file.is_file()} == before


def test_a_split_is_replaced_and_its_neighbours_are_not(tmp_path: Path) -> None:
    import_pictures(many(sample(7)), CLASSES, None, tmp_path, "train")
    import_(many(sample(0), sample(1)), tmp_path)
    import_(many(sample(2, "bee")), tmp_path)
    assert read_split(tmp_path, "eval", CLASSES).names == ("00000-p_2",)
    assert read_split(tmp_path, "train", CLASSES).names == ("00000-p_7",)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "eval",
        "eval.parquet",
        "train",
        "train.parquet",
    ]


def test_a_folder_that_is_no_split_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"eval is there without eval\.parquet, so it is no split to replace"):
        import_(many(sample(0)), tmp_path)
    assert (tmp_path / "eval/mine.txt").read_text() == "mine"
    with pytest.raises(DataError, match=r"split name '\.\./x'"):
        import_pictures(many(sample(0)), CLASSES, None, tmp_path, "../x")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CandlingError, match=r"file/data: cannot be written \(Not a directory\)"):
        import_(many(sample(0)), tmp_path / "file/data")


def test_prepared_pictures_and_masks_go_together(tmp_path: Path) -> None:
    seen = []

    def crop(picture: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
        seen.append((picture.mode, mask and mask.mode))
        box = (1, 0, 4, 3)
        return picture.crop(box), None if mask is None else mask.crop(box)

    mask = np.arange(24, dtype=np.uint8).reshape(4, 6)
    samples = many(sample(9, mask=lambda: mask), sample(10, content=lambda: png(3, (9, 9), "L")))
    import_pictures(samples, CLASSES, crop, tmp_path, "eval", expected=(3, 3))
    found = read_split(tmp_path, "eval", CLASSES)
    assert seen == [("RGB", "L"), ("RGB", None)]
    assert found.masks is not None
    assert np.array_equal(found.masks[0], mask[:3, 1:4])

    def loses(picture: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
        return picture.crop((0, 0, 2, 2)), mask

    with pytest.raises(DataError, match="prepared for the model the mask is 6×4, the picture 2×2"):
        import_pictures(samples, CLASSES, loses, tmp_path, "eval")


def test_clean_pictures_go_the_way_of_their_pictures(tmp_path: Path) -> None:
    def crop(picture: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
        assert mask is None
        return picture.crop((1, 0, 4, 3)), None

    samples = many(
        with_clean(9, lambda: png(90)),
        with_clean(10, unreadable),
        with_clean(11, lambda: png(110, mode="L")),
    )
    report = import_pictures(samples, CLASSES, crop, tmp_path, "eval", expected=(3, 3))
    assert report.quarantined == (("in/p 10.jpg", "its clean picture cannot be used: the file is not there"),)
    found = read_split(tmp_path, "eval", CLASSES)
    assert found.clean is not None
    assert found.clean.shape == found.images.shape == (2, 3, 3, 3)
    assert found.images[:, 0, 0, 0].tolist() == [9, 11]
    assert found.clean[:, :, 0, 0].tolist() == [[90, 0, 0], [110, 110, 110]]
    table = pd.read_parquet(tmp_path / "eval.parquet")
    assert table["clean"].tolist() == ["eval/clean/00000-p_9.png", "eval/clean/00001-p_11.png"]
    assert not any("without a clean picture" in sentence for sentence in report.sentences())

    # Not a column of nothing: manifests without clean pictures keep their bytes, and so their digests.
    import_(many(sample(0), with_clean(1, None)), tmp_path)
    assert not {"clean", "clean_sha256"} & set(pd.read_parquet(tmp_path / "eval.parquet"))


def test_clean_pictures_of_some_are_told_and_not_used(tmp_path: Path) -> None:
    report = import_(many(with_clean(0, lambda: png(1)), with_clean(1, None)), tmp_path)
    assert report.notes == (
        "1 of 2 pictures without a clean picture (column `clean`), so none is used: it takes one of every "
        "picture.",
    )
    assert read_split(tmp_path, "eval", CLASSES).clean is None


@pytest.mark.parametrize(
    ("count", "told"), [(1, "1 picture without a label."), (2, "2 pictures without labels.")]
)
def test_backgrounds_alone_are_told_without_classes(count: int, told: str, tmp_path: Path) -> None:
    report = import_(many(*(sample(row, None, group="sea") for row in range(count))), tmp_path)
    assert report.unlabelled == count
    assert report.sentences() == [told, "No picture has a mask."]


def test_pixels_come_through_and_what_else_a_picture_carries_does_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)

    def carrying(comment: str) -> Callable[[], Image.Image]:
        picture = Image.fromarray(pixels)
        picture.info = {"icc_profile": comment.encode(), "dpi": (72, 72)}
        return lambda: picture

    for name in ("one", "two"):
        import_(many(sample(0, content=carrying(name))), tmp_path / name)
    files = [tmp_path / name / "eval/images/00000-p_0.png" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert np.array_equal(np.asarray(Image.open(files[0])), pixels)


@pytest.mark.parametrize(
    ("name", "masks"), [("coco_objects", True), ("imagenet_20", False), ("photos", False)]
)
def test_real_photographs(name: str, masks: bool, tmp_path: Path) -> None:
    if not (ASSETS / name).is_dir():
        pytest.skip(f"{ASSETS / name} is not there; set CANDLING_ASSETS to the folder of real photographs")
    samples = read_source(DataSource(ASSETS / name))
    table = pd.read_csv(ASSETS / name / "manifest.csv")
    assert [s.label for s in samples] == [str(label) for label in table["label"]]
    classes = [f"class {i}" for i in range(1000)]

    def shrink(picture: Image.Image, mask: Image.Image | None) -> tuple[Image.Image, Image.Image | None]:
        return picture.resize((16, 16)), None if mask is None else mask.resize((16, 16), 0)

    report = import_pictures(
        Samples(samples.location, samples.samples[:6]), classes, shrink, tmp_path, "eval", expected=(16, 16)
    )
    assert report.quarantined == ()
    found = read_split(tmp_path, "eval", classes)
    assert found.labels.tolist() == table["label"][:6].tolist()
    assert (found.masks is not None) == masks
    assert len(report.sentences()) >= 3
