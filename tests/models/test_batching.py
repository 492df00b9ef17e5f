"""Batches that shrink where memory runs out, with models that have room for so many pictures and no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Batches, MemoryRanOut, logits

FULL: dict[str, Callable[[], Exception]] = {
    "accelerator": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "processor": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    "python": MemoryError,
}


class Roomy(nn.Module):
    """Two logits a picture; raises for more than `room` pictures at once."""

    def __init__(self, room: int, full: Callable[[], Exception]) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.room, self.full = room, full
        self.tried: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.tried.append(len(images))
        if len(images) > self.room:
            raise self.full()
        out: Tensor = self.head(images.mean((2, 3)))
        return out


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", FULL)
def test_batches_are_halved_until_they_fit_and_it_is_said_once(kind: str) -> None:
    model = Roomy(5, FULL[kind]).train()
    images = pictures(40)
    whole = model.head(images.mean((2, 3))).detach()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = logits(model, images, batch=32)
    torch.testing.assert_close(found, whole)
    assert model.tried == [32, 16, 8, *[4] * 10]  # nothing that did not fit is tried twice
    assert [one.category for one in said] == [MemoryRanOut]
    assert "32 pictures at a time" in str(said[0].message)
    assert model.training
    assert model.head.weight.requires_grad


def test_a_size_that_did_not_fit_is_remembered() -> None:
    model = Roomy(5, FULL["python"])
    batches = Batches(16)
    with pytest.warns(MemoryRanOut):
        logits(model, pictures(8), batch=batches)
    assert batches.size == 4
    model.tried.clear()
    logits(model, pictures(8), batch=batches)
    assert model.tried == [4, 4]


def test_one_picture_that_does_not_fit_is_one_sentence() -> None:
    model = Roomy(0, FULL["processor"]).train()
    with pytest.warns(MemoryRanOut), pytest.raises(ModelError, match="memory ran out for a single picture"):
        logits(model, pictures(4), batch=2)
    assert model.training


def test_other_errors_are_not_retried() -> None:
    model = Roomy(0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        logits(model, pictures(4), batch=4)
    assert model.tried == [4]


def test_rows_come_in_order_each_once() -> None:
    asked: list[slice] = []

    def run(rows: slice) -> list[int]:
        asked.append(rows)
        if rows.stop - rows.start > 3:
            raise MemoryError
        return list(range(rows.start, rows.stop))

    with pytest.warns(MemoryRanOut):
        parts = Batches(7).over(11, run)
    assert [row for part in parts for row in part] == list(range(11))
    assert asked[0] == slice(0, 7)


def test_no_pictures_give_no_logits() -> None:
    assert logits(Roomy(5, MemoryError), pictures(0)).shape == (0, 2)


def test_a_batch_without_rows_is_refused() -> None:
    with pytest.raises(ParamsError, match="one row at least, not 0"):
        Batches(0)
