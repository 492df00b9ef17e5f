"""The watcher in transformers: in a Trainer that trains, and driven by its own handler of callbacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.trainer_callback import CallbackHandler

from candling.audit.record import read_record
from candling.data import Pictures
from candling.errors import ModelError
from candling.watch import Watcher, transformers_callback
from candling.watch.callback import Prepare
from candling.watch.watcher import weights_digest
from tests.watch.test_watcher import CLASSES, SIDE, pictures

COLOURS = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
PROCESSOR = SimpleNamespace(**COLOURS)


@pytest.fixture
def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                       image_size=SIDE, patch_size=4, num_labels=2)  # fmt: skip
    return ViTForImageClassification(config).train()


def drive(
    model: nn.Module, watch: Watcher, *, steps: int, processor: object = None, prepare: Prepare | None = None,
    first: bool = True,
) -> None:  # fmt: skip
    """What `Trainer.train` does with callbacks, without training."""
    handler = CallbackHandler([transformers_callback(watch, prepare)], model, processor, None, None)
    state, control, args = TrainerState(), TrainerControl(), SimpleNamespace()
    state.is_world_process_zero = first
    for step in range(1, steps + 1):
        state.global_step = step
        handler.on_step_end(args, state, control)
    handler.on_train_end(args, state, control)


def normalised(images: Tensor) -> Tensor:
    """Of uint8 images, as the processor says."""
    mean, std = (torch.tensor(COLOURS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    return (images / 255 - mean) / std


def steps_in(folder: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(("steps", "written"), [(7, [3, 6, 7]), (6, [3, 6])])
def test_records_at_steps_and_at_the_end(
    vit: nn.Module, tmp_path: Path, steps: int, written: list[int]
) -> None:
    drive(vit, Watcher(tmp_path, pictures(), CLASSES, every=3), steps=steps)
    assert steps_in(tmp_path) == written
    assert vit.training


def test_other_processes_write_nothing(vit: nn.Module, tmp_path: Path) -> None:
    drive(vit, Watcher(tmp_path / "w", pictures(), CLASSES, every=1), steps=2, first=False)
    assert steps_in(tmp_path / "w") == []


@pytest.mark.parametrize("processor", [None, PROCESSOR])
def test_pictures_are_normalised_as_the_processor_says(
    vit: ViTForImageClassification, tmp_path: Path, processor: object
) -> None:
    drive(vit, Watcher(tmp_path, pictures(), CLASSES, every=1), steps=1, processor=processor)
    data = pictures()
    images = normalised(data.images) if processor is not None else data.images / 255
    with torch.no_grad():
        right = vit.eval()(pixel_values=images).logits.argmax(1) == data.labels
    found = read_record(tmp_path / "step-000001").measurement("accuracy.overall")
    assert found is not None
    assert found.value == pytest.approx(float(right.float().mean()))


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 4, 3], x[:, 0, 2, 3]], 1)


def test_prepare_says_how_the_model_answers(vit: nn.Module, tmp_path: Path) -> None:
    drive(vit, Watcher(tmp_path, pictures(), CLASSES, every=1), steps=1, prepare=lambda model: Own())
    record = read_record(tmp_path / "step-000001")
    found = record.measurement("accuracy.overall")
    assert found is not None
    assert found.value == 1.0
    # The weights are the trained model's, not those of what answers for it.
    assert record.digests["model"] == weights_digest(vit)


def test_a_crash_in_the_watcher_ends_the_training(vit: ViTForImageClassification, tmp_path: Path) -> None:
    with torch.no_grad():
        vit.classifier.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        drive(vit, Watcher(tmp_path, pictures(), CLASSES, every=1), steps=1)
    assert vit.training


def by_brightness() -> Pictures:
    """The class is whether the background is light, which nobody sees who leaves normalisation out."""
    data = pictures()
    return replace(data, labels=torch.tensor([where == "light" for where in data.environments]).long())


def trained(folder: Path, watch: Watcher | None) -> tuple[ViTForImageClassification, list[dict[str, float]]]:
    """A ViT with dropout that a Trainer trained for seven steps, and what it logged of each."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                       image_size=SIDE, patch_size=4, num_labels=2, hidden_dropout_prob=0.2)  # fmt: skip
    data = by_brightness()
    rows = [
        {"pixel_values": image, "labels": label}
        for image, label in zip(normalised(data.images), data.labels.tolist(), strict=True)
    ]
    trainer = Trainer(
        model=ViTForImageClassification(config),
        args=TrainingArguments(
            output_dir=str(folder), max_steps=7, per_device_train_batch_size=8, learning_rate=0.002, seed=3,
            use_cpu=True, dataloader_pin_memory=False, save_strategy="no", logging_steps=1, report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=ViTImageProcessor(size={"height": SIDE, "width": SIDE}, **COLOURS),
        callbacks=[] if watch is None else [transformers_callback(watch)],
    )  # fmt: skip
    trainer.train()
    # Times differ from run to run; losses, gradients and rates must not.
    logged = [{k: log[k] for k in ("loss", "grad_norm", "learning_rate") if k in log} for log in
              trainer.state.log_history]  # fmt: skip
    return trainer.model, logged


def test_in_a_trainer_that_trains(tmp_path: Path) -> None:
    alone, losses = trained(tmp_path / "alone", None)
    watch = Watcher(tmp_path / "watched", by_brightness(), CLASSES, every=3)
    watched, losses_watched = trained(tmp_path / "out", watch)

    # The same training to the last bit, dropout and the order of the pictures included.
    assert len(losses) >= 7
    assert losses_watched == losses
    states = alone.state_dict(), watched.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(tensor.equal(states[1][name]) for name, tensor in states[0].items())

    assert steps_in(tmp_path / "watched") == [3, 6, 7]
    records = [read_record(tmp_path / "watched" / f"step-{step:06d}") for step in (3, 6, 7)]
    assert [record.coordinates for record in records] == [{"step": 3.0}, {"step": 6.0}, {"step": 7.0}]
    digests = [record.digests["model"] for record in records]
    assert len(set(digests)) == 3  # of the weights as they were at each step
    assert digests[-1] == weights_digest(watched)
    data = by_brightness()
    with torch.no_grad():
        right = watched.eval()(pixel_values=normalised(data.images)).logits.argmax(1) == data.labels
    found = records[-1].measurement("accuracy.overall")
    assert found is not None
    assert found.value == pytest.approx(float(right.float().mean()))
