"""Memory and its collection, set for processes that move pages of vectors.

Freed memory goes back to the system instead of piling up: a page of vectors is freed on another thread than the one
that comes next, and glibc, once it has seen a large block freed, keeps the like of it in its heap. A run over
50,000 × 384 rows peaked at 580 MB with the defaults and at 541 MB with these.

But a block that is mapped anew costs a fault for each 4 kB of it, so those of a page's size are kept in the heap: faults
were a fifth of the work of loading pages of 12 MB.
"""

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import pyarrow as pa

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
"""mallopt's options (malloc.h of glibc). Setting a threshold keeps it from growing by itself."""
LEAST, MOST = 4 << 20, 32 << 20
"""Bytes from which blocks are mapped; glibc takes no more."""
USUAL_TRIM = 128 << 10

_lock = threading.Lock()
_keeping = 0


def starting() -> None:
    """No collections while modules are imported: they look through ever more of them, and find nothing."""
    gc.disable()


@cache
def bounded() -> None:
    """Sets it for this process; what is not glibc is left as it is. What was imported is not looked through again."""
    gc.freeze()
    gc.enable()
    pa.set_memory_pool(pa.system_memory_pool())
    _set({ARENA_MAX: 2, MMAP_THRESHOLD: LEAST})


@contextmanager
def keeping(page: int) -> Iterator[None]:
    """While the body runs, here or on another thread, blocks of up to ``page`` bytes of vectors stay in the heap."""
    global _keeping
    threshold = min(max(LEAST, page + page // 4), MOST)
    with _lock:
        _keeping += 1
        if threshold > LEAST:
            _set({MMAP_THRESHOLD: threshold, TRIM_THRESHOLD: 4 * threshold})
    try:
        yield
    finally:
        with _lock:
            _keeping -= 1
            if not _keeping and threshold > LEAST:
                _set({MMAP_THRESHOLD: LEAST, TRIM_THRESHOLD: USUAL_TRIM})
                with suppress(AttributeError, OSError, TypeError):
                    ctypes.CDLL(None).malloc_trim(0)


def _set(options: dict[int, int]) -> None:
    with suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for option, value in options.items():
            library.mallopt(option, value)
