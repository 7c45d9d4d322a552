"""How sure a figure is that was taken from a sample: the bootstrap (Efron 1979)."""

from collections.abc import Iterator

import numpy as np


def resamples(count: int, times: int) -> Iterator[np.ndarray]:
    """So many draws of ``count`` positions with replacement: int[count] each, the same in every process."""
    chance = np.random.default_rng(0)
    return (chance.integers(0, count, count) for _ in range(times))


def verdict(low: float, high: float) -> str:
    """What the interval of a gain shows."""
    return "better" if low > 0 else "worse" if high < 0 else "no difference is shown"


def interval(values: Iterator[float]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.percentile(list(values), [2.5, 97.5])
    return float(low), float(high)
