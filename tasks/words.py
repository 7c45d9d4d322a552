"""Counts in plain English."""

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """``1 batch``, ``2 batches``."""
    plural = f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def batches_named(numbers: Sequence[int]) -> str:
    """Batch 3, or batches 0 to 5; no dash, which the timeline of Prefect's V1 interface does not draw."""
    return f"batch {numbers[0]}" if len(numbers) == 1 else f"batches {numbers[0]} to {numbers[-1]}"
