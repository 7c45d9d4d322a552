"""Search functions that lie in another schema than their table."""

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.cutover import contract, cutover, rollback
from tasks.planning.registry import make_plan
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


def test_an_owner_who_may_not_create_beside_his_function_is_named_with_the_grant(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """What is made of a function belongs to its owner, who may create in its schema, or not: the plan says so, and the statement."""
    keeper, app, _ = people
    fill(connection, "app", OLD)
    connection.execute(USUAL.format(schema="app", d=16))  # type: ignore[call-overload]
    grant(connection, "app", people)
    connection.execute(
        f"ALTER SCHEMA app OWNER TO CURRENT_USER; GRANT {keeper} TO {app}; GRANT USAGE, CREATE ON SCHEMA app TO {app}; "
        f"ALTER TABLE app.docs OWNER TO {app}; GRANT CREATE ON DATABASE {connection.info.dbname} TO {app}"
    )
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24"}
    request = Text384To1536.model_validate({"targets": [target], "embedder": "hashing/24"}).request()
    connection.execute(f"SET ROLE {app}")
    (problem,) = make_plan(connection, request, "r").problems
    connection.execute("RESET ROLE")
    assert problem.endswith(f'GRANT CREATE ON SCHEMA "app" TO {keeper}')
    connection.execute(problem[problem.index("GRANT") :])  # type: ignore[call-overload]
    connection.execute(f"SET ROLE {app}")
    assert make_plan(connection, request, "r").problems == []
    connection.execute("RESET ROLE")
