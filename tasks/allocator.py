"""Memory and its collection, set for processes that move pages of vectors.

Freed memory goes back to the system instead of piling up: a page of vectors is freed on another thread than the one
that comes next, and glibc, once it has seen a large block freed, keeps the like of it in its heap. A run over
50,000 × 384 rows peaked at 580 MB with the defaults and at 541 MB with these.

But a block that is mapped anew costs a fault for each 4 kB of it, so those of a page's size are kept in the heap: faults
were a fifth of the work of loading pages of 12 MB.
"""

import ctypes
import gc
from contextlib import suppress
from functools import cache

import pyarrow as pa

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
"""mallopt's options (malloc.h of glibc). Setting a threshold keeps it from growing by itself."""
LEAST, MOST = 4 << 20, 32 << 20
"""Bytes from which blocks are mapped; glibc takes no more."""


def starting() -> None:
    """No collections while modules are imported: they look through ever more of them, and find nothing."""
    gc.disable()


def bounded(page: int) -> None:
    """Sets it for this process and for pages of so many bytes of vectors; what is not glibc is left as it is."""
    _settled()
    threshold = min(max(LEAST, page + page // 4), MOST)
    options = {ARENA_MAX: 2, MMAP_THRESHOLD: threshold}
    if threshold > LEAST:
        options[TRIM_THRESHOLD] = 4 * threshold
    with suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for option, value in options.items():
            library.mallopt(option, value)


@cache
def _settled() -> None:
    """What was imported is not looked through for garbage again."""
    gc.freeze()
    gc.enable()
    pa.set_memory_pool(pa.system_memory_pool())
