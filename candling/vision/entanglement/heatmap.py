"""The matrix as a picture: classes that are entangled side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from candling.vision.entanglement.matrix import Entanglement

__all__ = ["clustered", "draw"]

_SIDE = 720  # pixels of the matrix, about
_LARGEST, _SMALLEST = 40, 1  # pixels of a cell
_LABELLED = 10  # pixels of a cell beside which a name can be read
_ORDERED = 300  # classes of which the best order of leaves is looked for
_LONGEST = 180  # pixels of a name
_GAP = 10
_EXCITES, _SUPPRESSES = np.array([178, 24, 43]), np.array([33, 102, 172])
_PAPER, _INK, _NOTHING = (255, 255, 255), (40, 40, 40), (225, 225, 225)


def clustered(found: Entanglement) -> NDArray[np.int64]:
    """An order (K,) of the classes in which those that are entangled are neighbours.

    Average linkage by 1 - m(c,k), cut off at 0 and 2; classes without a value stand last.
    """
    known = np.flatnonzero(found.n > 0)
    rest = np.flatnonzero(found.n == 0)
    if len(known) < 3:
        return np.concatenate([known, rest])
    apart = 1 - np.clip(found.mutual[np.ix_(known, known)], -1, 1)
    np.fill_diagonal(apart, 0)
    distances = squareform(apart, checks=False)
    tree = linkage(distances, "average")
    if len(known) <= _ORDERED:
        tree = optimal_leaf_ordering(tree, distances)
    return np.concatenate([known[leaves_list(tree)], rest]).astype(np.int64)


def draw(found: Entanglement, names: Sequence[str], *, rate: float = 0.05) -> Image.Image:
    """The directed matrix, clustered, RGB: rows are prototypes, columns what they excite.

    Red excites, blue suppresses, white does nothing, grey is not known; full colour is 1, what a class does
    to itself. Pairs that are significantly entangled have a dot in both cells. Names stand beside cells that
    are large enough; of a thousand classes each cell is one pixel.

    Parameters
    ----------
    found
        Of K classes.
    names
        Of these K.
    rate
        The false-discovery rate that dots are held to.
    """
    order = clustered(found)
    count = len(order)
    cell = max(_SMALLEST, min(_LARGEST, _SIDE // count))
    pixels = _coloured(found.value[np.ix_(order, order)])
    board = Image.fromarray(pixels).resize((count * cell, count * cell), Image.Resampling.NEAREST)
    font = ImageFont.load_default(max(9, min(13, cell - 2)))
    titles = [_cut(names[place], font) for place in order] if cell >= _LABELLED else []
    margin = _GAP + max((int(font.getlength(one)) for one in titles), default=0)
    line = 18
    page = Image.new(
        "RGB", (margin + board.width + 2 * _GAP, margin + board.height + 2 * _GAP + line), _PAPER
    )
    corner = (margin + _GAP // 2, margin + _GAP // 2)
    page.paste(board, corner)
    brush = ImageDraw.Draw(page)
    for place, title in enumerate(titles):
        middle = corner[1] + place * cell + cell // 2
        brush.text((margin, middle), title, _INK, font, anchor="rm")
        label = Image.new("RGB", (int(font.getlength(title)) + 1, cell), _PAPER)
        ImageDraw.Draw(label).text((0, cell // 2), title, _INK, font, anchor="lm")
        turned = label.rotate(90, expand=True)
        page.paste(turned, (corner[0] + place * cell, margin - turned.height))
    if cell >= 4:
        where = np.empty(count, dtype=np.int64)
        where[order] = np.arange(count)
        for c, k in found.significant(rate):
            for row, column in ((where[c], where[k]), (where[k], where[c])):
                x, y = (corner[axis] + int(at) * cell + cell / 2 for axis, at in enumerate((column, row)))
                radius = max(1.0, cell / 8)
                brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_PAPER, outline=_INK)
    _legend(page, corner[0], corner[1] + board.height + 6)
    return page


def _coloured(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """uint8 (K, K, 3)."""
    strength = np.clip(np.abs(np.nan_to_num(values)), 0, 1)[..., None]
    towards = np.where(values[..., None] >= 0, _EXCITES, _SUPPRESSES)
    pixels = np.round(255 + (towards - 255) * strength)
    pixels[np.isnan(values)] = _NOTHING
    return np.asarray(pixels, dtype=np.uint8)


def _legend(page: Image.Image, left: int, top: int) -> None:
    """-1 to 1 in colours below the matrix, as wide as fits."""
    font = ImageFont.load_default(11)
    brush = ImageDraw.Draw(page)
    before, after = "suppresses -1", "1 excites"
    start = left + int(font.getlength(before)) + 6
    width = max(20, min(120, page.width - start - int(font.getlength(after)) - 12))
    brush.text((left, top + 5), before, _INK, font, anchor="lm")
    page.paste(Image.fromarray(_coloured(np.linspace(-1, 1, width)[None].repeat(9, 0))), (start, top))
    brush.text((start + width + 6, top + 5), after, _INK, font, anchor="lm")


def _cut(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """What of a name fits; letters that the font does not have are left out."""
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in name)
    if font.getlength(text) <= _LONGEST:
        return text
    while text and font.getlength(text + "...") > _LONGEST:
        text = text[:-1]
    return text + "..."
