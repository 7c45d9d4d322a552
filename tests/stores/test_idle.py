"""Connections are kept from one use to the next while a run is worked on, and only then."""

from contextlib import suppress

from tasks.stores.postgres.idle import Connections
from tests.helpers.sent import recorded


def pid(connections: Connections) -> int:
    with connections.connection("vecferry test") as connection:
        return connection.info.backend_pid


def test_a_connection_is_used_again_and_closed_in_the_end(database: str) -> None:
    """Two that are used at once are two; one that is given back too late is closed then."""
    connections = Connections(database, kept=True)
    first = pid(connections)
    with recorded() as statements:
        assert pid(connections) == first
    assert statements == [], "taking it again costs a round trip"
    with connections.connection("vecferry test") as one, connections.connection("vecferry test") as two:
        assert one.info.backend_pid != two.info.backend_pid
    with connections.connection("vecferry test") as late:
        connections.close()
        assert two.closed or one.closed
    assert late.closed


def test_nothing_is_kept_when_nobody_asked_for_it(database: str) -> None:
    """It is closed when it is given back."""
    with Connections(database).connection("vecferry test") as connection:
        pass
    assert connection.closed


def test_one_that_the_server_ended_is_replaced(database: str) -> None:
    """As after a restart."""
    connections = Connections(database, kept=True)
    first = pid(connections)
    with connections.connection("another") as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    assert pid(connections) != first
    connections.close()


def test_one_in_the_middle_of_a_transaction_is_not_handed_on(database: str) -> None:
    """Nobody gets what somebody else has begun."""
    connections = Connections(database, kept=True)
    with suppress(RuntimeError), connections.connection("vecferry test") as left:
        left.execute("BEGIN")
        raise RuntimeError
    assert left.closed
