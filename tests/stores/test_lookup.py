"""What records elsewhere mean by a row of an SQL table."""

import pytest

from tasks.base.errors import UsageError
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.lookup import Lookup

ONE, TWO, NONE = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3))


@pytest.fixture
def images(connection: Connection) -> Lookup:
    """The guide's table."""
    connection.execute('CREATE TABLE images (id serial PRIMARY KEY, chunk_id uuid, "image path" text, number bigint)')
    for chunk, path, number in ((ONE, "a.png", 1), (TWO, "b.png", 2), (NONE, None, 3), (None, "d.png", None)):
        connection.execute(
            'INSERT INTO images (chunk_id, "image path", number) VALUES (%s, %s, %s)', (chunk, path, number)
        )
    return Lookup("chunk_id", "images", "chunk_id", "image path", "DATABASE_URL")


def test_rows_say_what_records_name(images: Lookup) -> None:
    """In the order of the records; nothing for a row that says nothing, one that is not there, and a record that names none."""
    missing = "00000000-0000-0000-0000-000000000009"
    assert images.documents([TWO, ONE, NONE, missing, None, TWO]) == ["b.png", "a.png", None, None, None, "b.png"]
    assert images.documents([None, ["x"], True]) == [None] * 3
    by_number = Lookup("n", "public.images", "number", "image path", "DATABASE_URL")
    assert by_number.documents([1, "2", 3, 99]) == ["a.png", "b.png", None, None]


def test_a_record_that_names_no_value_of_the_type_stands_in_nobodys_way(images: Lookup) -> None:
    """A word in place of a UUID finds no row, and the others of its page find theirs."""
    assert images.documents(["photo", ONE]) == [None, "a.png"]


def test_of_several_rows_the_least_counts(images: Lookup, connection: Connection) -> None:
    """Always the same, and the plan says so; equal rows are no matter."""
    connection.execute('INSERT INTO images (chunk_id, "image path") VALUES (%s, %s)', (TWO, "b.png"))
    assert images.warnings() == []
    connection.execute('INSERT INTO images (chunk_id, "image path") VALUES (%s, %s)', (TWO, "a2.png"))
    assert images.documents([TWO]) == ["a2.png"]
    assert images.warnings() == [f"images has several rows whose chunk_id is {TWO!r}: the least image path counts"]


def test_rows_that_no_record_names(images: Lookup) -> None:
    """Images that no point is of, counted, the first by name; rows that say nothing are none."""
    assert images.unnamed([[ONE], [None, 5]]) == (1, [TWO])
    assert images.unnamed([[ONE, TWO]]) == (0, [])
    assert images.unnamed([]) == (2, [ONE, TWO])


def test_what_is_not_there_is_named(images: Lookup) -> None:
    """A table, a column, a database."""
    with pytest.raises(UsageError, match="there is no table pictures"):
        Lookup("chunk_id", "pictures", "chunk_id", "image path", "DATABASE_URL").documents([ONE])
    with pytest.raises(UsageError, match=r"public\.images has no column 'path'; its columns: id, chunk_id, image path"):
        Lookup("chunk_id", "images", "chunk_id", "path", "DATABASE_URL").warnings()
    with pytest.raises(UsageError, match="called NO_SUCH_URL"):
        Lookup("chunk_id", "images", "chunk_id", "image path", "NO_SUCH_URL").documents([ONE])
