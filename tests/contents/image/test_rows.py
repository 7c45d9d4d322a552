"""Pictures that a table holds itself."""

import hashlib
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tasks.base.errors import FatalError
from tasks.contents.image.content import Image
from tasks.contents.image.rows import CONNECTIONS, Rows
from tasks.embedders.interface import RowError
from tasks.stores.postgres.connection import Connection
from tests.contents.image.pictures import picture, wait_until

TABLE = 'public."Re ports"'


@pytest.fixture
def source(connection: Connection) -> Iterator[Rows]:
    connection.execute(f'CREATE TABLE {TABLE} (id int PRIMARY KEY, "Pho%to" bytea, edited bytea)')
    for number in range(5):
        connection.execute(f"INSERT INTO {TABLE} VALUES (%s, %s)", (number, picture(number)))
    connection.execute(f"UPDATE {TABLE} SET edited = %s WHERE id = 1", (picture(100),))
    connection.execute(f"INSERT INTO {TABLE} VALUES (7, NULL), (8, decode(repeat('00', 2000), 'hex'))")
    opened = Rows("DATABASE_URL", TABLE, 'coalesce(edited, "Pho%to")', "id", 1000)
    yield opened
    opened.close()


def kind(result: bytes | RowError) -> str:
    assert isinstance(result, RowError)
    return result.kind


def test_a_picture_is_read_by_the_key_of_its_row(source: Rows, connection: Connection) -> None:
    """As the expression says; by many threads over a few connections of their own."""
    assert source.read("0") == picture(0)
    assert source.read("1") == picture(100)
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(source.read("2"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [picture(2)] * 20
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vecferry images'"
    assert 1 <= connection.execute(sessions).fetchone()[0] <= CONNECTIONS  # type: ignore[index]
    source.close()
    wait_until(lambda: connection.execute(sessions).fetchone() == (0,))


def test_what_is_not_there_or_too_large_is_told(source: Rows) -> None:
    """And does not leave the database."""
    assert kind(source.read("7")) == "missing"
    assert kind(source.read("99")) == "missing"
    assert kind(source.read("8")) == "too_large"


def test_a_table_that_is_not_there_stops_the_run(source: Rows, connection: Connection) -> None:
    """So does a column of another type."""
    with pytest.raises(FatalError, match='relation "gone" does not exist'):
        Rows("DATABASE_URL", "gone", "photo", "id", 1000).read("1")
    with pytest.raises(FatalError, match="is not bytea"):
        Rows("DATABASE_URL", TABLE, "id::text", "id", 1000).read("1")


def test_a_lost_connection_is_made_anew(source: Rows, connection: Connection) -> None:
    """After a moment."""
    object.__setattr__(source.patience, "first_delay", 0.01)
    assert source.read("0") == picture(0)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vecferry images' AND datname = current_database()"
    )
    assert source.read("0") == picture(0)


def test_nothing_is_written(source: Rows) -> None:
    """Whatever an expression calls."""
    source.read("0")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        source._connect().execute(f"DELETE FROM {TABLE}")


def test_a_picture_whose_hash_is_known_is_opened_only_where_it_is_wanted(source: Rows, connection: Connection) -> None:
    """Its key comes from the document; opened, it must be the same; a new one is told as changed."""
    content = Image(database="DATABASE_URL", table=TABLE, column='"Pho%to"', key="id", max_bytes=1000)
    documents = [
        document
        for (document,) in connection.execute(
            "SELECT jsonb_strip_nulls(jsonb_build_object('image', id::text, 'sha256', encode(sha256(\"Pho%%to\"), 'hex'), "
            f"'bytes', octet_length(\"Pho%%to\")))::text FROM {TABLE} WHERE id < 5 OR id = 8 ORDER BY id",
            (),
        )
    ]
    connection.execute(f'UPDATE {TABLE} SET "Pho%%to" = %s WHERE id = 3', (picture(200),))
    refused, part = content.slices(documents, lambda items: pytest.fail("there is nothing to hash"))
    assert {row: error.kind for row, error in refused.refused.items()} == {5: "too_large"}
    assert list(part.rows) == [0, 1, 2, 3, 4]
    assert list(part.keys) == [hashlib.sha256(picture(number)).digest() for number in range(5)]

    parts = iter(content.slices(documents, lambda items: []))
    next(parts)
    part = next(parts)
    opened = list(part.open([4, 3, 0]))
    assert opened[0] == picture(4)
    assert kind(opened[1]) == "changed"  # type: ignore[arg-type]
    assert opened[2] == picture(0)
    assert list(parts) == []
