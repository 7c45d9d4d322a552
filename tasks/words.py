"""Counts in plain English."""


def counted(count: int, noun: str) -> str:
    """``1 batch``, ``2 batches``."""
    plural = f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
