"""A shortcut that is learned during training is located where a direct probe finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.training_trend import locate


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_shortcut_that_is_switched_on_is_located_within_one_checkpoint(seed: int, tmp_path: Path) -> None:
    found, _ = locate(seed, "on", tmp_path)
    for probe in (found.probe, found.cue_only):
        distance = found.distance(probe)
        assert distance is not None
        assert distance <= 1
    # Both come after what they look for.
    assert found.after is not None
    assert found.after >= found.switched
