"""What single pixels do, from slopes in many contexts: parts of the picture that are drawn at random.

At the whole picture slopes say little, because a class that is certain hardly moves; so integrated gradients
(Sundararajan, Taly and Yan, arXiv 1703.01365) takes them along the way from a baseline to the picture. All
along that way every place is shown as much as every other. Here they are taken where some places are shown
and others are not, which is what a class meets when things are hidden: the smooth random masks of RISE
(Petsiuk, Das and Saenko, arXiv 1806.07421, section 3.2), of which ever more is shown. The mean slope times
what a pixel differs from its fill is in log-odds. A pass forward and one back tell of all pixels at once,
where RISE needs thousands of passes for a few cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from candling.models import Batches, batch_size, evaluating
from candling.vision.isolation.found import Asked
from candling.vision.isolation.gradients import class_odds_of
from candling.vision.isolation.order import own_generator
from candling.vision.isolation.resampling import between_cells

__all__ = ["open_masks", "slopes_in_contexts"]

_CELLS = 7  # of a random mask along a side, as RISE has them


def slopes_in_contexts(asked: Asked, fills: Tensor, count: int) -> tuple[Tensor, int]:
    """Evidence (N, K, H, W) in log-odds a pixel, and the passes that it took.

    Parameters
    ----------
    fills
        (N, F, C, H, W) what hides; contexts take them in turns.
    count
        Contexts of each picture. Those of a picture are its own, whatever batch it is in.
    """
    images, device = asked.images, asked.images.device
    size = (images.shape[2], images.shape[3])
    drawn = [_drawn(image, count) for image in images]
    grids, shifts = (torch.stack(some).to(device) for some in zip(*drawn, strict=True))
    odds = class_odds_of(asked.model)
    image, target, place = asked.pairs
    maps = torch.zeros(len(image), *size, device=device)

    def slope(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=device)
        pair, context = rows // count, rows % count
        of = image[pair]
        base = fills[of, context % fills.shape[1]]
        over = images[of] - base
        mask = open_masks(grids[of, context], shifts[of, context], size)
        seen = torch.addcmul(base, over, mask[:, None]).requires_grad_()
        with torch.enable_grad():
            wanted = odds(seen).gather(1, target[pair, None]).sum()
            (found,) = torch.autograd.grad(wanted, seen)
        # A batch for which memory runs out fails before it is added.
        maps.index_add_(0, pair, torch.einsum("nchw,nchw->nhw", found, over) / count)
        return rows

    # A folded network keeps half as much for each picture.
    batches = Batches(min(asked.batches.size, 2 * batch_size(size, device, gradients=True)))
    with evaluating(asked.model):
        batches.over(len(image) * count, slope)
    return maps[place], 2 * len(image) * count


def _drawn(image: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Grids (count, 8, 8) of 0 and 1, ever more of them 1, and by what part of a cell they are shifted."""
    generator = own_generator(image, "contexts", 0)
    shares = (torch.arange(count) + 0.5) / count
    grids = torch.rand(count, _CELLS + 1, _CELLS + 1, generator=generator) < shares[:, None, None]
    return grids.float(), torch.rand(count, 2, generator=generator)


def open_masks(grids: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Smooth masks (B, H, W) in [0, 1]: grids (B, h, w) enlarged bilinearly and cut out at a shift.

    Parameters
    ----------
    shifts
        (B, 2) in [0, 1), down and to the right in cells: the cut is a cell smaller than the grid.
    """
    tall, wide = (
        between_cells(shifts[:, axis], grids.shape[1 + axis], side) for axis, side in enumerate(size)
    )
    return tall @ grids @ wide.transpose(1, 2)
