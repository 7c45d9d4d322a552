"""Search functions that nobody has written yet: each is made up, and the one derived from it answers as an ideal one does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.runs.plan import Target
from tasks.shadows.postgres import search_functions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace
from tests.helpers.search_definitions import Definition
from tests.helpers.searched import NEW, OLD, USER, alike, fill, literal, migrated

ARGUMENTS = {
    "query_embedding": ("vector({d})", "'{q}'::vector"),
    "match_count": ("int", "7"),
    "match_threshold": ("float", "-1"),
    "filter": ("jsonb", "'{{\"kind\": 1}}'"),
    "of_user": ("text", "'user 1'"),
}
"""Name → type, and what is given."""
FILTERS = {
    "filter": "{t}.metadata @> match_docs.filter",
    "of_user": "{t}.user_id = of_user",
    "match_threshold": "1 - ({t}.embedding <=> query_embedding) > match_threshold",
    None: "{t}.published",
    "setting": "{t}.user_id = current_setting('app.reader', true)",
    "exists": "EXISTS (SELECT FROM {schema}.users u WHERE u.user_id = {t}.user_id AND u.embedding IS NULL)",
    "in": "{t}.id IN (SELECT id FROM {schema}.docs WHERE embedding IS NOT NULL)",
}
RESULTS = {
    "TABLE (id bigint, content text, similarity float)": "{t}.id, {t}.content, 1 - ({t}.embedding <=> query_embedding)",
    "TABLE (id bigint, distance float)": "{t}.id, {t}.embedding <=> query_embedding AS distance",
    "TABLE (id bigint, vector vector, names text[])": (
        "{t}.id, {t}.embedding, ARRAY(SELECT u.name FROM {schema}.users u WHERE u.user_id = {t}.user_id)"
    ),
    "SETOF bigint": "{t}.id",
}
SOURCES = (
    "{schema}.docs AS {t}",
    "{schema}.docs {t} LEFT JOIN {schema}.users other USING (user_id)",
    "(SELECT * FROM {schema}.docs WHERE content <> '') AS {t}",
    "(SELECT d.*, 1 AS one FROM {schema}.docs d) AS {t}",
    "ONLY {schema}.docs {t}",
    "ONLY ({schema}.docs) AS {t}",
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """A function of SQL or PL/pgSQL over ``docs``, with arguments in any order."""
    table = draw(st.sampled_from(["d", "docs", '"Rows of docs"', "embedding_of"]))
    optional = draw(st.sets(st.sampled_from(["match_threshold", "filter", "of_user"])))
    names = draw(st.sampled_from(list(permutations(["query_embedding", "match_count", *sorted(optional)]))))
    filters = [
        text for name, text in FILTERS.items() if name in optional or (name not in ARGUMENTS and draw(st.booleans()))
    ]
    result = draw(st.sampled_from(sorted(RESULTS)))
    nearest = "{t}.embedding <=> query_embedding"
    select = (
        f"SELECT {RESULTS[result]} FROM {draw(st.sampled_from(SOURCES))} WHERE {' AND '.join(filters) or 'true'} "
        f"ORDER BY {draw(st.sampled_from([nearest, f'{nearest} ASC, {{t}}.id', f'1 - ({nearest}) DESC']))} "
        f"LIMIT {draw(st.sampled_from(['match_count', 'least(match_count, 5)', 'match_docs.match_count']))}"
    )
    if draw(st.booleans()):
        select = f"WITH visible AS ({select}) SELECT * FROM visible"
    body = f"LANGUAGE sql STABLE AS $$ {select} $$"
    if draw(st.booleans()):
        body = f"LANGUAGE plpgsql STABLE AS $$ #variable_conflict use_column\nBEGIN RETURN QUERY {select}; END $$"
    arguments = ", ".join(f"{name} {ARGUMENTS[name][0]}" for name in names)
    create = f"CREATE FUNCTION {{schema}}.match_docs({arguments}) RETURNS {result} {body}".replace("{t}", table)
    given_names = ", ".join(ARGUMENTS[name][1] for name in names)
    return Definition("made up", create, f"SELECT * FROM {{schema}}.match_docs({given_names})")


@dataclass(frozen=True)
class Place:
    connection: Connection
    target: Target[LivePlace]


@pytest.fixture
def place(connection: Connection) -> Callable[[str], Place]:
    """Both tables; of app.docs the vectors of both models, in a layout."""

    def make(layout: str) -> Place:
        fill(connection, "app", OLD)
        fill(connection, "ideal", NEW)
        connection.execute(USER)
        return Place(connection, migrated(connection, layout=layout).plan.targets[0])

    return make


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_a_derived_function_answers_as_an_ideal_one(place: Callable[[str], Place], layout: str) -> None:
    """By the rows, distances and vectors of the new model, whatever the order of arguments, the filters, the language, the result,
    the aliases and subqueries."""
    here = place(layout)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(definition=definitions())
    def derived(definition: Definition) -> None:
        with here.connection.transaction(force_rollback=True):
            for schema, d in (("app", 16), ("ideal", 24)):
                here.connection.execute(definition.create.format(schema=schema, d=d))  # type: ignore[call-overload]
            target = replace(here.target, place=replace(here.target.place, function="match_docs"))
            search_functions.make(here.connection, target, "match_docs", "made")
            ideal, made = (
                here.connection.execute(
                    definition.call.replace("match_docs", name).format(schema=schema, q=literal(NEW, 7))
                ).fetchall()  # type: ignore[call-overload]
                for schema, name in (("ideal", "match_docs"), ("app", "made"))
            )
            assert alike(made, ideal)

    derived()
