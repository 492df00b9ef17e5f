"""horama in its own environment; see `benchmarks.peers`.

Its defaults: an image of 1280 px of which the model sees six crops a step, NAdam at 1.0. It downloads the
magnitudes of its MACO from the net; here they are given as a file: 1/f, at the very size of the image, so
that none is lost to resizing. Its values in (-2.5, 2.5) are mapped to the model's [0, 1]. Parameters want no
gradient. Images are read in two ways, of which the benchmark takes the better: as a whole, and the centre
as large as the crops that the model saw.
"""

from __future__ import annotations

import time
from typing import Any

import horama
import numpy as np
import torch
from horama import fourier_fv, maco_fv
from torch import Tensor, nn

from benchmarks.peers.common import answer, count_hooks, drop_hooks, load, over_floor

LOW, HIGH = -2.5, 2.5


def write_template(size: int) -> None:
    """`spectrum_decorrelated.npy` in the current folder, where horama looks for it."""
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    magnitude = 1 / np.maximum(np.sqrt(rows**2 + columns**2), 1 / size)
    magnitude[0, 0] = 0
    np.save(maco_fv.MACO_SPECTRUM_FILENAME, np.repeat(magnitude[None], 3, 0).astype(np.float32))


def rendered(
    model: nn.Module, target: int, seed: int, config: dict[str, Any], budgets: list[int]
) -> tuple[list[float], list[Tensor]]:
    """Seconds until each budget of steps is used up, and the image (3, H, W) it then has."""
    torch.manual_seed(seed)
    at: list[float] = []
    kept: list[Tensor] = []
    module, name = {
        "maco": (maco_fv, "maco_preconditioner"),
        "fourier": (fourier_fv, "fourier_preconditionner"),
    }[config["method"]]
    own = getattr(module, name)

    def watched(*arguments: Any) -> Tensor:
        # Called at the start of each step and once after the last: the image after `len(at)` steps.
        image: Tensor = own(*arguments)
        if len(at) in budgets:
            kept.append((image.detach() - LOW) / (HIGH - LOW))
        at.append(time.perf_counter())
        return image

    def objective(images: Tensor) -> Tensor:
        return model((images - LOW) / (HIGH - LOW))[:, target].mean()

    setattr(module, name, watched)
    began = time.perf_counter()
    try:
        getattr(horama, config["method"])(
            objective, total_steps=max(budgets), image_size=config["image"], values_range=(LOW, HIGH),
            model_input_size=config["seen"], crops_per_iteration=config["crops"],
            box_size=tuple(config["box"]), device="cpu", **config.get("also", {}),
        )  # fmt: skip
    finally:
        setattr(module, name, own)
    return [at[budget] - began for budget in budgets], kept


def centre(images: Tensor, box: tuple[float, float]) -> Tensor:
    """The middle of images (…, H, W), as large as the mean crop: from box[1] to 2 box[1] - box[0]."""
    side = images.shape[-1]
    size = min(side, round(side * (1.5 * box[1] - 0.5 * box[0])))
    start = (side - size) // 2
    return images[..., start : start + size, start : start + size].clone()


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Curves (`"what": "curve"`), seconds of steps (`"steps"`) or hooks left (`"hooks"`)."""
    model = load(request["model"])
    config, budgets = request["config"], request["budgets"]
    if request.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    write_template(config["image"])
    if request["what"] == "steps":
        rows = over_floor(
            model, lambda watched: rendered(watched, 0, 0, config, budgets), request["repetitions"]
        )
        return {"rows": rows}
    if request["what"] == "hooks":
        rendered(model, 0, 0, config, budgets)
        return {"hooks": count_hooks(model)}
    rendered(model, 0, 0, config, [3])  # the first steps of a process are slow
    seconds, whole, middle = [], [], []
    for target, seed in request["rows"]:
        taken, images = rendered(model, target, seed, config, budgets)
        drop_hooks(model)
        seconds.append(taken)
        stacked = torch.stack(images)
        middle.append(centre(stacked, tuple(config["box"])))
        # Whole images of 1280 px are too large to be handed over by the dozen.
        size = (request["size"], request["size"])
        whole.append(torch.nn.functional.interpolate(stacked, size=size, mode="bilinear", antialias=True))
    return {"seconds": torch.tensor(seconds), "images": [torch.stack(whole), torch.stack(middle)]}


if __name__ == "__main__":
    answer(handle)
