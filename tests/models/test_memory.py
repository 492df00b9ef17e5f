"""Freed memory that stays with the process."""

from __future__ import annotations

import resource
import sys
from contextlib import nullcontext

import pytest
import torch

from candling.models.memory import keeping_memory


def faults(blocks: int = 20) -> int:
    """Pages that the system had to provide for blocks of 64 MiB, one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is what is told")
def test_freed_memory_is_used_again() -> None:
    outside = faults()
    with keeping_memory():
        faults(2)
        with keeping_memory():
            pass
        inside = faults()
    assert inside < outside / 10
    assert faults() > 10 * inside, "and afterwards it is given back"


def test_an_error_ends_it() -> None:
    with pytest.raises(KeyError), keeping_memory():
        raise KeyError
    with keeping_memory(), nullcontext():
        assert faults(2) >= 0
