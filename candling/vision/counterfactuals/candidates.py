"""Suspicions: evidence maps of a class, pooled into the places and things that its predictions may hang on.

Maps of the pictures predicted as a class fall into a few clusters, as predictions have a few strategies
(SpRAy, Lapuschkin et al. 2019, "Unmasking Clever Hans predictors", Nature Communications 10:1096). Where the
mean map of a cluster gathers at the same pixels there is a *place*; evidence along the frame is a *border*;
the same look at varying places is a *patch*; what is not the object is the *background*. A candidate is a
suspicion, no more: `candling.vision.counterfactuals.places` tests it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from sklearn.cluster import SpectralClustering
from torch import Tensor

from candling.errors import DataError
from candling.vision.counterfactuals.foreground import estimated_foreground
from candling.vision.counterfactuals.recurring import correlations, fine, located, patches_at, peaks
from candling.vision.counterfactuals.regions import dilated, place_words, rim, ring, share_of
from candling.vision.isolation.resampling import smoothed

__all__ = ["Candidate", "Kind", "border_widths", "border_words", "clusters", "objects_of", "propose"]

Kind = Literal["place", "border", "patch", "background", "object"]

_GRID = 16  # pixels of the side at which maps are compared
_MOST_CLUSTERS = 4
_MOST_PLACES = 3
_LARGEST = 0.4  # of the picture: what is larger is no place
_POOLED = 0.05  # of the side, a Gaussian: where maps tell single pixels apart, a place is more than its peaks
_PEAK = 0.5  # of its highest value: where the mean map ends
_WORTH = 0.1  # of a cluster's evidence: what has less is no place
# Measured: watermarks correlate by 0.85 in all pictures, wheels and windows of drawn objects in an eighth.
_ALIKE = 0.85  # correlation of fine structure from which patches are the same thing
_FEWEST, _RECURS = 8, 0.25  # pictures that a patch recurs in, and share of them, at the least


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place or thing that predictions of a class may hang on.

    kind: what sort. target: the class, as an index. region: bool (H, W), the same in all pictures, or
    (N, H, W), of each picture its own, empty where it has none. words: where it is, for a sentence. pooled:
    float (H, W), the mean positive evidence of its pictures, which sums to 1. share_of_pictures: of those
    predicted as the class. share_of_evidence: of the positive evidence of its pictures, how much lies in it,
    on average. central: it may be the object, which no mask tells. estimated: the object was told from the
    background by a guess. recurs: the same content, nearly pixel by pixel, wherever it is.
    """

    kind: Kind
    target: int
    region: Tensor
    words: str
    pooled: Tensor
    share_of_pictures: float
    share_of_evidence: float
    central: bool = False
    estimated: bool = False
    recurs: bool = False

    @property
    def area(self) -> float:
        """Share of the picture; of regions of their own, the mean over the pictures that have one."""
        if self.region.dim() == 2:
            return share_of(self.region)
        there = self.region.flatten(1).any(1)
        return share_of(self.region[there]) if there.any() else 0.0

    @property
    def where(self) -> str:
        """The words without how much of the picture it covers."""
        return self.words.rpartition(", ")[0] or self.words

    def of(self, rows: Tensor) -> Tensor:
        """The regions bool (M, H, W) of pictures, by row."""
        if self.region.dim() == 2:
            return self.region.expand(len(rows), -1, -1)
        return self.region[rows]


