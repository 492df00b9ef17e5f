"""What `benchmarks.isolation` explains: networks with pictures whose objects have masks."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.prototypes import ASSETS, mobilenet
from candling.data import DataSource, Pictures, import_pictures, read_source, read_split, unit
from candling.models import Classifier, ModelSpec, build_model, load_model, logits, save_model
from candling.vision.scenes import Split, write_splits
from candling.vision.training import Schedule, train

__all__ = ["Explained", "coco", "explained", "tanks"]


@dataclass(frozen=True)
class Explained:
    """A network and what it says of pictures.

    images: float (N, 3, H, W) in [0, 1]. classes: int64 (N,), predicted, and explained. right: bool (N,),
    where that is the label. masks: bool (N, H, W) of the labelled object. key: eight digits of the digest of
    all that.
    """

    name: str
    model: Classifier
    images: Tensor
    classes: Tensor
    right: Tensor
    masks: Tensor
    key: str

    def __len__(self) -> int:
        return len(self.images)


def explained(name: str, model: Classifier, pictures: Pictures) -> Explained:
    """A network with these pictures, which all have masks."""
    assert pictures.masks is not None
    images = unit(pictures.images)
    classes = logits(model, images).argmax(1)
    digest = hashlib.sha256(pictures.images.numpy().tobytes() + pictures.masks.numpy().tobytes())
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return Explained(
        name, model, images, classes, classes == pictures.labels, pictures.masks > 0, digest.hexdigest()[:8]
    )


def coco(count: int | None = None) -> Explained | None:
    """The real MobileNetV2 and photographs of COCO, None without CANDLING_ASSETS."""
    found = mobilenet()
    if found is None or not (ASSETS / "coco_objects").is_dir():
        return None
    assert isinstance(found.model, Classifier)
    with tempfile.TemporaryDirectory() as scratch:
        samples = read_source(DataSource(ASSETS / "coco_objects"))
        import_pictures(samples, found.model.classes, found.model.prepare, Path(scratch), "eval")
        pictures = read_split(Path(scratch), "eval", found.model.classes)
    return explained("coco", found.model, pictures.take(range(count or len(pictures))))


def tanks(folder: Path, count: int | None = None, *, drawn: int = 240, steps: int = 500) -> Explained:
    """A detector of tanks, trained on every class on every background, and eval pictures of tanks.

    It is drawn and trained once and kept in `folder`, because training is not the same to the last bit on
    every machine. `count` takes the first of the pictures.
    """
    classes = ("no_tank", "tank")
    if not (folder / "model" / "spec.json").is_file():
        splits = [Split("train", 1600, "balanced"), Split("eval", 2 * drawn, "balanced")]
        write_splits(folder / "data", splits, seed=0, size=96)
        known = read_split(folder / "data", "train", classes)
        model = build_model(ModelSpec("residual_cnn", classes, (96, 96)))
        train(model, known.images, known.labels, Schedule(steps=steps), seed=0)
        save_model(model, folder / "model")
    held = read_split(folder / "data", "eval", classes)
    rows = torch.nonzero(held.labels == 1)[:, 0].tolist()[:count]
    return explained("tanks", load_model(folder / "model"), held.take(rows))
