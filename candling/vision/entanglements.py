"""`candling.entanglement`: which classes a model keeps close together, as a result that shows itself."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from candling.data import Pictures
from candling.errors import DataError, ParamsError
from candling.models import logits
from candling.models.running import refuse_black_box
from candling.statistics import Estimate
from candling.vision import gallery
from candling.vision.asking import Model, Natural, Size, names_of, natural_of, opened, places, shape_of
from candling.vision.climbing import Climb, row_generator
from candling.vision.entanglement import (
    TOP,
    Entanglement,
    confusions,
    directed_table,
    draw,
    embedding_similarity,
    head_weights,
    hierarchy_similarity,
    name_similarity,
    pair_table,
    rank_correlation,
    surprising,
)
from candling.vision.entanglement import entanglement as entanglement_of
from candling.vision.parameterisations import backgrounds
from candling.vision.preflight import as_scores, class_count
from candling.vision.priors import Prior, natural_prior
from candling.vision.prototypes import over_grey
from candling.vision.results import Visualizations
from candling.vision.visualization import Tell, prototypes

__all__ = ["Entanglements", "entanglement"]

_DRAWN = 256  # pictures that set the scale where none are given
_LISTED = 12  # pairs in a repr


@dataclass(frozen=True, eq=False, repr=False)
class Entanglements:
    """Which classes excite each other, and which pairs nobody would have thought of.

    found: the matrices of K classes with intervals, p- and q-values. names: of these K. prototypes: what they
    were measured on. surprising: a table of pairs that are significantly entangled beyond what `explained_by`
    explains, with class, other, mutual, q and surprise. confusion, attacks: Spearman's rank correlation with
    the confusions of the pictures, and with the costs of attacks; None where not measured. notes: sentences
    on what was not measured, and why.
    """

    found: Entanglement
    names: tuple[str, ...]
    prototypes: Visualizations
    surprising: pd.DataFrame
    explained_by: tuple[str, ...]
    confusion: Estimate | None = None
    attacks: Estimate | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def table(self) -> pd.DataFrame:
        """What each class's prototypes excite most; see `candling.vision.entanglement.directed_table`."""
        return directed_table(self.found, self.names)

    @property
    def pairs(self) -> pd.DataFrame:
        """Pairs, the strongest first; see `candling.vision.entanglement.pair_table`."""
        return pair_table(self.found, self.names, top=TOP * len(self.names))

    def heatmap(self, *, rate: float = 0.05) -> Image.Image:
        """The directed matrix, clustered; dots are pairs significant at this false-discovery rate."""
        return draw(self.found, self.names, rate=rate)

    def save(self, folder: Path | str) -> None:
        """Write ``entanglement.parquet`` (the table) and ``entanglement.png``: whole, or not at all.

        Raises
        ------
        ParamsError, ServiceError
            See `candling.vision.gallery.write_page`.
        """
        gallery.write_page(folder, self.heatmap(), self.table, name="entanglement")

    def __repr__(self) -> str:
        pairs = self.pairs.head(_LISTED).to_string(index=False, float_format=lambda value: f"{value:.3g}")
        return "\n".join([self._head, pairs, *self._said])

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.heatmap().save(buffer, "PNG")
        picture = base64.b64encode(buffer.getvalue()).decode()
        said = "".join(
            f'<p style="font-size:small;margin:4px 0">{html.escape(line)}</p>'
            for line in (self._head, *self._said)
        )
        pairs = self.pairs.head(_LISTED).to_html(
            index=False, float_format=lambda value: f"{value:.3g}", border=0
        )
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:12px">'
            f'<img src="data:image/png;base64,{picture}" alt="entanglement of {len(self)} classes">'
            f"<div>{pairs}{said}</div></div>"
        )

    @property
    def _head(self) -> str:
        tested = int((~np.isnan(self.found.pair_p)).sum()) // 2
        significant = len(self.found.significant())
        return (
            f"Entanglement of {len(self)} classes: {significant} of {tested} pairs excite each other more "
            "than unrelated classes do (false-discovery rate 0.05)"
        )

    @property
    def _said(self) -> list[str]:
        """What is known beside the matrix, a sentence each."""
        said = []
        for name, estimate in (("confusions", self.confusion), ("costs of attacks", self.attacks)):
            if estimate is not None:
                value, low, high, _ = estimate
                said.append(f"rank correlation with {name}: {value:.2f} [{low:.2f}, {high:.2f}]")
        if len(self.surprising):
            pairs = (
                f"{row.name} and {row.other}"
                for row in self.surprising.rename(columns={"class": "name"}).itertuples()
            )
            said.append(f"beyond what {', '.join(self.explained_by)} explain: {'; '.join(pairs)}")
        return [*said, *self.notes]


