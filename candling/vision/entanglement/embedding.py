"""What a head knows of its classes: the weights that it reads each with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["head_weights"]


def head_weights(model: nn.Module, classes: int) -> NDArray[np.float64] | None:
    """The rows (classes, D) of the last layer with an output for each class, or None where there is none.

    That is a linear layer, or a convolution of single pixels.
    """
    found: Tensor | None = None
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == classes:
            found = module.weight
        elif isinstance(module, nn.Conv2d) and module.out_channels == classes:
            found = module.weight if module.kernel_size == (1, 1) and module.groups == 1 else found
    if found is None:
        return None
    return np.asarray(found.detach().flatten(1).double().cpu().numpy(), dtype=np.float64)
