"""Counts in plain English."""

import pytest

from tasks.words import batches_named, counted


@pytest.mark.parametrize(
    ("numbers", "name"), [([3], "batch 3"), ([0, 1, 2], "batches 0 to 2"), ([4, 5], "batches 4 to 5")]
)
def test_batches_are_named_in_letters_that_every_page_draws(numbers: list[int], name: str) -> None:
    """One batch is a batch; several are named without a dash, which the V1 interface leaves out of its timeline."""
    assert batches_named(numbers) == name
    assert name.isascii()


@pytest.mark.parametrize(("count", "said"), [(1, "1 batch"), (2, "2 batches"), (1_000, "1,000 batches")])
def test_plurals_are_right(count: int, said: str) -> None:
    """A count goes with its noun."""
    assert counted(count, "batch") == said
