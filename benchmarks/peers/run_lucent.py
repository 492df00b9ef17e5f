"""torch-lucent in its own environment; see `benchmarks.peers`.

Its defaults: a Fourier image of 128 px, Adam at 0.05, pad, jitter, scale and rotate, upsampled to 224 px.
The model normalises by itself, so that `preprocess=False`. Two favours that its users would have to know of:
parameters want no gradient (by itself it computes and adds up theirs at each step), and the hooks that a run
leaves are taken off before the next.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lucent.optvis import objectives, param, render
from torch import Tensor, nn

from benchmarks.peers.common import answer, count_hooks, drop_hooks, load, over_floor


def rendered(
    model: nn.Module, target: int, seed: int, config: dict[str, Any], budgets: list[int]
) -> tuple[list[float], Tensor]:
    """Seconds until each budget of steps is used up, and the image (len(budgets), 3, H, W) it then has."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    asked: list[float] = []

    def param_f() -> Any:
        params, image_f = param.image(config["image"])

        def watched() -> Tensor:
            asked.append(time.perf_counter())
            return image_f()

        return params, watched

    optimiser = None
    if "learning_rate" in config:

        def optimiser(params: Any) -> torch.optim.Optimizer:
            return torch.optim.Adam(params, lr=config["learning_rate"])

    began = time.perf_counter()
    images = render.render_vis(
        model, objectives.channel("labels", target), param_f=param_f, optimizer=optimiser,
        thresholds=tuple(budgets), preprocess=False, progress=False, show_image=False,
        fixed_image_size=config.get("seen"),
    )  # fmt: skip
    # The image is asked for once for its shape, once a step, and once more after a step of `thresholds`.
    seconds, call = [], 0
    for step in range(1, max(budgets) + 1):
        call += 1
        if step in budgets:
            call += 1
            seconds.append(asked[call] - began)
    return seconds, torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).contiguous()


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Curves (`"what": "curve"`), seconds of steps (`"steps"`) or hooks left (`"hooks"`)."""
    model = load(request["model"])
    config, budgets = request["config"], request["budgets"]
    if request.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    if request["what"] == "steps":

        def run(watched: nn.Module) -> None:
            rendered(watched, 0, 0, config, budgets)
            drop_hooks(watched)

        return {"rows": over_floor(model, run, request["repetitions"])}
    if request["what"] == "hooks":
        rendered(model, 0, 0, config, budgets)
        return {"hooks": count_hooks(model)}
    rendered(model, 0, 0, config, [3])  # the first steps of a process are slow
    drop_hooks(model)
    seconds, images = [], []
    for target, seed in request["rows"]:
        taken, made = rendered(model, target, seed, config, budgets)
        drop_hooks(model)
        seconds.append(taken)
        images.append(made)
    # One reading: the image as it is.
    return {"seconds": torch.tensor(seconds), "images": [torch.stack(images)]}


if __name__ == "__main__":
    answer(handle)
