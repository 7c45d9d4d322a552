"""Documents are cut where their text has a boundary, and nothing of it is lost."""

import pytest
from hypothesis import given, strategies as st

from tasks.contents.chunks import CHUNK_BYTES, SMALLEST, chunks, halves
from tasks.embedders.texts import size

PROSE = "One sentence is here. Another one follows it! Does a third? It does.\nA new line begins.\n\n"


@given(st.text(alphabet="ab .!?\n\t'\"é語。", max_size=400), st.integers(4, 120))
def test_chunks_are_the_text_and_fit(text: str, most: int) -> None:
    """Put together they are the document but for blanks; none is blank, and none has more bytes than it may."""
    cut = chunks(text, most)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(piece.strip() == piece != "" and size(piece) <= most for piece in cut)


def test_paragraphs_stay_together_where_they_fit() -> None:
    """As many as fit are one chunk; one that does not fit is parted at its lines, then its sentences, then its words."""
    assert chunks("a\n\nb\n \nc", 100) == ["a\n\nb\n \nc"]
    assert chunks("first one\n\nsecond one\n\nthird", 23) == ["first one\n\nsecond one", "third"]
    assert chunks(PROSE, 60) == [
        "One sentence is here. Another one follows it! Does a third?",
        "It does.\nA new line begins.",
    ]
    assert chunks("# Heading\n\n" + "A long paragraph. " * 3, 30) == [
        "# Heading\n\nA long paragraph.",
        "A long paragraph.",
        "A long paragraph.",
    ]
    assert chunks("some words of a sentence without end", 14) == ["some words of", "a sentence", "without end"]


def test_a_word_without_end_is_cut() -> None:
    """Text without a boundary, and characters of several bytes, come in pieces all the same."""
    assert chunks("x" * 2_500) == ["x" * 1_000, "x" * 1_000, "x" * 500]
    assert {size(piece) for piece in chunks("語" * 700)[:-1]} == {999}
    assert CHUNK_BYTES == 1_000


@pytest.mark.parametrize("text", ["", " \n\n\t "])
def test_a_blank_text_has_no_chunks(text: str) -> None:
    """Nothing is there to be found by."""
    assert chunks(text) == []


def test_what_a_model_finds_too_long_is_halved() -> None:
    """Until it is so short that its length is not what the model has against it."""
    text = "Twelve words that are long enough to be parted into two pieces."
    first, second, *more = halves(text)
    assert f"{first} {second}" == text or more
    assert halves("x" * SMALLEST) == ["x" * SMALLEST]
