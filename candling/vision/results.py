"""What `prototypes` and `visualize` give: pictures and what is known of each, that show themselves."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pandas as pd
from PIL import Image
from torch import Tensor

from candling.vision import gallery
from candling.vision.climbing import Climb
from candling.vision.trust import PathSimilarity, Trust

__all__ = ["Visualizations"]

_ROWS = 20  # of the table, in a repr


@dataclass(frozen=True, eq=False, repr=False)
class Visualizations:
    """Pictures that the optimiser found, and a table with a row for each.

    images: uint8 (R, C, H, W), with opacity (R, C + 1, H, W). table: R rows. Of prototypes its columns are
    class (place of the logit), name, seed, steps, probability (mean over transforms that were never used),
    agreement, path, transfer and trust (as `candling.vision.trust` has them; NaN where not measured); of
    other visualizations objective, seed, steps and value (of the picture as it is saved). name: what files
    are called. settings: how it was climbed. notes: sentences on what was not measured, and why. trust, path:
    what the table's columns are drawn from, layer by layer; None where nothing is.
    """

    images: Tensor
    table: pd.DataFrame
    name: Literal["prototypes", "visualizations"]
    settings: Climb
    notes: tuple[str, ...] = ()
    trust: Trust | None = None
    path: PathSimilarity | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def captions(self) -> list[str]:
        """What is written below each picture: two lines."""
        measured = "trust" if self.name == "prototypes" else "value"
        what = "name" if self.name == "prototypes" else "objective"
        shown = "{:.2f}" if self.name == "prototypes" else "{:.3g}"
        return [
            f"{title}\nseed {seed}" + ("" if math.isnan(value) else f", {measured} {shown.format(value)}")
            for title, seed, value in zip(
                self.table[what], self.table["seed"], self.table[measured], strict=True
            )
        ]

    def sheet(self, *, columns: int | None = None, side: int | None = None) -> Image.Image:
        """All pictures on one page, the seeds of one thing side by side by default.

        See `candling.vision.gallery.contact_sheet`.
        """
        return gallery.contact_sheet(self.images, self.captions, columns=columns or self._columns, side=side)

    @property
    def _columns(self) -> int:
        """About as many as make a square, and a multiple of the seeds."""
        seeds = self.settings.seeds
        return seeds * max(1, round(math.sqrt(len(self)) / seeds))

    def save(self, folder: Path | str) -> None:
        """Write a PNG a row, the table as Parquet and a contact sheet: whole, or not at all.

        Raises
        ------
        ParamsError, ServiceError
            See `candling.vision.gallery.write`.
        """
        gallery.write(
            folder, self.images, self.table, name=self.name, captions=self.captions, columns=self._columns
        )

    def __repr__(self) -> str:
        planes, height, width = self.images.shape[1:]
        shown = self.table.to_string(max_rows=_ROWS, index=False, float_format=lambda value: f"{value:.3g}")
        said = [
            f"{one.name}={value!r}"
            for one in fields(Climb)
            if (value := getattr(self.settings, one.name)) != one.default
        ]
        head = f"{len(self)} {self.name}, uint8 {planes} × {height} × {width}, Climb({', '.join(said)})"
        return "\n".join([head, shown, *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(
            f'<p style="font-size:small;margin:4px 0">{html.escape(note)}</p>' for note in self.notes
        )
        return f"<div>{gallery.as_html(self.images, self.captions)}{notes}</div>"
