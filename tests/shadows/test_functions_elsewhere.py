"""Search functions that lie in another schema than their table."""

import pytest

from tasks.cutover import contract, cutover, rollback
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import CALL, DEFINITIONS
from tests.helpers.searched import FUNCTION, NEW, OLD, alike, answers, fill, grant, literal, migrated, verified

USUAL = DEFINITIONS[0].create


@pytest.mark.parametrize("layout", ["column", "side_table"])
@pytest.mark.parametrize("named", ["public.match_docs", None])
def test_a_function_in_another_schema_is_switched_there(
    connection: Connection, people: tuple[str, str, str], layout: str, named: str | None
) -> None:
    """By its qualified name, or by the usual one where the search path leads to it: old and new queries are answered by one name,
    a rollback restores it to the letter, a contract leaves it whole, and no function comes to the table's schema."""
    fill(connection, "app", OLD)
    fill(connection, "ideal", NEW)
    connection.execute(USUAL.format(schema="app", d=16))  # type: ignore[call-overload]
    connection.execute(USUAL.format(schema="ideal", d=24))  # type: ignore[call-overload]
    for schema in ("app", "ideal"):
        grant(connection, schema, people)
    connection.execute("ALTER FUNCTION app.match_docs SET SCHEMA public")
    connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {people[0]}; GRANT USAGE ON SCHEMA public TO PUBLIC")
    definition = FUNCTION.replace("'app'", "'public'")
    old, new = (CALL.format(schema="public", q=literal(embedder, 7)) for embedder in (OLD, NEW))
    ideal = answers(connection, CALL.format(schema="ideal", q=literal(NEW, 7)), people)
    before, function = answers(connection, old, people), connection.execute(definition).fetchall()
    run = migrated(connection, layout=layout, target={"function": named} if named else {})
    cutover(run)
    assert alike(answers(connection, new, people), ideal)
    assert answers(connection, old, people) == before
    rollback(run)
    assert connection.execute(definition).fetchall() == function
    cutover(verified(connection, run))
    contract(run, 0)
    assert alike(answers(connection, new, people), ideal)
    assert connection.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'app'::regnamespace").fetchall() == []
