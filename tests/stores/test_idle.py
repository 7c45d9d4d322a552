"""Connections are kept from one use to the next while a run is worked on, and only then."""

from contextlib import suppress

from tasks.stores.postgres import idle


def pid(url: str) -> int:
    with idle.connection(url, "vecferry test") as connection:
        return connection.info.backend_pid


def test_a_connection_is_used_again_and_closed_in_the_end(database: str) -> None:
    with idle.keeping(database):
        first = pid(database)
        assert pid(database) == first
        with idle.connection(database, "vecferry test") as one, idle.connection(database, "vecferry test") as two:
            assert one.info.backend_pid != two.info.backend_pid
        with idle.connection(database, "vecferry test") as kept:
            pass
    assert kept.closed


def test_nothing_is_kept_when_nobody_asked_for_it(database: str) -> None:
    with idle.connection(database, "vecferry test") as connection:
        pass
    assert connection.closed


def test_one_that_the_server_ended_is_replaced(database: str) -> None:
    with idle.keeping(database):
        first = pid(database)
        with idle.connection(database, "another") as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
        assert pid(database) != first


def test_one_in_the_middle_of_a_transaction_is_not_handed_on(database: str) -> None:
    with idle.keeping(database):
        with suppress(RuntimeError), idle.connection(database, "vecferry test") as left:
            left.execute("BEGIN")
            raise RuntimeError
        assert left.closed