def entanglement(
    model: Model,
    classes: str | int | Iterable[str | int] | None = None,
    *,
    pictures: Tensor | Pictures | None = None,
    labels: Tensor | Sequence[int] | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    settings: Climb | None = None,
    hierarchy: Mapping[str, str] | None = None,
    costs: NDArray[np.float64] | None = None,
    prior: Prior | Literal["natural", "fitted"] = "natural",
    size: Size | None = None,
    channels: int | None = None,
    names: Sequence[str] = (),
    folder: Path | str | None = None,
    batch: int | None = None,
    progress: Tell = None,
    **changes: Any,
) -> Entanglements:
    """Which classes' prototypes excite which other classes, more than unrelated prototypes do.

    See `candling.vision.entanglement` for the formula, and its `null` for the test.

    Parameters
    ----------
    model
        As for `candling.prototypes`.
    classes
        Names or places of logits, two at least; None: all.
    pictures, labels
        Natural pictures (N, C, H, W) at the size of the prototypes, which set the scale, and the class of
        each, for the rank correlation with confusions: pictures that the model was not trained on. None:
        pictures are drawn from the prior of photographs.
    seeds, steps, settings, changes, prior, size, channels, names, folder, batch, progress
        As for `candling.prototypes`.
    hierarchy
        Class to parent, and parent to its own: what `surprising` takes for explained.
    costs
        (K, K) of attacks from the row's class to the column's, of the classes asked for in their order.

    Returns
    -------
    Entanglements
        That shows itself in a notebook.

    Raises
    ------
    ParamsError
        If there are fewer than two classes, there is no such class or setting, or the hierarchy names no
        class.
    DataError
        If pictures are not of the prototypes' shape, or costs are of another number of classes.
    ModelError
        If the model cannot be read, is a black box, does not take such pictures, or gives no gradient.
    """
    network = opened(model)
    refuse_black_box(network, "its gradient")
    natural = natural_of(pictures, labels)
    shape = shape_of(network, size, channels, prior if isinstance(prior, Prior) else None, natural)
    network, read = as_scores(network, shape, names)
    count = class_count(network, shape)
    known = names_of(network, names, count)
    chosen = places(classes, known, count)
    if len(chosen) < 2:
        raise ParamsError("entanglement is of two classes or more; ask for another one")
    if costs is not None and np.shape(costs) != (len(chosen), len(chosen)):
        raise DataError(f"costs of attacks are of shape {np.shape(costs)}; there are {len(chosen)} classes")
    if natural is not None:
        natural.check(shape, count)
    titles = tuple(known[c] for c in chosen)
    alike = {}
    if any(not title.isdecimal() for title in titles):
        alike["names"] = name_similarity(titles)
    if (weights := head_weights(network, count)) is not None:
        alike["weights of the head"] = embedding_similarity(weights)[np.ix_(chosen, chosen)]
    if hierarchy is not None:
        alike["the hierarchy"] = hierarchy_similarity(titles, hierarchy, known)
    made = prototypes(
        network, chosen, seeds=seeds, steps=steps, settings=settings, pictures=pictures, labels=labels,
        prior=prior, size=shape[1:], channels=shape[0], names=names, folder=folder, batch=batch,
        progress=progress, **changes,
    )  # fmt: skip
    device = next((one.device for one in network.parameters()), made.images.device)
    opaque = over_grey(made.images) if made.settings.alpha else made.images
    drawn = backgrounds(natural_prior(shape[1:], shape[0]), row_generator("natural logits"), _DRAWN)
    scale = logits(network, (drawn if natural is None else natural.images).to(device), batch=batch).cpu()
    owners = torch.from_numpy(made.table["class"].to_numpy().copy())
    answers = logits(network, opaque.to(device), batch=batch).cpu()
    found = entanglement_of(answers, owners, scale, classes=chosen)
    confusion = _confusion(found, natural, scale)
    attacks = (
        None if costs is None else rank_correlation(found.mutual, costs=np.asarray(costs, dtype=np.float64))
    )
    listed = surprising(found, list(alike.values()))
    table = pd.DataFrame(
        {
            "class": [titles[c] for c, _, _ in listed],
            "other": [titles[k] for _, k, _ in listed],
            "mutual": [float(found.mutual[c, k]) for c, k, _ in listed],
            "q": [float(found.pair_q[c, k]) for c, k, _ in listed],
            "surprise": [score for _, _, score in listed],
        }
    )
    notes = (*read, *_notes(found, titles, natural, confusion))
    return Entanglements(found, titles, made, table, tuple(alike), confusion, attacks, notes)


def _confusion(found: Entanglement, natural: Natural | None, scale: Tensor) -> Estimate | None:
    if natural is None or natural.labels is None:
        return None
    counts = confusions(natural.labels.numpy(), scale.argmax(1).numpy(), np.array(found.classes))
    return rank_correlation(found.mutual, counts=counts)


def _notes(
    found: Entanglement, names: Sequence[str], natural: Natural | None, confusion: Estimate | None
) -> list[str]:
    """What the result does not rest on."""
    notes = []
    if natural is None:
        notes.append(
            f"the scale is that of {_DRAWN} pictures drawn from the prior of photographs, as none were given"
        )
    if natural is None or natural.labels is None:
        notes.append("confusions were not looked at; pictures with labels would give them")
    elif confusion is None:
        notes.append("no rank correlation with confusions: there are too few pairs, or none is confused")
    silent = [name for name, n in zip(names, found.n, strict=True) if not n]
    if silent:
        notes.append(
            f"{len(silent)} of {len(names)} classes have no prototype that excites them ({silent[0]}); "
            "more steps or starts=8 may help"
        )
    if len(names) == 2 and not silent:
        notes.append("of two classes alone nothing is unrelated, so that nothing is tested")
    elif np.isnan(found.pair_p).all():
        notes.append("too few classes to tell what is more than unrelated classes do; four would give it")
    return notes
