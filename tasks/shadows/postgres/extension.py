"""What tables of vectors stand on: pgvector, and the functions in vecferry's schema by which any of them is searched."""

from sql import statement
from tasks.runs import locks
from tasks.stores.postgres.connection import Connection, adapt, pgvector_schema
from tasks.stores.postgres.locking import locked


def prepare(connection: Connection) -> None:
    """Makes what is missing, in a database that has a ledger. Safe to call from many processes at once."""
    if pgvector_schema(connection) is None:
        connection.execute(statement("expand_extension"))
        adapt(connection)
    if not _searchable(connection):
        locked(connection, lambda: _make_functions(connection))


def _make_functions(connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (locks.LEDGER,))
    if not _searchable(connection):
        connection.execute(statement("expand_functions"))


def _searchable(connection: Connection) -> bool:
    names = ("vecferry.cosine_similarity", "vecferry.find_similar_documents")
    row = connection.execute(
        "SELECT bool_and(to_regproc(name) IS NOT NULL) FROM unnest(%s::text[]) AS name", (list(names),)
    )
    return row.fetchone() == (True,)
