"""The watcher in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.watch.watcher import Watcher

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["transformers_callback"]

Prepare = Callable[[nn.Module], nn.Module]


class _FromPixels(nn.Module):
    """An image classifier of transformers as one that takes images in [0, 1] and gives logits."""

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.normalise = bool(getattr(processor, "do_normalize", False))
        # Not buffers: the model's weights stay the only state.
        self.colours = tuple(getattr(processor, name, None) for name in ("image_mean", "image_std"))

    def forward(self, images: Tensor) -> Tensor:
        if self.normalise and None not in self.colours:
            mean, std = (torch.tensor(c, device=images.device).view(1, -1, 1, 1) for c in self.colours)
            images = (images - mean) / std
        out = self.model(pixel_values=images)
        found: Tensor = out["logits"] if isinstance(out, dict) else out[0]
        return found


def transformers_callback(watcher: Watcher, prepare: Prepare | None = None) -> TrainerCallback:
    """A callback for `transformers.Trainer` that calls the watcher at the end of each step and of training.

    Parameters
    ----------
    watcher
        Its pictures are of the size that the model takes.
    prepare
        Makes of the trained model a module from images in [0, 1] to logits. By default the model is called
        with `pixel_values`, normalised as the Trainer's image processor says, where it has one.

    Raises
    ------
    ParamsError
        If transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise ParamsError(
            "the callback needs transformers; install it with `pip install 'candling[engine]'`"
        ) from error

    # Defined here, as its base can only be imported here.
    class WatcherCallback(TrainerCallback):
        def _answers(self, model: nn.Module, more: dict[str, Any]) -> nn.Module:
            return _FromPixels(model, more.get("processing_class")) if prepare is None else prepare(model)

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            # Of several processes one writes.
            if state.is_world_process_zero and state.global_step % watcher.every == 0:
                model = more.pop("model")
                watcher.write(model, state.global_step, self._answers(model, more))

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.is_world_process_zero:
                model = more.pop("model")
                watcher.finish(model, state.global_step, self._answers(model, more))

    return WatcherCallback()
