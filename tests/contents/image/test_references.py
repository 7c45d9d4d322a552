"""What a document of images says, and which part of a picture its crop means."""

import json

import pytest
from hypothesis import given, settings, strategies as st

from tasks.contents.image.references import Reference, read, within
from tasks.embedders.interface import RowError
from tasks.embedders.pictures import Size
from tasks.stores.postgres.connection import Connection

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("document", "reference"),
    [
        ("a.jpg", Reference("a.jpg")),
        ("https://h/a b.jpg?x={}", Reference("https://h/a b.jpg?x={}")),
        ('{"image": "a.jpg"}', Reference("a.jpg")),
        ('{"image": "{a}.jpg"}', Reference("{a}.jpg")),
        ('{"crop": [1, 2.5, 3, 4], "image": "a"}', Reference("a", (1, 2.5, 3, 4))),
        ('{"crop":[null,null,null,null],"image":"a"}', Reference("a")),
        ('{"image": "a", "version": 3}', Reference("a", version="3")),
        ('{"image": "a", "version": "2026-01-01", "more": []}', Reference("a", version="2026-01-01")),
        (f'{{"image": "7", "sha256": "{DIGEST}", "bytes": 12}}', Reference("7", sha256=b"\xab" * 32, size=12)),
    ],
)
def test_a_document_is_a_bare_reference_or_an_object(document: str, reference: Reference) -> None:
    """In whichever spacing and order of fields."""
    assert read(document) == reference


@pytest.mark.parametrize(
    "document",
    [
        "",
        "  ",
        "a\0b",
        "a" * 9000,
        "\ud800",
        "{a}.jpg",
        "{}",
        '{"image": ""}',
        '{"image": 7}',
        '{"image": "a", "crop": [1, 2, 3]}',
        '{"image": "a", "crop": [1, null, 3, 4]}',
        '{"image": "a", "crop": ["NaN", 2, 3, 4]}',
        '{"image": "a", "crop": [NaN, 2, 3, 4]}',
        '{"image": "a", "crop": [Infinity, 2, 3, 4]}',
        '{"image": "a", "crop": [true, 2, 3, 4]}',
        '{"image": "a", "crop": [1e400, 2, 3, 4]}',
        '{"image": "a", "crop": [' + "9" * 400 + ", 2, 3, 4]}",
        '{"image": "a", "crop": "1,2,3,4"}',
        '{"image": "a", "sha256": "ab", "bytes": 1}',
        f'{{"image": "a", "sha256": "{DIGEST}"}}',
        f'{{"image": "a", "sha256": "{DIGEST}", "bytes": -1}}',
        '{"image": "a"' + "[" * 100_000,
    ],
)
def test_a_document_that_says_nothing_is_refused(document: str) -> None:
    """With the class ``reference``, whatever is wrong with it."""
    result = read(document)
    assert isinstance(result, RowError)
    assert result.kind == "reference"
    assert len(result.message) < 600


@settings(max_examples=300, deadline=None)
@given(st.text() | st.builds("{{{}".format, st.text()) | st.builds(json.dumps, st.dictionaries(st.text(), st.text())))
def test_no_document_is_an_error_of_ours(document: str) -> None:
    """Whatever a table has there."""
    assert isinstance(read(document), Reference | RowError)


def test_what_postgresql_writes_is_read(connection: Connection) -> None:
    """The expression that the module names, over columns of several types, with nulls and what is no number."""
    connection.execute(
        "CREATE TABLE a (image text, x real, y float8, w numeric, h int, version timestamptz);"
        "INSERT INTO a VALUES ('a.jpg', 0.1, 0.2, 0.30, 1, '2026-01-01Z'), ('a.jpg', 12.5, 1e3, 7.00, 9, NULL),"
        " ('a.jpg', NULL, NULL, NULL, NULL, NULL), ('a.jpg', 'NaN', 1, 1, 1, NULL), ('{a\"', 1, 2, 3, 4, NULL)"
    )
    rows = connection.execute(
        "SELECT jsonb_strip_nulls(jsonb_build_object('image', image, 'crop', jsonb_build_array(x, y, w, h), "
        "'version', version))::text FROM a"
    ).fetchall()
    first, second, third, fourth, fifth = (read(document) for (document,) in rows)
    assert isinstance(first, Reference)
    assert first.crop == (0.1, 0.2, 0.3, 1)
    assert first.version is not None
    assert second == Reference("a.jpg", (12.5, 1000, 7, 9))
    assert third == Reference("a.jpg")
    assert isinstance(fourth, RowError)
    assert fifth == Reference('{a"', (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        ((10, 20, 30, 40), (10, 20, 40, 60)),
        ((0, 0, 100, 80), None),
        ((0, 0, 1, 1), None),
        ((0.1, 0.25, 0.5, 0.5), (10, 20, 60, 60)),
        ((0.7, 0.1, 0.3, 0.9), (70, 8, 100, 80)),
        ((0, 0, 0.001, 0.001), (0, 0, 1, 1)),
        ((10.4, 20.6, 30, 40), (10, 21, 40, 61)),
        ((0, 0, 1, 2), (0, 0, 1, 2)),
        ((-0.4, 0, 50, 50), (0, 0, 50, 50)),
        ((60, 40, 40.4, 40), (60, 40, 100, 80)),
    ],
)
def test_a_crop_is_pixels_or_fractions(crop: tuple[float, float, float, float], box: object) -> None:
    """Fractions where all four are 1 or less; edges to the nearest pixel; all of a picture is no crop."""
    assert within(crop, Size(100, 80)) == box


@pytest.mark.parametrize(
    "crop",
    [
        (-1, 0, 10, 10),
        (0, 0, 101, 10),
        (90, 0, 11, 80),
        (0, 81, 10, 2),
        (0, 0, 0, 10),
        (5, 5, -2, 3),
        (0.5, 0, 0.6, 1),
        (-0.1, 0, 1, 1),
    ],
)
def test_a_crop_that_stands_out_is_outside(crop: tuple[float, float, float, float]) -> None:
    """And one without an extent."""
    result = within(crop, Size(100, 80))
    assert isinstance(result, RowError)
    assert result.kind == "outside"
    assert "which is 100×80" in result.message


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(*[st.floats(-5, 120)] * 4) | st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 100), st.integers(1, 100)
)
def test_a_part_is_never_outside_of_its_picture(
    crop: tuple[float, float, float, float], width: int, height: int
) -> None:
    """It has a pixel at least, and its edges are within one pixel of what was asked for."""
    result = within(crop, Size(width, height))
    if isinstance(result, tuple):
        left, top, right, bottom = result
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        across, down = (width, height) if max(crop) <= 1 else (1, 1)
        assert abs(left - crop[0] * across) <= 1
        assert abs(bottom - (crop[1] + crop[3]) * down) <= 1
