"""Functions that are made where others were."""

from collections.abc import Callable, Sequence

from psycopg import errors

from tasks.stores.postgres.catalogue import Function, drop
from tasks.stores.postgres.connection import Connection


def remake(connection: Connection, before: Sequence[Function], make: Callable[[], Function]) -> Function:
    """Makes a function in the place of those ``before``. One that can be replaced stays the same to PostgreSQL, and is there for
    whoever is about to call it; what takes or returns something else cannot, and is dropped."""
    try:
        with connection.transaction():
            made = make()
    except errors.InvalidFunctionDefinition:
        for function in before:
            drop(connection, function.signature)
        return make()
    for function in before:
        if function.oid != made.oid:
            drop(connection, function.signature)
    return made
