"""Pictures of any mode as 8-bit RGB, with a word on each conversion, or a reason why not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from candling.errors import DataError

__all__ = ["MOST_PIXELS", "Decoded", "Unreadable", "decode", "decode_mask"]

MOST_PIXELS = 89_478_485
"""The largest picture that is decoded: Pillow's own limit, a quarter of a gigabyte of RGB."""

# Not all that Pillow knows: some formats run other programs or belong to no photograph.
_FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WORDS = {"1": "1-bit", "L": "grey", "P": "a palette"}
# What Pillow's decoders raise for bytes that are not what they should be.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


class Unreadable(DataError):
    """A picture that cannot be used; the message is the reason, without the picture's name."""


@dataclass(frozen=True)
class Decoded:
    """An RGB picture, upright, and what was done to it, such as "converted from CMYK"."""

    picture: Image.Image
    conversions: tuple[str, ...] = ()


def decode(content: bytes | Image.Image) -> Decoded:
    """Decode one picture to 8-bit RGB.

    What is transparent is composited on white. 16-bit grey is divided by 257, so that its whole range
    becomes 0 to 255. 32-bit and floating-point grey says nothing about its range: values within 0…1
    (floating point), 0…255 or 0…65535 are taken as that range, others are stretched from their least to
    their greatest. Of an animation the first frame is taken. EXIF orientation is applied.

    Raises
    ------
    Unreadable
        If it is no picture, is truncated, has no pixels, or has more than `MOST_PIXELS`.
    """
    picture, done = _upright(content)
    rgb, conversion = _rgb(picture)
    return Decoded(rgb, (*done, conversion) if conversion else done)


def decode_mask(content: bytes | Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Decode a mask to mode "L": 0 is background, any other value object.

    Grey values and palette indices stay as they are, as they may number parts; in a 1-bit mask and a coloured
    one all that is not black (nor transparent) is 255.

    Raises
    ------
    Unreadable
        As `decode`, and if an array is no (H, W).
    """
    if isinstance(content, np.ndarray):
        if content.ndim != 2 or not content.size:
            raise Unreadable(f"a mask is (height, width) numbers, not {content.shape}")
        return Image.fromarray(_part_ids(content))
    picture, _ = _upright(content)
    if picture.mode in ("L", "P"):
        return Image.fromarray(np.array(picture, dtype=np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        black = Image.new("RGBA", picture.size, "black")
        picture = Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB")
    elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 3:
        grey = (pixels == pixels[..., :1]).all()
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else _some(pixels.any(2)))
    return Image.fromarray(_part_ids(pixels))


def _some(there: Any) -> NDArray[np.uint8]:
    return np.where(there, 255, 0).astype(np.uint8)


def _part_ids(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Numbers as 8 bits, where there is room for them; what is not 0 must not become 0."""
    numbers = values.astype(np.float64)
    whole = numbers == np.round(numbers)
    if values.dtype == bool or not whole.all() or numbers.min() < 0 or numbers.max() > 255:
        return _some(numbers != 0)
    return numbers.astype(np.uint8)


def _upright(content: bytes | Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """A loaded picture as EXIF says it is to be seen; whatever Pillow dislikes is a reason."""
    if isinstance(content, bytes) and not content:
        raise Unreadable("the file is empty")
    with warnings.catch_warnings():
        # Pillow warns of damaged EXIF data and the like, which do not touch the pixels, and of many pixels,
        # which are counted here.
        warnings.simplefilter("ignore")
        try:
            picture = content if isinstance(content, Image.Image) else _open(content)
            width, height = picture.size
            if width < 1 or height < 1:
                raise Unreadable("it has no pixels")
            if width * height > MOST_PIXELS:
                raise Unreadable(
                    f"it has {width} × {height} pixels, more than the {MOST_PIXELS:,} that are safe to decode"
                )
            animated = bool(getattr(picture, "is_animated", False))
            # Loading turns a TIFF, and tells of others how they are to be turned.
            turned = _orientation(picture) if picture.format == "TIFF" else 1
            picture.load()
            turn = _orientation(picture)
        except Image.DecompressionBombError as error:
            raise Unreadable(
                f"it has more than the {MOST_PIXELS:,} pixels that are safe to decode"
            ) from error
        except UnidentifiedImageError as error:
            raise Unreadable("it is no picture, or of a format that is not read") from error
        except _BROKEN as error:
            truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
            said = str(error).strip().rstrip(".") or type(error).__name__
            raise Unreadable("it is truncated" if truncated else f"it is damaged ({said})") from error
    done = ["reduced to the first of several frames"] if animated else []
    if turned in _TURNS or turn in _TURNS:
        done.append("turned upright as EXIF says")
    return picture.transpose(_TURNS[turn]) if turn in _TURNS else picture, tuple(done)


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # EXIF data that cannot be read say nothing about the picture
    return found if isinstance(found, int) else 1


def _open(content: bytes) -> Image.Image:
    Image.init()
    return Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])


def _rgb(picture: Image.Image) -> tuple[Image.Image, str]:
    mode = picture.mode
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        return _on_white(picture)
    if mode == "RGB":
        return picture.copy(), ""
    if mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float64)
        return _grey(values / 257), "scaled from 16-bit grey"
    if mode in ("I", "F"):
        return _from_range(np.asarray(picture).astype(np.float64), floating=mode == "F")
    return picture.convert("RGB"), f"converted from {_WORDS.get(mode, mode)}"


def _on_white(picture: Image.Image) -> tuple[Image.Image, str]:
    rgba = picture.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), "freed of an alpha channel that hid nothing"
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB"), "composited on white where transparent"


def _from_range(values: NDArray[np.float64], *, floating: bool) -> tuple[Image.Image, str]:
    if not np.isfinite(values).all():
        raise Unreadable("some of its values are no finite numbers")
    kind = "floating-point grey" if floating else "32-bit grey"
    low, high = float(values.min()), float(values.max())
    scales: dict[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        255.0: lambda v: v,
        65535.0: lambda v: v / 257,
    }
    if floating:
        scales = {1.0: lambda v: v * 255, **scales}
    for most, scale in scales.items():
        if low >= 0 and high <= most:
            return _grey(scale(values)), f"scaled from {kind} of 0 to {most:g}"
    span = high - low if high > low else 1.0
    return _grey((values - low) / span * 255), f"stretched from {kind} of no usual range"


def _grey(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.round(values).clip(0, 255).astype(np.uint8)).convert("RGB")
