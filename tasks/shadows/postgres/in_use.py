"""Whether people use the new vectors of a live table, as the ledger has it."""

from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA, LivePlace


def becomes(connection: Connection, place: LivePlace, role: str) -> None:
    """Notes whether they do: ``live``, or ``shadow``. That they once did stays known."""
    connection.execute(
        "UPDATE vecferry.relation SET role = %s, source = source || jsonb_build_object('switched', role = 'live' OR %s = 'live' "
        "OR coalesce((source ->> 'switched')::boolean, false)) WHERE table_schema = %s AND table_name = %s",
        (role, role, SCHEMA, place.shadow),
    )


def ever(connection: Connection, place: LivePlace) -> bool:
    """Whether they do, or once did."""
    row = connection.execute(
        "SELECT role = 'live' OR coalesce((source ->> 'switched')::boolean, false) FROM vecferry.relation "
        "WHERE table_schema = %s AND table_name = %s",
        (SCHEMA, place.shadow),
    ).fetchone()
    return row == (True,)
