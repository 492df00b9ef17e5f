"""Trust: which prototypes to believe.

An optimiser always brings home a picture and a high logit, also from a network that has learned nothing.
Four questions tell the pictures apart, each 0 where the answer is what chance gives and 1 at best:

- ``unseen``: does the class hold under transforms that the optimiser never used?
- ``agreement``: do other seeds of the class end up with the same features?
- ``path``: do the layers work on it as on natural pictures of the class (Geirhos et al. 2023, "Don't trust
  your eyes", arXiv 2306.04719, section on path similarity; Prototype Generation, arXiv 2309.17144)?
- ``transfer``: does a second model see the class in it?

`judge` sums them up. The path says the most: adversarial noise and pictures optimised without a prior hold
under transforms and agree among themselves, but take another way through the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import DataError, ModelError
from candling.models import Classifier, batch_size, evaluating, input_shape, layers, logits, probabilities
from candling.models.heads import probes
from candling.models.reading import recording

__all__ = [
    "FEWEST",
    "PathSimilarity",
    "Trust",
    "agreement",
    "judge",
    "path_layers",
    "path_pictures",
    "path_similarity",
    "transfer",
]

FEWEST = 3  # natural pictures of a class that path similarity needs, so that there is a spread

_UNITS = 4096  # of a layer's outputs that are ranked
_PANEL = 200  # natural pictures, about, that floor and ceiling are measured on
_CLEAR = 3.0  # standard errors by which the ceiling must lie above the floor


@dataclass(frozen=True)
class PathSimilarity:
    """How much like natural pictures of their class prototypes go through the layers.

    layers: L names, in the order in which they ran. floor, ceiling: (L,) float32 mean rank correlation of
    natural pictures of a class with those of other classes, and with each other. speaks: (L,) bool, whether
    the layer tells natural pictures of the classes apart. values: (R, L) float32, 0 at the floor and 1 at
    the ceiling, neither of them a limit; NaN where the layer does not speak. likeness: (R, L) float32 in
    [0, 1], how near to natural pictures of its own class, 1 where it is as near as they are to each other.
    score: (R,) float32, the mean likeness over layers; 0 where no layer speaks, NaN for rows that cannot be
    judged. reason: one sentence for people where no layer speaks or rows are NaN, else "".
    """

    layers: tuple[str, ...]
    floor: Tensor
    ceiling: Tensor
    speaks: Tensor
    values: Tensor
    likeness: Tensor
    score: Tensor
    reason: str = ""


@dataclass(frozen=True)
class Trust:
    """Trust in rows of prototypes; all are (R,) float32 in [0, 1] where 0 is chance.

    A component is None where it was not measured, and NaN in rows for which it could not be.
    """

    unseen: Tensor
    agreement: Tensor | None
    path: Tensor | None
    transfer: Tensor | None
    score: Tensor

    @property
    def components(self) -> tuple[str, ...]:
        """Names of those that were measured."""
        names = ("unseen", "agreement", "path", "transfer")
        return tuple(name for name in names if getattr(self, name) is not None)


def judge(
    unseen: Tensor,
    *,
    chance: float = 0.0,
    agreement: Tensor | None = None,
    path: Tensor | None = None,
    transfer: Tensor | None = None,
) -> Trust:
    """Sum components up as one score.

        score = (u · a · p · t) ^ (1 / how many of these were measured)

    where u and t are the probability of the own class, the second lowest under unseen transforms and that in
    the second model, over chance: max(0, (P - chance) / (1 - chance)); a is the agreement and p the path
    similarity. A geometric mean, because none of them makes up for another that says "no more than chance".
    The second lowest, because one transform may make another class of a sound picture, as the mirror does of
    slanted stripes.

    Parameters
    ----------
    unseen
        (R, T) probability of the own class under T transforms.
    chance
        What a model that knows nothing gives, in [0, 1): 1/K for softmax over K classes, 1/2 for sigmoids.
    agreement, path, transfer
        (R,) of `agreement`, of `path_similarity` its score, and of `transfer`; NaN in rows without.

    Raises
    ------
    ValueError
        If `chance` is out of range or lengths differ.
    """
    if not 0 <= chance < 1:
        raise ValueError(f"chance must be from 0 to below 1, got {chance}")

    def over_chance(probability: Tensor) -> Tensor:
        return (probability.float() - chance) / (1 - chance)

    found = {
        "unseen": over_chance(unseen).kthvalue(min(2, unseen.shape[1]), dim=1).values,
        "agreement": agreement,
        "path": path,
        "transfer": None if transfer is None else over_chance(transfer),
    }
    clamped = {k: None if v is None else v.detach().float().cpu().clamp(0, 1) for k, v in found.items()}
    measured = [value for value in clamped.values() if value is not None]
    if any(value.shape != (len(unseen),) for value in measured):
        raise ValueError(f"{len(unseen)} rows need as many values of each component")
    table = torch.stack(measured)
    known = ~table.isnan()
    score = torch.where(known, table, 1.0).prod(0) ** (1 / known.sum(0))
    return Trust(**clamped, score=score)  # type: ignore[arg-type]


def agreement(features: Tensor, classes: Tensor) -> Tensor | None:
    """How much more the seeds of a class agree than prototypes of different classes do.

        (s - o) / (1 - o)

    clamped to [0, 1], where s is the mean cosine of a row with the other seeds of its class and o that with
    the prototypes of other classes, of features centred on the mean over classes.

    Parameters
    ----------
    features
        (R, D) penultimate features.
    classes
        (R,) the class of each row.

    Returns
    -------
    Tensor or None
        (R,) float32, NaN for classes of one row; None if all are, or all rows are of one class.
    """
    same = classes[:, None] == classes[None]
    rivals = (~same).sum(1)
    siblings = same.sum(1) - 1
    if not len(classes) or not rivals.any() or not siblings.any():
        return None
    # Each class counts once, however many seeds it has.
    weights = 1 / same.sum(1).float()
    centre = (weights[:, None] * features.float()).sum(0) / weights.sum()
    unit = F.normalize(features.float() - centre, dim=1)
    cosines = unit @ unit.T
    own = ((cosines * same).sum(1) - cosines.diagonal()) / siblings
    others = (cosines * ~same).sum(1) / rivals
    value = ((own - others) / (1 - others).clamp_min(1e-6)).clamp(0, 1)
    return torch.where(siblings > 0, value, torch.nan)


def transfer(second: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Probability (R,) of the class in a second model, whose classes are in the same order.

    Parameters
    ----------
    second
        A `Classifier` gets `images` at its own size, any other module as they are.
    images
        Float (R, C, H, W) in [0, 1].
    classes
        (R,) the class of each row.

    Raises
    ------
    ModelError
        If the second model has fewer classes, or returns NaN.
    """
    if isinstance(second, Classifier) and tuple(images.shape[2:]) != tuple(second.spec.image_size):
        images = second.geometry(images)
    found = probabilities(second, logits(second, images.to(_device(second, images)))).cpu()
    if int(classes.max()) >= found.shape[1]:
        raise ModelError(
            f"the second model has {found.shape[1]} classes, but there is a prototype of class "
            f"{int(classes.max())} (they count from 0); give one with the same classes in the same order"
        )
    return found.gather(1, classes.cpu()[:, None])[:, 0]


