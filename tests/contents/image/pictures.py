"""Small pictures for these tests, and patience."""

import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    """A PNG of one colour, which no other seed makes."""
    sink = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, 7)).save(sink, "PNG")
    return sink.getvalue()


def photograph(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """A JPEG with something to see everywhere."""
    sink = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(sink, "JPEG")
    return sink.getvalue()


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Raises AssertionError where it does not come true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
