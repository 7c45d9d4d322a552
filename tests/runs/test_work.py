"""How the batches of a stage are shared out."""

from hypothesis import given, strategies as st

from tasks.runs.work import CHUNKS, chunks


@given(st.lists(st.integers(), max_size=2_000), st.integers(1, 64))
def test_every_batch_is_in_one_chunk_and_none_is_much_longer(numbers: list[int], workers: int) -> None:
    """All batches, in their order; a worker has several chunks where there are enough, and Prefect's history stays short."""
    made = chunks(numbers, workers)
    assert [number for chunk in made for number in chunk] == numbers
    assert len(made) == min(len(numbers), workers * 4, CHUNKS)
    assert not made or max(map(len, made)) - min(map(len, made)) <= 1
