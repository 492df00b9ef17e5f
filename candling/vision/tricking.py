"""`candling.trick`: one picture, changed so little that nobody sees it and so that a model does."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from candling.data import read_picture
from candling.errors import DataError, ParamsError
from candling.models import Classifier, ModelSpec, input_shape, logits, probabilities
from candling.models.preprocessing import fit_picture
from candling.models.running import refuse_black_box
from candling.vision import gallery
from candling.vision.adversarial import (
    L2PGD,
    Goal,
    LinfPGD,
    Targeted,
    Untargeted,
    attack,
    smallest_epsilon,
)
from candling.vision.adversarial.methods import LEVELS, Ball
from candling.vision.asking import Model, Size, names_of, opened, pair, places
from candling.vision.objectives import logit
from candling.vision.preflight import as_scores, preflight

__all__ = ["Tricked", "amplified", "trick"]

_FILES = ("original.png", "noise.png", "tricked.png")
_METHODS: dict[str, type[Ball]] = {"linf": LinfPGD, "l2": L2PGD}
_LARGEST = {"linf": 16 / LEVELS, "l2": 8.0}  # epsilon that is tried where none is given


@dataclass(frozen=True, eq=False, repr=False)
class Tricked:
    """A picture before and after, and what the model makes of each.

    original, tricked: uint8 (C, H, W) at the size that the model sees. table: a row for each, with picture,
    predicted (a name), probability (of that), from_probability (of the class first predicted) and
    to_probability (of the target; NaN without one). source, target: names, of which the target may be None.
    epsilon: radius of the ball that was searched, the smallest that was enough where none was given.
    distance: of the two, in the norm. done: whether the model takes the picture for the target, or without
    one for another class, with the probability that was asked for. evaluations: pictures that the model saw
    under attack. notes: sentences on what was done.
    """

    original: Tensor
    tricked: Tensor
    table: pd.DataFrame
    source: str
    target: str | None
    norm: Literal["linf", "l2"]
    epsilon: float
    distance: float
    done: bool
    evaluations: int
    notes: tuple[str, ...] = ()

    @property
    def noise(self) -> Tensor:
        """The change on grey, so amplified that its largest fills the range: uint8 (C, H, W)."""
        return amplified(self.original, self.tricked)

    @property
    def images(self) -> Tensor:
        """Original, amplified noise and result, uint8 (3, C, H, W)."""
        return torch.stack([self.original, self.noise, self.tricked])

    @property
    def captions(self) -> list[str]:
        """What is written below each of them: two lines."""
        before, after = (_likely(row) for row in self.table.to_dict("records"))
        most = int((self.tricked.int() - self.original.int()).abs().max())
        what = f"{most}/{LEVELS} at most" if self.norm == "linf" else f"length {self.distance:.2f}"
        factor = f" × {127 / most:.3g}" if most else ""
        return [f"original\n{before}", f"noise{factor}\n{what}", f"tricked\n{after}"]

    def sheet(self, *, side: int | None = None) -> Image.Image:
        """Original, amplified noise and result side by side, with what the model makes of them.

        See `candling.vision.gallery.contact_sheet`.
        """
        return gallery.contact_sheet(self.images, self.captions, columns=3, side=side)

    def save(self, folder: Path | str) -> None:
        """Write original.png, noise.png, tricked.png, a sheet and a table as Parquet: whole, or not at all.

        What the model makes of tricked.png, read back, is what the table says.

        Raises
        ------
        ParamsError, ServiceError
            See `candling.vision.gallery.write`.
        """
        noise = {"picture": "noise", "predicted": ""}
        before, after = self.table.to_dict("records")
        said = {"norm": self.norm, "epsilon": self.epsilon, "distance": self.distance}
        table = pd.DataFrame([before, noise, after]).assign(**said)
        gallery.write(
            folder, self.images, table, name="trick", captions=self.captions, columns=3, files=_FILES
        )

    def __repr__(self) -> str:
        planes, height, width = self.original.shape
        head = (
            f"{self.source!r} {'taken' if self.done else 'not taken'} for "
            f"{'another class' if self.target is None else repr(self.target)}, uint8 {planes} × {height} × "
            f"{width}, {self.norm} within {self.epsilon:.4g}, {self.evaluations} evaluations"
        )
        shown = self.table.to_string(index=False, float_format=lambda value: f"{value:.3g}")
        return "\n".join([head, shown, *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(
            f'<p style="font-size:small;margin:4px 0">{html.escape(note)}</p>' for note in self.notes
        )
        return f"<div>{gallery.as_html(self.images, self.captions)}{notes}</div>"


def trick(
    model: Model,
    image: Path | str | Tensor | Image.Image,
    target: str | int | None = None,
    *,
    norm: Literal["linf", "l2"] = "linf",
    epsilon: float | None = None,
    probability: float | None = 0.99,
    steps: int = 40,
    restarts: int = 0,
    size: Size | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
) -> Tricked:
    """Change a picture by as little as can be, so that the model takes it for another class.

    By projected gradient descent (Madry et al. 2018) on the picture as it is saved, in 8 bits. Where a
    classifier resizes and cuts pictures, it is fooled both by the saved pixels as they are and by the file,
    which it prepares again.

    Parameters
    ----------
    model
        A `Classifier`, any module from images (N, C, H, W) in [0, 1] to scores, or text that names a model.
    image
        A file or a Pillow image, which is cut to the size that the model sees as the model has it, or a
        tensor (C, H, W) of that size, uint8 or float in [0, 1].
    target
        A class by name or number; None: any but the one that is predicted.
    norm
        ``linf``: no pixel changes by more than epsilon; ``l2``: the change as a whole is no longer than it.
    epsilon
        Radius of the ball around the picture, pixels being in [0, 1]. None: the smallest that is enough, of
        at most 16/255 in L∞ and of 8 in L2.
    probability
        That the target must reach; None: it need only be the highest.
    steps, restarts
        Of each walk, and walks from random points where one did not get there.
    size
        Height and width that a picture from a file is brought to where the model is no `Classifier`.
    names
        Of classes, in the order of the logits, where the model is no `Classifier`.
    seed
        Of restarts.

    Returns
    -------
    Tricked
        That shows itself in a notebook. Where nothing was enough it says so, with the nearest that was found.

    Raises
    ------
    ParamsError
        If there is no such class, it is the one that is predicted, or a setting will not do.
    DataError
        If the picture cannot be read, or is of another size or range.
    ModelError
        If the model cannot be read, is a black box, does not take the picture, or gives no gradient.
    """
    if norm not in _METHODS:
        raise ParamsError(f"norm {norm!r} is neither linf nor l2")
    method = _METHODS[norm](
        epsilon=_LARGEST[norm] if epsilon is None else epsilon, steps=steps, restarts=restarts
    )
    network = opened(model)
    refuse_black_box(network, "its gradient")
    picture = _picture(network, image, size)
    shape = (picture.shape[0], picture.shape[1], picture.shape[2])
    read, notes = as_scores(network, shape, names)
    device = next((p.device for p in network.parameters()), picture.device)
    before = probabilities(read, logits(read, picture[None].to(device)))[0].cpu()
    known = names_of(network, names, len(before))
    own = int(before.argmax())
    wanted = None if target is None else places(target, known, len(before))[0]
    if wanted == own:
        raise ParamsError(
            f"the model takes the picture for {known[own]!r} as it is (probability {before[own]:.3f}); name "
            "another target"
        )
    preflight(read, [logit(own if wanted is None else wanted)], shape)
    goal: Goal = Untargeted([own]) if wanted is None else Targeted([wanted])
    row = picture[None]
    twice = isinstance(network, Classifier) and not torch.equal(_prepared(network, picture), picture)
    seen = _SeenTwice(network, goal) if twice and isinstance(network, Classifier) else read
    if epsilon is None:
        smallest = smallest_epsilon(seen, row, goal, method, probability=probability, batch=1, seed=seed)
        done, radius = bool(smallest.epsilon.isfinite()), min(float(smallest.epsilon), method.epsilon)
        found, looks = smallest.images[0], int(smallest.evaluations)
    else:
        made = attack(seen, row, goal, method, probability=probability, batch=1, seed=seed)
        done, radius = bool(made.fooled), method.epsilon
        found, looks = made.images[0], int(made.evaluations)
    after = probabilities(read, logits(read, found[None].to(device)))[0].cpu()
    if not done:
        aim = "any other class" if wanted is None else repr(known[wanted])
        least = "" if probability is None else f" with a probability of {probability:g}"
        notes = (
            *notes,
            f"{aim} was not reached{least} within an epsilon of {radius:.4g}; the nearest that was found is "
            f"taken for {known[int(after.argmax())]!r} ({float(after.max()):.3f})",
        )
    if twice:
        again = probabilities(read, logits(read, _prepared(network, found)[None].to(device)))[0].cpu()
        best = int(again.argmax())
        notes = (
            *notes,
            "tricked.png is of the size that the network sees; prepared once more, as every file is when it "
            f"is read, it is taken for {known[best]!r} ({float(again[best]):.3f})",
        )
    table = pd.DataFrame(
        [
            _line("original", before, known, own, wanted),
            _line("tricked", after, known, own, wanted),
        ]
    )
    unit = (found.double() / LEVELS, picture.double() / LEVELS)
    return Tricked(
        picture, found, table, known[own], None if wanted is None else known[wanted], norm, radius,
        method.distance(*unit), done, looks * (2 if twice else 1), notes,
    )  # fmt: skip


def amplified(original: Tensor, tricked: Tensor) -> Tensor:
    """The change between two uint8 pictures (C, H, W) on grey, its largest filling the range: uint8."""
    change = tricked.float() - original.float()
    return (127.5 + change * (127 / change.abs().max().clamp_min(1))).round().byte()


def _line(
    what: str, shares: Tensor, names: Sequence[str], own: int, wanted: int | None
) -> dict[str, str | float]:
    best = int(shares.argmax())
    return {
        "picture": what,
        "predicted": names[best],
        "probability": float(shares[best]),
        "from_probability": float(shares[own]),
        "to_probability": float("nan") if wanted is None else float(shares[wanted]),
    }


def _likely(row: Mapping[Any, Any]) -> str:
    """Its class, by the first of its names, and how likely it is."""
    return f"{str(row['predicted']).partition(',')[0]} {row['probability']:.3f}"


def _picture(network: nn.Module, image: Path | str | Tensor | Image.Image, size: Size | None) -> Tensor:
    """The picture as the model sees it, uint8 (C, H, W)."""
    planes, height, width = input_shape(network, pair(size))
    if isinstance(image, Tensor):
        return _fitting(network, image)
    if isinstance(image, Image.Image):
        whole = image.convert("RGB")
    elif isinstance(image, Path | str):
        if not Path(image).is_file():
            raise DataError(f"{image}: no such picture")
        whole = Image.fromarray(read_picture(Path(image)).permute(1, 2, 0).numpy())
    else:
        raise ParamsError(f"an image is a file, a Pillow image or a tensor, not {type(image).__name__}")
    if planes not in (1, 3):
        raise DataError(f"a picture has three channels, the model takes {planes}; give a tensor")
    if isinstance(network, Classifier):
        cut, _ = network.prepare(whole)
    else:
        resize = height if height == width else None
        spec = ModelSpec("as it is", (), (height, width), resize=resize)
        cut = fit_picture(whole, spec)
    pixels = np.array(cut if planes == 3 else cut.convert("L"))
    return torch.from_numpy(pixels.reshape(height, width, planes)).permute(2, 0, 1).contiguous()


def _fitting(network: nn.Module, image: Tensor) -> Tensor:
    if image.dim() != 3 or not image.numel():
        raise DataError(f"a picture must be of shape (C, H, W), not {tuple(image.shape)}")
    if isinstance(network, Classifier) and tuple(image.shape[1:]) != network.spec.image_size:
        has, wants = (" × ".join(map(str, one)) for one in (image.shape[1:], network.spec.image_size))
        raise DataError(
            f"the picture is of {has} pixels, the model takes {wants}; bring it to that size, or give a file"
        )
    if image.dtype == torch.uint8:
        return image.cpu()
    if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):  # NaN is neither
        raise DataError("a picture must be uint8, or of floats in [0, 1] without NaN")
    return (image.detach().cpu() * LEVELS).round().byte()


class _SeenTwice(Classifier):
    """A classifier that sees pictures as they are and prepared once more, and gives the answer that is worse.

    A saved picture is a file like any other, so that it is resized and cut again when it is read, and noise
    that is made for one set of pixels seldom outlives that.
    """

    def __init__(self, network: Classifier, goal: Goal) -> None:
        super().__init__(network.network, network.spec)
        self.mean, self.std = network.mean, network.std
        self.goal = goal

    def forward(self, images: Tensor) -> Tensor:
        again = self.geometry(images)
        # Rounded, as Pillow does it; the gradient goes through as if it were not.
        again = again + ((again * LEVELS).round() / LEVELS - again).detach()
        answers = [super(_SeenTwice, self).forward(some) for some in (images, again)]
        classes = self.goal.classes.to(images.device).expand(len(images))
        left = [self.goal.descent(answer, classes, self.head) for answer in answers]
        worse: Tensor = torch.where((left[0] > left[1])[:, None], answers[0], answers[1])
        return worse


def _prepared(network: nn.Module, picture: Tensor) -> Tensor:
    """A picture, uint8 (C, H, W), prepared as a file of it would be."""
    if not isinstance(network, Classifier):
        return picture
    cut, _ = network.prepare(Image.fromarray(picture.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1)
