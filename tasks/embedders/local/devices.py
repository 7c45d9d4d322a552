"""What a model runs on, and as many images at once as its memory holds."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.base.errors import FatalError
from tasks.base.words import counted
from tasks.embedders.naming import ModelName


def best() -> str:
    """The fastest device of this machine: ``cuda``, ``mps`` or ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def asked_for(name: ModelName) -> str:
    """The device of the option; "" for ``auto`` and where it is not there."""
    device = name.options.get("device", "")
    return "" if device == "auto" else device


def chosen(device: str) -> str:
    """The device asked for, else the best. Raises ValueError where this machine has none of that name."""
    import torch

    try:
        torch.empty(1, device=device or "cpu")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"torch has no device {device!r} here; the fastest is {best()}") from error
    return device or best()


def is_exhausted(error: BaseException) -> bool:
    """Whether a device has run out of memory."""
    import torch

    # That of Apple's has no class of its own, nor has a processor's.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


class Halving:
    """A forward pass that takes half as many at once where the device has run out of memory, and keeps to that."""

    def __init__(self, forward: Callable[[Sequence[Any]], np.ndarray], what: str, batch: int) -> None:
        """``what`` names model and device in the error."""
        self._forward, self._what = forward, what
        self.batch = batch
        """At once, as far as is known."""
        self._changing = threading.Lock()

    def __call__(self, prepared: Sequence[Any]) -> np.ndarray:
        """float32[n, d] of n pictures. Raises FatalError where the device has too little memory for one."""
        parts: list[np.ndarray] = []
        at = 0
        while at < len(prepared):
            size = min(self.batch, len(prepared) - at)
            try:
                parts.append(self._forward(prepared[at : at + size]))
            except Exception as error:
                if not is_exhausted(error):
                    raise
                self._halve(size)
            else:
                at += size
        return np.concatenate(parts)

    def _halve(self, size: int) -> None:
        if size == 1:
            raise FatalError(f"{self._what} has too little memory for {counted(size, 'image')} at once") from None
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what the failed pass had is in pieces of other sizes
        with self._changing:
            self.batch = min(self.batch, size // 2)
