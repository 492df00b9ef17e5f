"""Pictures of every mode against plain arithmetic, and what is no picture."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from candling.data import Unreadable, decode, decode_mask
from candling.data.decode import MOST_PIXELS

RNG = np.random.default_rng(5)
LEVELS = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.array([0, 255, 128, 1, 254, 60, 200], dtype=np.uint8)[None].repeat(5, 0)


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def grey(levels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.dstack([levels] * 3).astype(np.uint8)


def on_white(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[Any]:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def palette_with_transparency() -> bytes:
    picture = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7) % 4, mode=None)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    return encoded(picture, transparency=b"\xff\x00\x80\xff")


def palette_expected() -> NDArray[Any]:
    index = np.arange(35).reshape(5, 7) % 4
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], dtype=np.uint8)
    return on_white(colours[index], np.array([255, 0, 128, 255], dtype=np.uint8)[index])


def cmyk() -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)


INK = cmyk()
WIDE = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
TRANSPARENT = "composited on white where transparent"


def from_ink() -> NDArray[Any]:
    return (255 - INK[..., :3].astype(float)) * (255 - INK[..., 3:].astype(float)) / 255


def merged(mode: str, pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(np.ascontiguousarray(p)) for p in np.moveaxis(pixels, 2, 0)])


FLOATS = RNG.random((5, 7), dtype=np.float32)
CASES: dict[str, tuple[bytes | Image.Image, NDArray[Any], tuple[str, ...]]] = {
    "RGB": (encoded(Image.fromarray(COLOURS)), COLOURS, ()),
    "a picture rather than bytes": (Image.fromarray(COLOURS), COLOURS, ()),
    "grey": (encoded(Image.fromarray(LEVELS)), grey(LEVELS), ("converted from grey",)),
    "1-bit": (encoded(Image.fromarray(LEVELS > 99)), grey((LEVELS > 99) * 255), ("converted from 1-bit",)),
    "LA": (encoded(merged("LA", np.dstack([LEVELS, ALPHA]))), on_white(grey(LEVELS), ALPHA), (TRANSPARENT,)),
    "RGBA": (encoded(merged("RGBA", np.dstack([COLOURS, ALPHA]))), on_white(COLOURS, ALPHA), (TRANSPARENT,)),
    "opaque RGBA": (
        encoded(merged("RGBA", np.dstack([COLOURS, ALPHA * 0 + 255]))),
        COLOURS,
        ("freed of an alpha channel that hid nothing",),
    ),
    "RGB with a transparent colour": (
        encoded(Image.fromarray(COLOURS), transparency=tuple(int(v) for v in COLOURS[2, 3])),
        np.where((COLOURS[2, 3] == COLOURS).all(2, keepdims=True), 255, COLOURS),
        (TRANSPARENT,),
    ),
    "grey with a transparent level": (
        encoded(Image.fromarray(LEVELS), transparency=int(LEVELS[1, 1])),
        grey(np.where(LEVELS[1, 1] == LEVELS, 255, LEVELS)),
        (TRANSPARENT,),
    ),
    "palette with transparency": (palette_with_transparency(), palette_expected(), (TRANSPARENT,)),
    "CMYK": (encoded(merged("CMYK", INK), "TIFF"), from_ink(), ("converted from CMYK",)),
    "16-bit grey": (encoded(Image.fromarray(WIDE)), grey(np.round(WIDE / 257)), ("scaled from 16-bit grey",)),
    "16-bit grey, big-endian": (
        b"P5 7 5 65535 " + WIDE.astype(">u2").tobytes(), grey(np.round(WIDE / 257)), ("scaled from ",),
    ),
    "32-bit grey of 8 bits": (
        Image.fromarray(LEVELS.astype(np.int32)), grey(LEVELS), ("scaled from 32-bit grey of 0 to 255",),
    ),
    "32-bit grey of 16 bits": (
        Image.fromarray(np.maximum(WIDE, 300).astype(np.int32)),
        grey(np.round(np.maximum(WIDE, 300) / 257)),
        ("scaled from 32-bit grey of 0 to 65535",),
    ),
    "32-bit grey of another range": (
        Image.fromarray(LEVELS.astype(np.int32) * 1000 - 9000),
        grey(np.round((LEVELS - LEVELS.min().astype(float)) / np.ptp(LEVELS) * 255)),
        ("stretched from 32-bit grey of no usual range",),
    ),
    "floating-point of 0 to 1": (
        encoded(Image.fromarray(FLOATS), "TIFF"),
        grey(np.round(FLOATS.astype(float) * 255)),
        ("scaled from floating-point grey of 0 to 1",),
    ),
    "floating-point of one negative value": (
        Image.fromarray(np.full((5, 7), -2, dtype=np.float32)),
        grey(np.zeros((5, 7))),
        ("stretched from floating-point grey of no usual range",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_mode_becomes_rgb(case: str) -> None:
    content, expected, conversions = CASES[case]
    found = decode(content)
    assert found.picture.mode == "RGB"
    assert np.abs(np.asarray(found.picture).astype(float) - expected).max() <= 1
    assert len(found.conversions) == len(conversions)
    assert all(f.startswith(c) for f, c in zip(found.conversions, conversions, strict=True))


def test_inverted_inks_of_a_jpeg_are_seen_as_they_were_meant() -> None:
    flat = merged("CMYK", np.full((16, 16, 4), [0, 255, 255, 0], dtype=np.uint8))
    content = encoded(flat, "JPEG", quality=95)
    assert b"Adobe" in content
    found = decode(content)
    assert found.conversions == ("converted from CMYK",)
    assert (
        np.abs(np.asarray(found.picture).astype(int) - [255, 0, 0]).max() <= 4
    )  # no magenta, no yellow: red


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1))
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(big, format, exif=exif.tobytes() if format != "TIFF" else exif, **options)
    found = decode(content)
    with Image.open(io.BytesIO(content)) as picture:
        expected = ImageOps.exif_transpose(picture).convert("RGB")
    assert found.picture.size == ((40, 56) if orientation >= 5 else (56, 40))
    assert np.array_equal(np.asarray(found.picture), np.asarray(expected))
    assert found.conversions == (("turned upright as EXIF says",) if orientation > 1 else ())


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert found.conversions[0] == "reduced to the first of several frames"
    assert np.array_equal(np.asarray(found.picture), np.asarray(frames[0]))


def png_of_size(width: int, height: int) -> bytes:
    """A tiny picture whose header says another size."""
    import struct
    import zlib

    content = encoded(Image.new("1", (1, 1)))
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


NOISE = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "it is no picture"),
        (encoded(NOISE, "PDF"), "it is no picture, or of a format that is not read"),
        (encoded(NOISE, "EPS"), "it is no picture, or of a format that is not read"),
        (encoded(NOISE)[:2000], "it is (truncated|damaged)"),
        (encoded(NOISE, "JPEG")[:1000], "it is truncated"),
        (encoded(NOISE, "GIF")[:1500], "it is (truncated|damaged)"),
        (encoded(NOISE, "WEBP")[:1000], "it is (truncated|damaged)|it is no picture"),
        (encoded(NOISE, "TIFF")[:1500], "it is (truncated|damaged)|it is no picture"),
        (encoded(NOISE)[:41] + b"\0\0" + encoded(NOISE)[43:], "it is (truncated|damaged)"),
        (encoded(NOISE)[:60] + b"\0" * 40 + encoded(NOISE)[100:], "it is (truncated|damaged)"),
        (png_of_size(10_000, 9_000), "10000 × 9000 pixels, more than the 89,478,485"),
        (png_of_size(30_000, 30_000), "more than the 89,478,485 pixels"),
        (Image.new("RGB", (0, 4)), "it has no pixels"),
        (Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "no finite numbers"),
    ],
)  # fmt: skip
def test_what_is_no_picture_has_a_reason(content: bytes | Image.Image, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(content)


def test_pillows_own_limit_is_kept() -> None:
    assert Image.MAX_IMAGE_PIXELS == MOST_PIXELS


def test_any_cut_and_any_flipped_byte_gives_a_picture_or_a_reason() -> None:
    """No error of Pillow's comes through, whatever the damage."""
    readable = 0
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encoded(Image.fromarray(COLOURS), format)
        cuts = [whole[:end] for end in range(0, len(whole), 7)]
        flips = [whole[:i] + bytes([whole[i] ^ 0x5A]) + whole[i + 1 :] for i in range(0, len(whole), 5)]
        for content in cuts + flips:
            # Any other error fails the test.
            with contextlib.suppress(Unreadable):
                readable += decode(content).picture.mode == "RGB"
    assert readable > 20


