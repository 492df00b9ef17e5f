"""Fills against an exact solution of Laplace's equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from candling.errors import DataError
from candling.vision.counterfactuals import inpaint


def laplace(image: NDArray[np.float64], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Image (C, H, W) with the hole solved exactly; nothing flows over the frame."""
    height, width = hole.shape
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())
    matrix, right = lil_matrix((hole.sum(), hole.sum())), np.zeros((hole.sum(), len(image)))
    for y, x in zip(*np.nonzero(hole), strict=True):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width:
                matrix[number[y, x], number[y, x]] += 1
                if hole[v, u]:
                    matrix[number[y, x], number[v, u]] -= 1
                else:
                    right[number[y, x]] += image[:, v, u]
    out = image.copy()
    out[:, hole] = spsolve(matrix.tocsr(), right).T
    return out


def hole_of(name: str, size: int) -> Tensor:
    hole = torch.zeros(size, size, dtype=torch.bool)
    if name == "corner":
        hole[: size // 4, : size // 4] = True
    elif name == "within":
        hole[size // 5 : size // 2, size // 4 : 3 * size // 4] = True
    elif name == "frame":
        hole[:] = True
        hole[3:-3, 3:-3] = False
    else:  # all but a part
        hole[:] = True
        hole[size // 3 : size // 2, size // 3 : size // 2] = False
    return hole


@pytest.mark.parametrize("name", ["corner", "within", "frame", "most"])
@pytest.mark.parametrize("size", [24, 33])
def test_the_fill_is_harmonic(name: str, size: int) -> None:
    images = F.avg_pool2d(
        torch.rand(2, 3, size + 4, size + 4, generator=torch.Generator().manual_seed(0)), 5, 1
    )
    hole = hole_of(name, size)
    out = inpaint(images.double(), hole)
    for image, filled in zip(images, out, strict=True):
        exact = laplace(image.double().numpy(), hole.numpy())
        assert np.abs(filled.numpy() - exact).max() < 0.04
        assert np.sqrt(np.square((filled.numpy() - exact)[:, hole.numpy()]).mean()) < 0.02
    assert torch.equal(out[..., ~hole], images.double()[..., ~hole])
    assert out.min() >= images.min() - 1e-6
    assert out.max() <= images.max() + 1e-6


def test_a_hole_in_one_colour_is_filled_with_it() -> None:
    images = torch.full((1, 3, 20, 20), 0.3)
    hole = hole_of("within", 20)
    images[..., hole] = 1.0
    torch.testing.assert_close(inpaint(images, hole), torch.full((1, 3, 20, 20), 0.3))


def test_nothing_removed_changes_nothing() -> None:
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(inpaint(images, torch.zeros(9, 11, dtype=torch.bool)), images)


def test_each_picture_has_a_region_of_its_own() -> None:
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    holes = torch.stack([hole_of("within", 24), hole_of("corner", 24), torch.zeros(24, 24, dtype=torch.bool)])
    together = inpaint(images, holes)
    assert torch.equal(together[2], images[2])
    for row in range(2):
        alone = inpaint(images[row : row + 1], holes[row])[0]
        # Boxes that are worked on differ, and so does the last bit of smoothing.
        assert (together[row] - alone).abs().max() < 0.05


def test_a_picture_that_is_all_region_becomes_its_mean() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = inpaint(images, torch.ones(8, 8, dtype=torch.bool))
    torch.testing.assert_close(out, images.mean((2, 3), keepdim=True).expand_as(images))


def test_a_region_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        inpaint(torch.rand(1, 3, 8, 8), torch.zeros(9, 8, dtype=torch.bool))
