"""TorchRay in its own environment; see `benchmarks.peers`.

Extremal perturbations (Fong et al. 2019, arXiv 1910.08485) by the defaults of its function: 800 steps, the
preservation game, a blur. It was written for the PyTorch of 2019; what is said of that is left out.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "agg"  # it imports pyplot

import torch
from torch import Tensor, nn
from torchray.attribution.extremal_perturbation import extremal_perturbation

from benchmarks.peers.common import answer, load, over_floor


def mask(model: nn.Module, image: Tensor, label: int, area: float, steps: int) -> Tensor:
    """The mask (H, W) in [0, 1] of an area."""
    found, _ = extremal_perturbation(model, image[None], label, areas=[area], max_iter=steps, resize=True)
    return found[0, 0]


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Maps, written one by one (`"what": "masks"`), or seconds of steps and of their floor (`"steps"`)."""
    warnings.filterwarnings("ignore", category=UserWarning)
    model = load(request["model"])
    images, area, steps = torch.load(request["images"]), request["area"], request["steps"]
    if request["what"] == "steps":

        def run(watched: nn.Module) -> None:
            mask(watched, images[0], request["labels"][0], area, steps)

        return {"rows": over_floor(model, run, request["repetitions"])}
    for row in request["rows"]:
        began = time.process_time()
        found = mask(model, images[row], request["labels"][row], area, steps)
        made = {"map": found, "evaluations": 2 * steps, "seconds": time.process_time() - began}
        path = Path(request["folder"], f"{row:04d}.pt")
        torch.save(made, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return {"made": len(request["rows"])}


if __name__ == "__main__":
    answer(handle)
