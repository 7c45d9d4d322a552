"""How far one has to read to follow a batch through load stays within its limits."""

from collections.abc import Callable

import pytest

from benchmarks import moves


def test_a_batch_that_is_carried(database: str, chroma_dir: Callable[..., str]) -> None:
    """chroma-to-pgvector: at most 14 files, and 120 moves between them."""
    way = moves.carried(chroma_dir(count=2 * moves.BATCH))
    assert way.holds, "\n".join([f"{len(way.entered)} files, {way.moves} moves", *way.files])


@pytest.mark.parametrize("layout", ["side_table", "column"])
def test_a_batch_that_is_embedded(database: str, layout: str) -> None:
    """text-384-to-1536: at most 18 files, and 150 moves between them."""
    way = moves.embedded(layout, database)
    assert way.holds, "\n".join([f"{len(way.entered)} files, {way.moves} moves", *way.files])