def test_a_users_picture_is_left_as_it_was() -> None:
    picture = Image.fromarray(COLOURS)
    picture.info["comment"] = "mine"
    found = decode(picture).picture
    found.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(picture), COLOURS)
    assert picture.info == {"comment": "mine"}


# --- masks ----------------------------------------------------------------------------------------

PARTS = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
PALETTE = Image.fromarray(PARTS).convert("P")
PALETTE.putpalette([0, 0, 0] + [200, 10, 10] * 3)
SOME = np.where(PARTS > 0, 255, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.fromarray(PARTS)), PARTS),
        (encoded(PALETTE), PARTS),
        (encoded(Image.fromarray(PARTS > 0)), SOME),
        (encoded(Image.fromarray(grey(PARTS))), PARTS),
        (encoded(Image.fromarray(np.dstack([PARTS * 9, PARTS * 0, PARTS]))), SOME),
        (encoded(merged("RGBA", np.dstack([grey(PARTS * 0 + 255), SOME.astype(np.uint8)]))), SOME),
        (encoded(Image.fromarray(PARTS.astype(np.uint16) * 9000)), SOME),
        (encoded(Image.fromarray(PARTS.astype(np.uint16))), PARTS),
        (PARTS, PARTS),
        (PARTS > 0, SOME),
        (Image.fromarray(PARTS.astype(np.float32) / 8), SOME),
    ],
)
def test_masks_keep_part_ids_and_lose_no_object(content: Any, expected: NDArray[Any]) -> None:
    found = decode_mask(content)
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize(
    "content", [b"", b"no mask", np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_what_is_no_mask(content: Any) -> None:
    with pytest.raises(Unreadable):
        decode_mask(content)
