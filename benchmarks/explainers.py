"""Other ways to isolate, for `benchmarks.isolation` to measure ours against.

`rise` and `hipe` are straight implementations of what their papers say, one image at a time; captum's and
TorchRay's are those packages' own. What is masked out is replaced as the papers have it, where a network's
zero is the mean colour of its normalisation, `Classifier.mean`.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import ask
from benchmarks.subjects import Explained
from candling.models import Classifier, evaluating, logits, probabilities

__all__ = [
    "OTHERS",
    "Made",
    "captum_grad_cam",
    "captum_integrated_gradients",
    "captum_occlusion",
    "hipe",
    "last_convolution",
    "made_by",
    "random_masks",
    "rise",
    "timed",
    "torchray",
]


@dataclass(frozen=True)
class Made:
    """A map (H, W), larger where the class depends more on the pixel, and what it cost.

    evaluations: images that went through the model, forward or backward, each counted once. seconds: of the
    processor.
    """

    map: Tensor
    evaluations: int
    seconds: float


def timed(explain: Callable[[], tuple[Tensor, int]]) -> Made:
    """What `explain` returns, a map and evaluations, with the seconds of the processor that it took."""
    began = time.process_time()
    found, evaluations = explain()
    return Made(found.detach().float(), evaluations, time.process_time() - began)


# -- RISE ------------------------------------------------------------------------------------------


def random_masks(
    size: tuple[int, int], count: int, generator: torch.Generator, *, cells: int = 7, share: float = 0.5
) -> Tensor:
    """Smooth random masks (count, H, W) in [0, 1] (Petsiuk et al. 2018, arXiv 1806.07421, section 3.2).

    A grid of `cells` × `cells`, each cell 1 with probability `share`, enlarged bilinearly to one cell more
    than the image, from which the image is cut at random.
    """
    grids = (torch.rand(count, 1, cells, cells, generator=generator) < share).float()
    side = [math.ceil(length / cells) for length in size]
    large = F.interpolate(
        grids, size=[(cells + 1) * length for length in side], mode="bilinear", align_corners=False
    )
    tops, lefts = (torch.randint(0, length, (count,), generator=generator).tolist() for length in side)
    return torch.stack(
        [one[0, y : y + size[0], x : x + size[1]] for one, y, x in zip(large, tops, lefts, strict=True)]
    )


def rise(
    model: nn.Module, image: Tensor, label: int, fill: Tensor, *, count: int = 4000, seed: int = 0
) -> tuple[Tensor, int]:
    """RISE (Petsiuk et al. 2018, arXiv 1806.07421): mean of random masks, each weighted by the probability.

    Parameters
    ----------
    image
        (3, H, W) in [0, 1].
    fill
        (3, 1, 1), the colour of what is masked out.
    """
    generator = torch.Generator().manual_seed(seed)
    total, size = torch.zeros(image.shape[1:]), (image.shape[1], image.shape[2])
    for start in range(0, count, 100):
        masks = random_masks(size, min(100, count - start), generator)
        shown = fill + (image - fill) * masks[:, None]
        weights = probabilities(model, logits(model, shown))[:, label]
        total += torch.einsum("n,nhw->hw", weights, masks)
    return total / (count * 0.5), count


# -- HiPe ------------------------------------------------------------------------------------------


def hipe(
    model: nn.Module, image: Tensor, label: int, *, smallest: int = 4, probability: bool = False
) -> tuple[Tensor, int]:
    """HiPe (Cooper et al. 2021, arXiv 2103.05108), one window at a time.

    The image is divided into a coarse grid; each cell, with half a cell more on all sides, is replaced by its
    mean colour, and the fall of the output, where it does fall, is added to the map. At the next depth cells
    are half as wide, and only those are looked at in which the map is above its mid-range.

    Parameters
    ----------
    image
        (3, H, W) in [0, 1].
    smallest
        Pixels of the narrowest cell.
    probability
        Whether the output is the class's probability rather than its logit.
    """

    def output(picture: Tensor) -> Tensor:
        out = logits(model, picture[None], batch=1)
        return (probabilities(model, out) if probability else out)[0, label]

    height, width = image.shape[1:]
    saliency, whole, evaluations = torch.zeros(height, width), output(image), 1
    cells = coarsest = max(2, math.ceil(math.log2(min(height, width)) / 2))
    while min(height, width) // cells >= smallest:
        found, threshold = torch.zeros_like(saliency), (saliency.max() + saliency.min()) / 2
        for row in range(cells):
            top, bottom = round(row * height / cells), round((row + 1) * height / cells)
            for column in range(cells):
                left, right = round(column * width / cells), round((column + 1) * width / cells)
                if cells > coarsest and saliency[top:bottom, left:right].max() <= threshold:
                    continue
                more_y, more_x = (bottom - top) // 2, (right - left) // 2
                window = (
                    slice(max(0, top - more_y), bottom + more_y),
                    slice(max(0, left - more_x), right + more_x),
                )
                hidden = image.clone()
                hidden[:, *window] = image[:, *window].mean((1, 2), keepdim=True)
                found[window] += (whole - output(hidden)).clamp_min(0)
                evaluations += 1
        saliency += found
        cells *= 2
    return saliency, evaluations


# -- captum ----------------------------------------------------------------------------------------


def captum_integrated_gradients(
    model: nn.Module, image: Tensor, label: int, fill: Tensor
) -> tuple[Tensor, int]:
    """captum's integrated gradients from the mean colour in its 50 steps, summed over channels."""
    from captum.attr import IntegratedGradients

    steps = 50
    with evaluating(model), torch.enable_grad():
        found = IntegratedGradients(model).attribute(
            image[None], fill.expand_as(image)[None], target=label, n_steps=steps, internal_batch_size=10
        )
    return found[0].sum(0), 2 * steps


