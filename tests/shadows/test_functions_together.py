"""Tables that several functions search: those that are named switch together, and no other is forgotten."""

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.planning.registry import make_plan
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import CALL, DEFINITIONS
from tests.helpers.searched import NEW, OLD, alike, answers, fill, grant, literal, migrated, verified

USUAL = DEFINITIONS[0].create
SECOND = next(d.create for d in DEFINITIONS if d.name == "keywords and meaning, fused").replace(
    "match_docs", "hybrid_search"
)
CALLS = (CALL, CALL.replace("match_docs", "hybrid_search"))
BOTH = (
    "SELECT pg_get_functiondef(oid), proacl::text, proowner FROM pg_proc "
    "WHERE proname IN ('match_docs', 'hybrid_search') AND pronamespace = 'app'::regnamespace ORDER BY 1"
)


def made(connection: Connection, people: tuple[str, str, str]) -> None:
    fill(connection, "app", OLD)
    fill(connection, "ideal", NEW)
    for schema, d in (("app", 16), ("ideal", 24)):
        connection.execute(USUAL.format(schema=schema, d=d))  # type: ignore[call-overload]
        grant(connection, schema, people)
        connection.execute(SECOND.format(schema=schema, d=d))  # type: ignore[call-overload]


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_functions_that_are_named_switch_together(
    connection: Connection, people: tuple[str, str, str], layout: str
) -> None:
    """Both answer old and new queries after the cutover, are as they were after a rollback, and are whole after a contract."""
    made(connection, people)
    old = [call.format(schema="app", q=literal(OLD, 7)) for call in CALLS]
    new = [call.format(schema="app", q=literal(NEW, 7)) for call in CALLS]
    ideal = [answers(connection, call.format(schema="ideal", q=literal(NEW, 7)), people[:2]) for call in CALLS]
    before, functions = [answers(connection, call, people[:2]) for call in old], connection.execute(BOTH).fetchall()
    run = migrated(connection, layout=layout, target={"function": ["match_docs", "app.hybrid_search"]})
    cutover(run)
    assert alike([answers(connection, call, people[:2]) for call in new], ideal)
    assert [answers(connection, call, people[:2]) for call in old] == before
    rollback(run)
    assert connection.execute(BOTH).fetchall() == functions
    cutover(verified(connection, run))
    contract(run, 0)
    assert alike([answers(connection, call, people[:2]) for call in new], ideal)


def test_a_function_that_is_not_switched_is_named_and_not_broken(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """By the plan, the cutover and what verify notes; a contract is refused while it reads the column that would go."""
    made(connection, people)
    run = migrated(connection)
    told = "app.docs.embedding is named by app.hybrid_search, which the run does not switch"
    for lines in (
        make_plan(connection, run.plan.request, "another").warnings,
        cutover(run),
        shadow_of(run, run.plan.targets[0]).notes(),
    ):
        assert [line for line in lines if line.startswith(told)], lines
    with pytest.raises(VerificationRefused, match=r"would break app\.hybrid_search"):
        contract(run, 0)
    old = CALLS[1].format(schema="app", q=literal(OLD, 7))
    assert len(answers(connection, old, people[1:2])["app"]) == 8
    by_new = SECOND.format(schema="app", d=24).replace("embedding <=>", "embedding_24 <=>")
    connection.execute(by_new.replace("CREATE", "CREATE OR REPLACE"))  # type: ignore[call-overload]
    contract(run, 0)
    assert len(answers(connection, old.replace(literal(OLD, 7), literal(NEW, 7)), people[1:2])["app"]) == 8


def test_what_was_written_anew_since_the_switch_is_not_broken_either(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A function that the application deployed again after the cutover, by the old column, keeps a contract back."""
    made(connection, people)
    connection.execute("DROP FUNCTION app.hybrid_search")
    run = migrated(connection)
    cutover(run)
    connection.execute(USUAL.format(schema="app", d=16).replace("CREATE", "CREATE OR REPLACE"))  # type: ignore[call-overload]
    with pytest.raises(VerificationRefused, match=r"would break app\.match_docs"):
        contract(run, 0)


def test_bodies_are_given_by_name(connection: Connection, people: tuple[str, str, str]) -> None:
    """One body for several functions says nothing of which; by name each gets its own, and a name of none is told."""
    made(connection, people)
    body = (
        "SELECT d.id, d.content, 1 - (d.embedding_24 <=> query_embedding) FROM app.docs d "
        "ORDER BY d.embedding_24 <=> query_embedding LIMIT match_count"
    )
    both = ["match_docs", "hybrid_search"]
    (problem,) = problems(connection, function=both, function_sql=body)
    assert problem.startswith("`function_sql` is one body for match_docs and hybrid_search")
    (problem,) = problems(connection, function=both, function_sql={"search": body})
    assert problem.startswith("`function_sql` has a body for app.search, which is not switched")
    cutover(migrated(connection, target={"function": both, "function_sql": {"match_docs": body}}))
    ideal = answers(connection, CALLS[0].format(schema="ideal", q=literal(NEW, 7)), people[1:2])
    assert alike(answers(connection, CALLS[0].format(schema="app", q=literal(NEW, 7)), people[1:2]), ideal)


def problems(connection: Connection, **target: object) -> list[str]:
    named = {"table": "app.docs", "text": "content", "new_column": "embedding_24", **target}
    form = Text384To1536.model_validate({"targets": [named], "embedder": "hashing/24"})
    return make_plan(connection, form.request(), "r").problems


def test_a_list_of_none_switches_none(connection: Connection, people: tuple[str, str, str]) -> None:
    """An application that moves by itself is left alone, and told of what goes on with the old vectors."""
    made(connection, people)
    functions = connection.execute(BOTH).fetchall()
    cutover(migrated(connection, target={"function": []}))
    assert connection.execute(BOTH).fetchall() == functions
