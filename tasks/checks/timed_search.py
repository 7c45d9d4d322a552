"""Searches as an application asks them, one at a time, and how many of them a run has time for.

On a busy database each search is followed by a rest, so that a thousand of them can take longer than the migration. What
decides on the switch goes first and is cut last; latencies and recall for other values of ef_search take what is left.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.checks.benchmark import Latency
from tasks.stores.interface import Hits


@dataclass(frozen=True)
class Allowance:
    """The time that searches may take, and how many of them are made whatever they take."""

    share: float
    """Of the time that the run's other stages took for this target."""
    seconds: float
    """At least."""
    probes: int

    def until(self, worked: float) -> float:
        """When the time that starts now is over, by time.monotonic; ``worked`` is in seconds."""
        return time.monotonic() + max(self.seconds, self.share * worked)


GATED = Allowance(share=0.5, seconds=30.0, probes=100)
"""Searches that gates are decided by. 100 random ones still tell recall to within 0.01."""
SHOWN = Allowance(share=0.1, seconds=5.0, probes=10)
"""Searches that are only reported, all of them together."""


Turns = Callable[[], AbstractContextManager[Any]]
"""What each search is done in, as ``Records.turns`` yields it."""


@dataclass(frozen=True)
class Timed:
    """The answers to the first queries, as many as there was time for, with the seconds that each took."""

    hits: list[Hits]
    seconds: list[float]

    @property
    def latency(self) -> Latency:
        p50, p95, p99 = (float(x) * 1000 for x in np.percentile(self.seconds, [50, 95, 99]))
        made = len(self.seconds)
        return Latency(p50, p95, p99, made / sum(self.seconds), made)


def timed(
    ask: Callable[[np.ndarray], list[Hits]],
    probes: np.ndarray,
    until: float,
    least: int,
    turns: AbstractContextManager[Turns] | None = None,
) -> Timed:
    """Searches for one probe of float32[n, d] after the other until the time is over, and for ``least`` of them in any case.
    Each is done in one of ``turns``, where others come first. The first is asked twice, so that connecting is not counted."""
    hits, seconds = list[Hits](), list[float]()
    with turns or nullcontext[Turns](nullcontext) as take:
        with take():
            ask(probes[:1])
        for row in range(len(probes)):
            if row >= least and time.monotonic() > until:
                break
            with take():
                started = time.perf_counter()
                hits += ask(probes[row : row + 1])
                seconds.append(time.perf_counter() - started)
    return Timed(hits, seconds)