def captum_occlusion(model: nn.Module, image: Tensor, label: int, fill: Tensor) -> tuple[Tensor, int]:
    """captum's occlusion by the mean colour, windows a quarter of the side at a quarter of that."""
    from captum.attr import Occlusion

    side = [max(4, length // 4) for length in image.shape[1:]]
    stride = [max(1, length // 4) for length in side]
    windows = math.prod(
        math.ceil((length - s) / t) + 1 for length, s, t in zip(image.shape[1:], side, stride, strict=True)
    )
    with evaluating(model), torch.no_grad():
        found = Occlusion(model).attribute(
            image[None], (3, *side), (3, *stride), fill.expand_as(image)[None], target=label,
            perturbations_per_eval=8,
        )  # fmt: skip
    return found[0].mean(0), windows + 1


def last_convolution(model: nn.Module, image: Tensor) -> nn.Module:
    """The module that makes the last feature map of more than one place, as Grad-CAM looks at it."""
    found: list[nn.Module] = []
    handles = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and max(output.shape[2:]) > 1:
            found.append(module)

    try:
        handles += [module.register_forward_hook(note) for module in model.modules()]
        with evaluating(model), torch.no_grad():
            model(image[None])
    finally:
        for handle in handles:
            handle.remove()
    return found[-1]


def captum_grad_cam(model: nn.Module, image: Tensor, label: int) -> tuple[Tensor, int]:
    """captum's Grad-CAM at the last feature map, enlarged bilinearly, with its sign."""
    from captum.attr import LayerGradCam

    layer = last_convolution(model, image)
    with evaluating(model), torch.enable_grad():
        found = LayerGradCam(model, layer).attribute(image[None].clone().requires_grad_(), target=label)
    large = F.interpolate(found, size=image.shape[1:], mode="bilinear", align_corners=False)
    return large[0, 0].detach(), 2


# -- TorchRay --------------------------------------------------------------------------------------


def torchray(
    subject: Explained, rows: Sequence[int], folder: Path, *, area: float = 0.1, steps: int = 800
) -> None:
    """Extremal perturbations by TorchRay with its defaults, a file `<row>.pt` in `folder` for each row.

    It gets the network and normalised images, so that its blur's zeros at the border are the mean colour.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        network, pictures = Path(scratch, "network.pt"), Path(scratch, "images.pt")
        torch.save(subject.model.network, network)
        torch.save(subject.model.normalise(subject.images), pictures)
        request = {
            "what": "masks", "model": str(network), "images": str(pictures), "rows": list(rows),
            "labels": subject.classes.tolist(), "folder": str(folder), "area": area, "steps": steps,
        }  # fmt: skip
        ask("torchray", request, threads=1)


# -- Maps that are kept ----------------------------------------------------------------------------

OTHERS = (
    "captum.integrated_gradients",
    "captum.occlusion",
    "captum.grad_cam",
    "hipe",
    "rise",
    "torchray",
)
"""Methods that are not ours."""


def _explain(method: str, model: Classifier, image: Tensor, label: int, share: float) -> tuple[Tensor, int]:
    fill = model.mean[0]
    if method == "captum.integrated_gradients":
        return captum_integrated_gradients(model, image, label, fill)
    if method == "captum.occlusion":
        return captum_occlusion(model, image, label, fill)
    if method == "captum.grad_cam":
        return captum_grad_cam(model, image, label)
    if method == "hipe":
        return hipe(model, image, label)
    assert method == "rise", method
    return rise(model, image, label, fill, count=round(4000 * share))


def made_by(method: str, subject: Explained, folder: Path, *, share: float = 1.0) -> list[Made]:
    """A map for each picture, made where it is not in `folder` yet, so that an interrupted run goes on.

    `share` is the part of RISE's masks and of TorchRay's steps that is spent.
    """
    place = folder / (method if share == 1 else f"{method}-{share:g}")
    place.mkdir(parents=True, exist_ok=True)
    files = [place / f"{row:04d}.pt" for row in range(len(subject))]
    missing = [row for row, file in enumerate(files) if not file.exists()]
    if method == "torchray":
        if missing:
            torchray(subject, missing, place, steps=round(800 * share))
    else:
        for row in missing:
            image, label = subject.images[row], int(subject.classes[row])
            made = timed(partial(_explain, method, subject.model, image, label, share))
            part = files[row].with_suffix(".part")
            torch.save(vars(made), part)
            part.rename(files[row])
    return [Made(**torch.load(file)) for file in files]
