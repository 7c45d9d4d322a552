"""Search functions as people have them, through a switch, its rollback and a contract: everybody is answered as by an ideal
function, which is the same definition over a table that had the new vectors from the beginning."""

import pytest

from tasks.cutover import contract, cutover, rollback
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import DEFINITIONS, Definition
from tests.helpers.searched import (
    FUNCTION,
    NAMES,
    NEW,
    OLD,
    USER,
    alike,
    answers,
    fill,
    grant,
    literal,
    migrated,
    verified,
)

SAMPLED = (
    "own rows of a user, by the function's owner",
    "jsonb filter and defaults, PL/pgSQL",
    "rows of the table",
    "half vectors",
)


@pytest.mark.parametrize("layout", ["column", "side_table"])
@pytest.mark.parametrize(
    "definition",
    [pytest.param(d, id=d.name, marks=() if d.name in SAMPLED else pytest.mark.whole) for d in DEFINITIONS],
)
def test_everybody_is_answered_as_by_an_ideal_function(
    connection: Connection, people: tuple[str, str, str], definition: Definition, layout: str
) -> None:
    """Old queries as before, to the letter; new ones with the rows and distances of the ideal function; who was refused is
    refused, by whatever name; and what a rollback leaves is the function as it was, with its rights."""
    fill(connection, "app", OLD, definition.type)
    fill(connection, "ideal", NEW)
    connection.execute(definition.create.format(schema="app", d=16))  # type: ignore[call-overload]
    connection.execute(definition.create.replace("halfvec", "vector").format(schema="ideal", d=24))  # type: ignore[call-overload]
    for schema in ("app", "ideal"):
        grant(connection, schema, people)
    connection.execute(USER)
    old = definition.call.format(schema="app", q=literal(OLD, 7))
    new = definition.call.format(schema="app", q=literal(NEW, 7))
    ideal = answers(
        connection, definition.call.format(schema="ideal", q=literal(NEW, 7)).replace("halfvec", "vector"), people
    )
    before, function = answers(connection, old, people), connection.execute(FUNCTION).fetchall()
    assert before["app"]
    assert before["outsider"] == "InsufficientPrivilege"

    run = migrated(connection, layout=layout)
    assert connection.execute(FUNCTION).fetchall() == function
    cutover(run)
    assert alike(answers(connection, new, people), ideal)
    if definition.dispatched:
        assert answers(connection, old, people) == before
    rollback(run)
    assert connection.execute(FUNCTION).fetchall() == function
    assert answers(connection, old, people) == before
    cutover(verified(connection, run))
    contract(run, 0)
    assert alike(answers(connection, new, people), ideal)
    made = connection.execute(NAMES.format(schema="app")).fetchall()  # type: ignore[call-overload]
    assert [name for (name,) in made if open_to(connection, name, people[2])] == []


def open_to(connection: Connection, function: str, role: str) -> bool:
    row = connection.execute("SELECT has_function_privilege(%s, %s, 'EXECUTE')", (role, function)).fetchone()
    return row == (True,)