def objects_of(images: Tensor, masks: Tensor | None) -> Tensor:
    """What is kept out of tests as the object, with a margin: bool (N, H, W), guessed where no mask tells.

    The margin is a thirty-second of the side, since a shadow at the foot tells the shape.
    """
    margin = max(1, min(images.shape[2:]) // 32)
    return dilated(estimated_foreground(images) if masks is None else masks, margin)


def clusters(maps: Tensor, *, seed: int = 0) -> list[Tensor]:
    """Rows of positive maps (M, H, W) that gather at the same places, the largest cluster first.

    Spectral clustering of maps of 16 × 16 with their nearest neighbours; as many clusters as the largest gap
    among the first eigenvalues of the graph's normalised Laplacian says (von Luxburg 2007, "A tutorial on
    spectral clustering", section 8.3), four at most. Fewer than 16 maps are one cluster.
    """
    count = len(maps)
    if count < 16:
        return [torch.arange(count)]
    small = F.adaptive_avg_pool2d(maps[:, None], (min(_GRID, maps.shape[1]), min(_GRID, maps.shape[2])))
    rows = F.normalize(small.flatten(1).sqrt(), dim=1).double()
    alike = (rows @ rows.T).clamp(0, 1).numpy()  # Bhattacharyya's coefficient
    neighbours = max(5, count // 8)
    nearest = np.argsort(-alike, 1)[:, :neighbours]
    graph = np.zeros_like(alike)
    np.put_along_axis(graph, nearest, np.take_along_axis(alike, nearest, 1), 1)
    graph = np.maximum((graph + graph.T) / 2, 1e-6)
    degree = 1 / np.sqrt(graph.sum(1))
    values = 1 - np.linalg.eigvalsh(degree[:, None] * graph * degree[None])[::-1][: _MOST_CLUSTERS + 1]
    number = int(np.argmax(np.diff(values))) + 1
    if number == 1:
        return [torch.arange(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the graph falls apart is what is looked for
        found = SpectralClustering(number, affinity="precomputed", random_state=seed).fit_predict(graph)
    groups = [torch.from_numpy(np.flatnonzero(found == one)) for one in range(number)]
    return sorted((group for group in groups if len(group)), key=lambda group: (-len(group), int(group[0])))


def propose(
    maps: Tensor,
    rows: Tensor,
    images: Tensor,
    target: int,
    *,
    masks: Tensor | None = None,
    objects: Tensor | None = None,
    seed: int = 0,
) -> list[Candidate]:
    """Candidates of one class.

    The border and the background are suspected always: where all of it says the same, hiding a window of it
    changes little, and maps are blind to it.

    Parameters
    ----------
    maps
        float (M, H, W), evidence for the class in pictures predicted as it.
    rows
        int (M,), which pictures these are.
    images
        float (N, 3, H, W) in [0, 1], all pictures.
    target
        The class, as an index.
    masks
        bool (N, H, W) of objects and all else that is expected to count; None: not known.
    objects
        As `objects_of` gives it, which is asked where None.

    Raises
    ------
    DataError
        If there are no maps, or sizes do not go together.
    """
    size = (images.shape[2], images.shape[3])
    if not len(maps):
        raise DataError(f"no picture is predicted as class {target}, so there are no maps to pool")
    for name, given in (("maps", maps), ("masks", masks)):
        if given is not None and tuple(given.shape[-2:]) != size:
            raise DataError(f"{name} of {tuple(given.shape[-2:])} pixels do not fit pictures of {size}")
    if len(maps) != len(rows):
        raise DataError(f"{len(maps)} maps need as many rows of pictures, not {len(rows)}")
    objects = objects_of(images, masks) if objects is None else objects
    positive = smoothed(maps.clamp_min(0)[:, None].double(), _POOLED)[:, 0]
    total = positive.sum((1, 2), keepdim=True)
    seen = total.flatten() > 0
    if not seen.any():
        return []
    positive, rows = (positive / total.clamp_min(1e-300))[seen].float(), rows[seen]
    whole = positive.mean(0)
    places = list(_places(positive, rows, target, None if masks is None else objects, seed))
    found = [*places, *_patches(positive, rows, images, target, places, masks, objects)]
    edge = _border(whole)
    found.append(Candidate("border", target, edge, border_words(edge), whole, 1.0, float(whole[edge].sum())))
    background = ~objects
    if background.any():
        share = float((positive * background[rows]).sum((1, 2)).mean())
        name = "the background" if masks is not None else "what looks like the background"
        words = f"{name}, {share_of(background[rows]):.0%} of the picture"
        found.append(
            Candidate("background", target, background, words, whole, 1.0, share, estimated=masks is None)
        )
    if masks is not None:
        share = float((positive * objects[rows]).sum((1, 2)).mean())
        words = f"the object, {share_of(objects[rows]):.0%} of the picture"
        found.append(Candidate("object", target, objects, words, whole, 1.0, share))
    return found


def _places(
    positive: Tensor, rows: Tensor, target: int, objects: Tensor | None, seed: int
) -> Iterator[Candidate]:
    """Where the mean maps of clusters peak, each place once."""
    size = (positive.shape[1], positive.shape[2])
    told: list[Tensor] = []
    for group in clusters(positive, seed=seed):
        pooled = positive[group].mean(0)
        peak = pooled >= _PEAK * pooled.max()
        parts, number = ndimage.label(
            ndimage.binary_closing(np.pad(peak.numpy(), 2), iterations=1)[2:-2, 2:-2]
        )
        regions = [torch.from_numpy(parts == one) for one in range(1, number + 1)]
        regions.sort(key=lambda region: -float(pooled[region].sum()))
        for region in regions[:2]:
            share = float(pooled[region].sum())
            small = int(region.sum()) >= 4 and share_of(region) <= _LARGEST
            if not small or share < max(_WORTH, 1.5 * share_of(region)):
                continue
            if any(float((region & one).sum()) > 0.5 * min(region.sum(), one.sum()) for one in told):
                continue
            kind: Kind = "place"
            central = False
            if objects is not None:
                weight = positive[group] * region
                if float((weight * objects[rows[group]]).sum() / weight.sum()) > 0.5:
                    kind = "object"
            else:
                off = region & rim(size)
                central = float(off.sum()) < 0.6 * float(region.sum())
                region = region if central else off
            told.append(region)
            share_of_pictures = len(group) / len(positive)
            words = place_words(region)
            if kind == "object":
                words = f"the object, at {words}"
            yield Candidate(kind, target, region, words, pooled, share_of_pictures, share, central=central)
            if len(told) == _MOST_PLACES:
                return


def border_widths(size: tuple[int, int]) -> list[int]:
    """Pixels of the rings that are tried, from narrow to wide: up to an eighth of the side."""
    return sorted({max(1, round(min(size) * share)) for share in (1 / 32, 1 / 20, 1 / 12, 1 / 8)})


def border_words(region: Tensor) -> str:
    """A ring in words."""
    return f"the border, {share_of(region):.0%} of the picture"


def _border(pooled: Tensor) -> Tensor:
    """The ring that holds most evidence beyond its area."""
    rings = [
        ring((pooled.shape[0], pooled.shape[1]), width)
        for width in border_widths((pooled.shape[0], pooled.shape[1]))
    ]
    return max(rings, key=lambda one: float(pooled[one].sum()) - share_of(one))


def _patches(
    positive: Tensor,
    rows: Tensor,
    images: Tensor,
    target: int,
    places: list[Candidate],
    masks: Tensor | None,
    objects: Tensor,
) -> Iterator[Candidate]:
    """The look that recurs at the peaks of evidence, where it does not recur at the same place."""
    size = (images.shape[2], images.shape[3])
    side = max(4, round(min(size) / 5))
    reach = max(1, side // 3)
    count = len(positive)
    if count < _FEWEST or side + 2 * reach > min(size):
        return
    structure = fine(images, 2 * (side // 5) + 1)
    own = structure[rows]
    corners = peaks(positive, side)
    cut = patches_at(own, corners, side)
    # The window that is searched must lie in the picture.
    limits = torch.tensor(size) - (side + 2 * reach)
    around = patches_at(own, (corners - reach).clamp_min(0).minimum(limits), side + 2 * reach)
    alike = correlations(cut, around).amax((2, 3))
    alike = torch.maximum(alike, alike.T).fill_diagonal_(0)
    hub = int((alike >= _ALIKE).sum(1).argmax())
    same = torch.nonzero(alike[hub] >= _ALIKE).flatten()
    recurs = len(same) + 1 >= max(_FEWEST, _RECURS * count)
    group = torch.cat([torch.tensor([hub]), same]) if recurs else torch.arange(count)
    regions = torch.zeros(len(images), *size, dtype=torch.bool)
    if recurs:
        found, likeness = located(cut[hub], structure)
        chosen = torch.nonzero(likeness >= _ALIKE).flatten()
        tops = found[chosen]
    else:
        chosen, tops = rows, corners
    for row, (top, left) in zip(chosen.tolist(), tops.tolist(), strict=True):
        regions[row, top : top + side, left : left + side] = True
    mean = regions[chosen].float().mean(0)
    if float(mean.max()) > 0.7:
        return  # at the same pixels almost always: a place
    weight = positive[group] * regions[rows[group]]
    share = float(weight.sum((1, 2)).mean())
    on_object = float((weight * objects[rows[group]]).sum() / weight.sum().clamp_min(1e-12)) > 0.5
    pooled = positive[group].mean(0)
    area = f"{(side / size[0]) * (side / size[1]):.0%} of the picture"
    if recurs:
        words = f"a patch that recurs at varying places, {area}"
    else:
        words = f"the patches where evidence peaks, {area}"
    kind: Kind = "object" if on_object and masks is not None else "patch"
    if kind == "object":
        words = f"the object, in {words}"
    yield Candidate(
        kind, target, regions, words, pooled, len(group) / count, share,
        central=masks is None and not recurs, recurs=recurs,
    )  # fmt: skip