def path_layers(
    model: nn.Module, image_size: tuple[int, int], count: int = 8, *, channels: int | None = None
) -> tuple[str, ...]:
    """Up to `count` layers spread over the depth, in the order in which they run.

    Outputs of blocks (modules made of others), since they come after normalisation and nonlinearity; where
    there are fewer than four, those of single layers with weights too. Outputs without places (one vector a
    picture) are left out.
    """
    network = model.network if isinstance(model, Classifier) else model
    blocks, single = [], []
    for layer in layers(model, image_size, channels):
        if layer.output_shape is None or len(layer.output_shape) < 2 or not layer.parameters:
            continue
        if next(network.get_submodule(layer.name).children(), None) is not None:
            blocks.append(layer.name)
        elif "Norm" not in layer.kind:
            single.append(layer.name)
    with torch.no_grad(), evaluating(model), recording(model, blocks + single) as seen:
        # Noise: mid grey may be normalised to zero, of which every layer makes zero.
        model(probes(image_size, input_shape(model, image_size, channels)[0])[:1].to(_device(model)))
    ran: list[str] = []
    for names in (blocks, blocks + single):
        ran = []
        for name in (one for one in seen if one in names):
            # A container returns what its last module returned.
            if not ran or not torch.equal(seen[ran[-1]], seen[name]):
                ran.append(name)
        if len(ran) >= 4:
            break
    spread = torch.linspace(0, len(ran) - 1, min(count, len(ran))).round().long()
    return tuple(ran[i] for i in spread)


