"""Folders in memory."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, where a disk's own pace does not count; ``otherwise`` where there is too little memory for that."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 4 << 30:
        yield otherwise
        return
    folder = Path(tempfile.mkdtemp(prefix="vecferry-tests-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
