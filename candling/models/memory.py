"""Memory of processors: what a model's passes free stays with the process, for the next of them."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keeping_memory"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_USUAL = 32 * 2**20  # bytes, up to which glibc raises its own threshold of mmap

_inside = 0
_counting = threading.Lock()


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Within the block glibc returns no freed memory to the system, and on leaving it what is free.

    A pass of a model frees hundreds of megabytes and the next asks for them again. By default glibc gives
    large blocks back at once, and the system clears each of their pages when it is touched anew: a third of
    the time of ResNet-18's forward and backward pass at 224 px. Nothing happens with another C library.
    """
    global _inside
    libc = _glibc()
    if libc is None:
        yield
        return
    with _counting:
        if not _inside:
            libc.mallopt(_MMAP_THRESHOLD, _NEVER)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if not _inside:
                libc.mallopt(_MMAP_THRESHOLD, _USUAL)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "malloc_trim") else None
