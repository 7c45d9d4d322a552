"""Which function a plan switches: the one that is named, in whichever schema, or the usual one; never silently none."""

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import DEFINITIONS
from tests.helpers.searched import OLD, fill

USUAL = DEFINITIONS[0].create


def planned(connection: Connection, **target: object) -> Planned:
    named = {"table": "app.docs", "text": "content", "new_column": "embedding_24", **target}
    form = Text384To1536.model_validate({"targets": [named], "embedder": "hashing/24"})
    return make_plan(connection, form.request(), "r")


def made(connection: Connection, *definitions: str) -> None:
    fill(connection, "app", OLD)
    for definition in definitions:
        connection.execute(definition.format(schema="app", d=16))  # type: ignore[call-overload]


def test_a_function_that_is_named_and_not_there_is_a_problem(connection: Connection) -> None:
    """With the name as it was looked for, in the table's schema and by a schema of its own."""
    made(connection, USUAL)
    assert planned(connection, function="search_docs").problems[0].startswith("there is no function app.search_docs")
    assert (
        planned(connection, function="public.match_docs")
        .problems[0]
        .startswith("there is no function public.match_docs")
    )


@pytest.mark.parametrize("name", ["{schema}.search_docs", "public.search_docs", '{schema}."Search docs"'])
def test_a_table_that_is_searched_by_another_name_is_not_switched_silently(connection: Connection, name: str) -> None:
    """Where the usual name is not there, whatever takes a distance from the old column is named, with the way on, which works."""
    made(connection, USUAL.replace("{schema}.match_docs", name))
    shown = name.format(schema="app")
    (problem,) = planned(connection).problems
    assert f"is searched by {shown}" in problem
    assert planned(connection, function=shown).problems == []


def test_a_table_that_nothing_searches_is_told(connection: Connection) -> None:
    """It is no problem: the application may send its searches itself."""
    made(connection)
    plan = planned(connection)
    assert plan.problems == []
    assert any("no function app.match_docs" in warning for warning in plan.warnings)


@pytest.mark.parametrize("result", ["SETOF record", "record"])
def test_rows_whose_columns_only_callers_name_are_refused(connection: Connection, result: str) -> None:
    """A function that chooses between models could not hand them on; with names of its own for them it is taken."""
    create = (
        "CREATE FUNCTION {{schema}}.match_docs(query_embedding vector({{d}}), match_count int{}) RETURNS {} LANGUAGE sql STABLE "
        "AS $$ SELECT d.id, d.content FROM {{schema}}.docs d ORDER BY d.embedding <=> query_embedding LIMIT match_count $$"
    )
    made(connection, create.format("", result))
    (problem,) = planned(connection).problems
    assert problem.startswith(f"app.match_docs returns {result}, whose columns only its callers name")
    assert "RETURNS TABLE" in problem
    connection.execute("DROP FUNCTION app.match_docs")
    connection.execute(create.format(", OUT id bigint, OUT content text", result).format(schema="app", d=16))
    assert planned(connection).problems == []