def path_pictures(
    classes: Tensor, labels: Tensor, pictures_per_class: int = 20
) -> tuple[Tensor, dict[int, Tensor]]:
    """Rows of the natural pictures that `path_similarity` looks at.

    Parameters
    ----------
    classes, labels
        Those of prototypes and of natural pictures, as for `path_similarity`.

    Returns
    -------
    Tensor, dict
        The panel, int64 (P,), on which floor and ceiling are measured, and for each class of prototypes that
        has enough natural pictures those; nothing where there are not two classes with enough.
    """

    def drawn(c: int, at_most: int) -> Tensor:
        return _draw((labels == c).nonzero()[:, 0], at_most, c)

    known = [c for c in labels.unique().tolist() if int((labels == c).sum()) >= FEWEST]
    if len(known) < 2:
        return torch.empty(0, dtype=torch.long), {}
    some = _draw(torch.tensor(known), _PANEL // FEWEST, len(known)).tolist()
    each = min(pictures_per_class, max(FEWEST, _PANEL // len(some)))
    panel = torch.cat([drawn(c, each) for c in some])
    return panel, {c: drawn(c, pictures_per_class) for c in sorted(set(classes.tolist()) & set(known))}


def path_similarity(
    model: nn.Module,
    prototypes: Tensor,
    classes: Tensor,
    pictures: Tensor,
    labels: Tensor,
    *,
    layers: Sequence[str] | None = None,
    pictures_per_class: int = 20,
) -> PathSimilarity:
    """Rank correlation of a prototype's activations with those of natural pictures of its class, by layer.

        likeness = exp(-max(0, (c - s) / sd))

    where s is the mean correlation of the prototype with natural pictures of its class, and c and sd are the
    mean and standard deviation over these pictures of their own with the others. The score is the mean over
    layers. Between floor and ceiling (`values`), a sound prototype of a network whose middle layers hardly
    tell classes apart lies far below 0, as noise does; likeness, whose unit is how much natural pictures
    differ, ranks the two there too.

    Activations are taken as they are, place by place and not standardised, as Geirhos et al. do. Averaged
    over places, or in standard deviations from their mean over natural pictures, they hardly tell pixels
    without a prior and adversarial noise from a sound prototype; as they are, these lie at or below the floor
    in the middle of the network.

    A layer that does not tell the classes of natural pictures apart has no values: where the ceiling is not
    at least three standard errors (over pictures) above the floor, the scale between them would be made of
    noise. And unless such a layer tells the classes apart more than the pixels do, again by three standard
    errors, the network has learned nothing of them and no layer speaks: random weights pass on that dishes
    differ in colour, but add nothing. Then the score is 0 and not missing, because the natural pictures were
    looked at and nothing in the network speaks for its prototypes.

    A row does not depend on the others.

    Parameters
    ----------
    model
        Left as it was found.
    prototypes
        (R, C, H, W), uint8 or float in [0, 1].
    classes
        (R,) the class of each.
    pictures
        (N, C, H, W) natural pictures at the same size, uint8 or float in [0, 1].
    labels
        (N,) their classes. Floor and ceiling are those of all classes, with or without prototypes; of
        hundreds, some stand for all.
    layers
        Module paths; None: `path_layers`.
    pictures_per_class
        At most so many natural pictures of a class are looked at, at least 3. Which ones depends on the class
        and on how many there are. At most 4096 values of each layer's output are.

    Raises
    ------
    DataError
        If prototypes and pictures differ in size.
    ModelError
        If there is no such layer, or the model is a black box.
    """
    if prototypes.shape[1:] != pictures.shape[1:]:
        raise DataError(
            f"prototypes of {tuple(prototypes.shape[1:])} (channels, height, width) cannot be compared with "
            f"pictures of {tuple(pictures.shape[1:])}; bring the pictures to the size of the prototypes"
        )
    classes, labels = classes.cpu(), labels.cpu()
    planes, height, width = prototypes.shape[1:]
    found = path_layers(model, (height, width), channels=planes) if layers is None else layers
    names = tuple(found)
    count = len(names)
    similarity = torch.full((len(prototypes), count), torch.nan)
    panel, own_pictures = path_pictures(classes, labels, pictures_per_class)
    likeness = similarity.clone()
    if not count or not len(panel):
        unknown = torch.full((count,), torch.nan)
        return PathSimilarity(
            names, unknown, unknown, torch.zeros(count, dtype=torch.bool), similarity, likeness,
            torch.full((len(prototypes),), torch.nan),
            f"there are not two classes with {FEWEST} natural pictures each" if count else
            "the model has no layer whose output has places",
        )  # fmt: skip

    below, above = _floor_and_ceiling(_ranked(model, pictures[panel], names), labels[panel])
    gap = above - below
    speaks = _clearly_positive(gap[:, 1:])
    if not (speaks & _clearly_positive(gap[:, 1:] - gap[:, :1])).any():
        speaks = torch.zeros_like(speaks)
    for c, kept in own_pictures.items():
        natural = _ranked(model, pictures[kept], names)[1:]
        rows = _ranked(model, prototypes[classes == c], names)[1:]
        pairs = zip(rows, natural, strict=True)
        similarity[classes == c] = torch.stack([row @ one.mean(0) for row, one in pairs], 1)
        own = torch.stack([_with_others(one) for one in natural], 1)
        below_own = (own.mean(0) - similarity[classes == c]) / own.std(0).clamp_min(1e-3)
        likeness[classes == c] = torch.exp(-below_own.clamp_min(0))
    floor, ceiling = below.mean(0)[1:], above.mean(0)[1:]
    values = (similarity - floor) / torch.where(speaks, ceiling - floor, torch.nan)
    judged = ~similarity.isnan().any(1)
    score, reason = likeness.mean(1), ""
    if not speaks.any():
        score = torch.where(judged, 0.0, torch.nan)
        reason = "no layer tells natural pictures of the classes apart more than their pixels do"
    elif not judged.all():
        count = int((~judged).sum())
        reason = f"{count} prototypes are of classes with fewer than {FEWEST} natural pictures"
    return PathSimilarity(names, floor, ceiling, speaks, values, likeness, score, reason)


def _with_others(unit: Tensor) -> Tensor:
    """Mean product (N,) of each row of (N, U) with the other rows."""
    return ((unit @ unit.sum(0)) - unit.square().sum(1)) / (len(unit) - 1)


def _floor_and_ceiling(ranked: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean correlation (N, 1 + L) of each picture with those of other classes, and with others of its own."""
    same = labels[:, None] == labels[None]
    below, above = [], []
    for unit in ranked:
        correlation = unit @ unit.T
        below.append((correlation * ~same).sum(1) / (~same).sum(1))
        above.append(((correlation * same).sum(1) - correlation.diagonal()) / (same.sum(1) - 1))
    return torch.stack(below, 1), torch.stack(above, 1)


def _clearly_positive(values: Tensor) -> Tensor:
    """Whether the mean over rows (N, L) is some standard errors above zero."""
    error = values.std(0) / len(values) ** 0.5
    clear: Tensor = values.mean(0) > (_CLEAR * error).clamp_min(1e-6)
    return clear


def _draw(rows: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` of the rows, chosen by the seed alone."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]


def _device(model: nn.Module, default: Tensor | None = None) -> torch.device:
    fallback = torch.device("cpu") if default is None else default.device
    return next((p.device for p in model.parameters()), fallback)


@torch.no_grad()
def _ranked(model: nn.Module, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Ranks (N, U) of each image's pixels, then of each layer's outputs for it, centred and of length one.

    Their dot products are Spearman's rank correlations.
    """
    parts: list[list[Tensor]] = [[] for _ in (None, *names)]
    device = _device(model, images)
    with evaluating(model), recording(model, names) as seen:
        for batch in images.split(batch_size(images.shape[2:], device)):
            unit = batch.to(device).float() / (255 if batch.dtype == torch.uint8 else 1)
            model(unit.contiguous(memory_format=torch.channels_last))
            for part, values in zip(parts, (unit, *(seen[name] for name in names)), strict=True):
                part.append(_ranks(values.flatten(1).float()).cpu())
    return [torch.cat(part) for part in parts]


def _ranks(values: Tensor) -> Tensor:
    """Ranks of values (N, U) within each row, centred and of length one; of many values some are drawn."""
    width = values.shape[1]
    if width > _UNITS:
        values = values[:, _draw(torch.arange(width), _UNITS, width).to(values.device)]
    values = values.contiguous()
    ordered = values.sort(1).values
    # Equal values share the mean of their ranks: half of the rectified outputs are zero.
    ranks = (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).float()
    return F.normalize(ranks - ranks.mean(1, keepdim=True), dim=1)
