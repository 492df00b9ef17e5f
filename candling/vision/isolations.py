"""`candling.isolate`: what a person asks of pictures, and what they are shown."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from candling.data import Pictures, read_picture
from candling.errors import DataError, ParamsError
from candling.models import Classifier, ModelSpec, input_shape, logits
from candling.models.preprocessing import fit_picture
from candling.models.quick import Precision
from candling.vision import gallery
from candling.vision.asking import Model, Size, names_of, opened, pair, places
from candling.vision.faithfulness import insertion_minus_deletion
from candling.vision.isolation import Isolation, Method, faded, method_named
from candling.vision.isolation import isolate as isolate_tensors
from candling.vision.isolation.found import Progress
from candling.vision.isolation.isolating import as_pictures
from candling.vision.preflight import as_scores

__all__ = ["Isolations", "Shown", "isolate"]

Shown = Path | str | Tensor | Pictures | Sequence[Path | str]
"""A picture's file or several, a tensor (C, H, W) or (N, C, H, W), or labelled pictures."""

_ROWS = 20  # of the table, in a repr


@dataclass(frozen=True, eq=False, repr=False)
class Isolations:
    """Pictures with the evidence for classes, and a table with a row for each picture and class.

    images: uint8 (N, C, H, W) as the model saw them. found: maps (N, K, H, W) and how they were found. table:
    N·K rows with image (its name), class (place of the logit), name, probability (of the class for the whole
    picture) and insertion_minus_deletion (NaN where it was not asked for). notes: sentences on what was done.
    """

    images: Tensor
    found: Isolation
    table: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> Tensor:
        """Each picture, then faded to white for each class where nothing speaks for it: uint8."""
        parts = []
        for image, maps in zip(self.images, self.found.maps, strict=True):
            shown = [faded(image.float() / 255, one) for one in maps]
            parts += [image, *((one.clamp(0, 1) * 255).round().byte() for one in shown)]
        return torch.stack(parts)

    @property
    def captions(self) -> list[str]:
        """What is written below each of the pictures: two lines."""
        lines = []
        columns = ("image", "name", "probability", "insertion_minus_deletion")
        rows = zip(*(self.table[one].tolist() for one in columns), strict=True)
        for place, (image, name, probability, score) in enumerate(rows):
            if place % self._classes == 0:
                lines.append(f"{image}\nas it is")
            judged = "" if math.isnan(score) else f", ins-del {score:.2f}"
            lines.append(f"{name}\np {probability:.3f}{judged}")
        return lines

    @property
    def _classes(self) -> int:
        return self.found.maps.shape[1]

    def sheet(self, *, columns: int | None = None, side: int | None = None) -> Image.Image:
        """All pictures on one page, those of one picture in a line by default.

        See `candling.vision.gallery.contact_sheet`.
        """
        columns = columns or 1 + self._classes
        return gallery.contact_sheet(self.pictures, self.captions, columns=columns, side=side)

    def save(self, folder: Path | str) -> None:
        """Write a PNG a picture and class, the table as Parquet and a contact sheet: whole, or not at all.

        The table's rows are the files'; those of the pictures as they are have no class.

        Raises
        ------
        ParamsError, ServiceError
            See `candling.vision.gallery.write`.
        """
        rows = self.table.to_dict("records")
        both = []
        for place in range(0, len(rows), self._classes):
            whole = {"image": rows[place]["image"], "class": None, "name": ""}
            both += [whole, *rows[place : place + self._classes]]
        table = pd.DataFrame(both, columns=self.table.columns).astype({"class": "Int64"})
        gallery.write(
            folder, self.pictures, table, name="isolations", captions=self.captions,
            columns=1 + self._classes,
        )  # fmt: skip

    def __repr__(self) -> str:
        planes, height, width = self.images.shape[1:]
        shown = self.table.to_string(max_rows=_ROWS, index=False, float_format=lambda value: f"{value:.3g}")
        head = (
            f"{len(self)} isolations, {planes} × {height} × {width}, {self.found.method}, "
            f"{self.found.evaluations} evaluations"
        )
        return "\n".join([head, shown, *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(
            f'<p style="font-size:small;margin:4px 0">{html.escape(note)}</p>' for note in self.notes
        )
        return f"<div>{gallery.as_html(self.pictures, self.captions)}{notes}</div>"


def isolate(
    model: Model,
    images: Shown,
    classes: str | int | Iterable[str | int] | None = None,
    *,
    method: str | Method = "hierarchical",
    top: int = 3,
    size: Size | None = None,
    names: Sequence[str] = (),
    faithfulness: bool = True,
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress | bool | None = None,
    **settings: Any,
) -> Isolations:
    """Which parts of pictures speak for classes, each map with the proof that it deserves.

    Parameters
    ----------
    model
        A `Classifier`, any module from images (N, C, H, W) in [0, 1] to scores, or text that names a model.
    images
        Files of pictures, which are brought to the model's size as it wants it, or pictures of that size:
        a tensor of uint8 or of floats in [0, 1], or `Pictures`.
    classes
        Names or numbers of classes to look for in every picture; they come first.
    method
        A name in `candling.vision.isolation.METHODS`, or a method; `settings` change its settings.
    top
        How many more classes of each picture, of those that the model thinks most likely.
    size
        Of pictures that come from files, in pixels. None: the model's, and 224 of a module that has none.
    names
        Of classes, in the order of the logits, where the model is no `Classifier`.
    faithfulness
        Whether each map is judged by insertion and deletion, which takes passes of its own.
    batch
        Pictures that go through the model at a time; None: as many as suit the device.
    precision
        Of the looks that make maps: bfloat16 is quicker on devices that multiply it.
    progress
        Told of pictures done, of all; True for a line on stderr.

    Returns
    -------
    Isolations
        That shows itself in a notebook.

    Raises
    ------
    ParamsError
        If there is no such method, setting, precision or class.
    DataError
        If a picture cannot be read, or is of another size or range.
    ModelError
        If the model cannot be read, does not take such pictures, or has not what the method needs.
    """
    chosen = method_named(method, **settings)
    network = opened(model)
    if isinstance(top, bool) or not isinstance(top, int) or top < 0:
        raise ParamsError(f"top is {top!r}; it must be a whole number from 0")
    shown, titles = _pictures(network, images, size)
    shown = shown.cpu()
    channels, height, width = shown.shape[1:]
    own = names
    network, notes = as_scores(network, (channels, height, width), names)
    device = next((p.device for p in network.parameters()), shown.device)
    scored = logits(network, shown.to(device), batch=batch).cpu()
    count = scored.shape[1]
    known = names_of(network, own, count)
    asked = [] if classes is None else places(classes, known, count)
    targets = _targets(scored, asked, top)
    if progress is True:
        progress = _line
    found = isolate_tensors(
        network, shown, classes=targets, method=chosen, batch=batch, precision=precision,
        progress=progress or None,
    )  # fmt: skip
    judged = torch.full(targets.shape, torch.nan)
    if faithfulness:
        judged = insertion_minus_deletion(
            network, shown.to(device), found.maps, found.classes, batch=batch
        ).cpu()
    flat = targets.flatten().tolist()
    table = pd.DataFrame(
        {
            "image": [title for title in titles for _ in range(targets.shape[1])],
            "class": flat,
            "name": [known[k] for k in flat],
            "probability": found.odds.sigmoid().flatten().double().numpy(),
            "insertion_minus_deletion": judged.flatten().double().numpy(),
        }
    )
    return Isolations((shown * 255).round().byte(), found, table, (*notes, *found.notes))


def _targets(scored: Tensor, asked: Sequence[int], top: int) -> Tensor:
    """Classes (N, K): those asked for, then the likeliest others of each picture."""
    rest = scored.clone()
    rest[:, list(asked)] = -torch.inf
    more = rest.topk(min(top, scored.shape[1] - len(asked)), 1).indices
    found = torch.cat([torch.tensor(asked, dtype=torch.long).expand(len(scored), -1).to(more), more], 1)
    if not found.shape[1]:
        raise ParamsError("no class is asked for; name one, or let `top` be 1 or more")
    return found


def _pictures(network: nn.Module, images: Shown, size: Size | None) -> tuple[Tensor, tuple[str, ...]]:
    """Pictures float (N, C, H, W) in [0, 1] as the model takes them, and what they are called."""
    if isinstance(images, Pictures):
        return _fitting(network, images.images, size), images.names
    if isinstance(images, Tensor):
        whole = images[None] if images.dim() == 3 else images
        return _fitting(network, whole, size), tuple(f"image {row}" for row in range(len(whole)))
    files = [Path(one) for one in ([images] if isinstance(images, Path | str) else images)]
    if not files:
        raise DataError("there is no picture; name a file, or give a tensor")
    return torch.stack([_read(network, file, size) for file in files]), tuple(file.name for file in files)


def _read(network: nn.Module, file: Path, size: Size | None) -> Tensor:
    """One picture, cut as the model wants it."""
    if not file.is_file():
        raise DataError(f"{file}: no such picture")
    picture = Image.fromarray(read_picture(file).permute(1, 2, 0).numpy())
    planes, height, width = input_shape(network, pair(size))
    if isinstance(network, Classifier):
        spec = network.spec.at((height, width))
    else:
        resize = height if height == width else None
        spec = ModelSpec("as it is", (), (height, width), resize=resize, interpolation="bilinear")
    pixels = torch.from_numpy(np.array(fit_picture(picture, spec))).permute(2, 0, 1).float() / 255
    if planes not in (1, 3):
        raise DataError(f"{file}: a picture has three channels, the model takes {planes}; give a tensor")
    return pixels.mean(0, keepdim=True) if planes == 1 else pixels


def _fitting(network: nn.Module, images: Tensor, size: Size | None) -> Tensor:
    """Pictures as floats that are of the size the model takes."""
    pictures = as_pictures(images)
    wanted = pair(size)
    if wanted is None and isinstance(network, Classifier):
        wanted = network.spec.image_size
    if wanted is not None and tuple(images.shape[2:]) != wanted:
        has, wants = (" × ".join(map(str, sides)) for sides in (images.shape[2:], wanted))
        raise DataError(f"images are of {has} pixels, the model takes {wants}; bring them to that size")
    return pictures


def _line(done: int, of: int) -> None:
    sys.stderr.write(f"\r{done} of {of} pictures" + ("\n" if done == of else ""))
    sys.stderr.flush()
