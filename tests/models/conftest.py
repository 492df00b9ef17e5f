"""What the tests of models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.models import blackboxes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def answering() -> Callable[..., Any]:
    """A server on loopback that answers each POST with what a function makes of its instances."""
    return blackboxes.answering
