"""The watcher in transformers, driven by the Trainer's own handler of callbacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, ViTConfig, ViTForImageClassification
from transformers.trainer_callback import CallbackHandler

from candling.audit.record import read_record
from candling.errors import ModelError
from candling.watch import Watcher, transformers_callback
from candling.watch.callback import Prepare
from tests.watch.test_watcher import CLASSES, SIDE, pictures

PROCESSOR = SimpleNamespace(do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.1])


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
    """What `Trainer.train` does with callbacks; accelerate, which it needs, is not in the environment."""
    handler = CallbackHandler([transformers_callback(watch, prepare)], model, processor, None, None)
    state, control, args = TrainerState(), TrainerControl(), SimpleNamespace()
    state.is_world_process_zero = first
    for step in range(1, steps + 1):
        state.global_step = step
        handler.on_step_end(args, state, control)
    handler.on_train_end(args, state, control)


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
    images = data.images / 255
    if processor is not None:
        images = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.2, 0.1]).view(
            3, 1, 1
        )
    with torch.no_grad():
        right = vit.eval()(pixel_values=images).logits.argmax(1) == data.labels
    found = read_record(tmp_path / "step-000001").measurement("accuracy.overall")
    assert found is not None
    assert found.value == pytest.approx(float(right.float().mean()))


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 4, 3], x[:, 0, 2, 3]], 1)


def test_prepare_says_how_the_model_answers(vit: nn.Module, tmp_path: Path) -> None:
    from candling.watch.watcher import weights_digest

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
