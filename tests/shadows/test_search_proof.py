"""What a switch of a search function proves before it is kept, and what is told of it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.planning.registry import make_plan
from tasks.shadows.postgres import probe
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres import catalogue
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import DEFINITIONS
from tests.helpers.searched import FUNCTION, NEW, OLD, USER, answers, fill, grant, literal, migrated

BY_NAME = {definition.name: definition for definition in DEFINITIONS}
USUAL, OF_A_USER = BY_NAME["usual"], BY_NAME["own rows of a user, by the function's owner"]
RENAMED = "SELECT d.id, d.content, 1 - (d.embedding_24 <=> query_embedding) FROM app.docs d {where} ORDER BY d.embedding_24 <=> query_embedding LIMIT match_count"  # noqa: E501


def searched(connection: Connection, people: tuple[str, str, str], create: str, dimensions: int = 16) -> None:
    """A table of 16 dimensions with its function, which one role may execute."""
    fill(connection, "app", OLD)
    connection.execute(create.format(schema="app", d=dimensions))  # type: ignore[call-overload]
    grant(connection, "app", people)
    connection.execute(USER)


def test_a_function_that_shows_a_role_more_is_not_switched(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A body of the user's that forgets the filter finds a row that its caller never got from the old function: the switch is
    rolled back and names role and row. The same body with the filter is switched."""
    searched(connection, people, OF_A_USER.create)
    before = connection.execute(FUNCTION).fetchall()
    leaky = migrated(connection, "leaky", target={"function_sql": RENAMED.format(where="")})
    with pytest.raises(VerificationRefused, match=r"as app_\w+, match_docs finds the row \d+ by new vectors"):
        cutover(leaky)
    assert connection.execute(FUNCTION).fetchall() == before
    rollback(leaky)
    where = "WHERE d.user_id = current_setting('app.reader', true)"
    cutover(migrated(connection, "whole", target={"function_sql": RENAMED.format(where=where)}))
    got = answers(connection, OF_A_USER.call.format(schema="app", q=literal(NEW, 7)), people[1:2])["app"]
    assert len(got) == 8
    assert {id % 3 for id, *_ in got} == {1}


def test_what_cannot_be_derived_is_refused_by_the_plan(connection: Connection, people: tuple[str, str, str]) -> None:
    """SQL that is built at run time is nobody's to read: the plan names the function, the reason and the way on."""
    searched(
        connection,
        people,
        USUAL.create[: USUAL.create.index("LANGUAGE")]
        + "LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT id, content, 0.0::float FROM app.docs ORDER BY embedding <=> $1 "
        "LIMIT 3' USING query_embedding; END $$",
    )
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24"}
    form = Text384To1536.model_validate({"targets": [target], "embedder": "hashing/24"})
    (problem,) = make_plan(connection, form.request(), "r").problems
    assert problem.startswith("no function for the new vectors can be derived from app.match_docs: it builds SQL")
    assert "function_sql" in problem
    for broken, words in (("BEGIN RETURN QUERY SELEC 1; END", "syntax error"), ("SELECT 1", "syntax error")):
        form = Text384To1536.model_validate({"targets": [target | {"function_sql": broken}], "embedder": "hashing/24"})
        (problem,) = make_plan(connection, form.request(), "r").problems
        assert problem.startswith("the `function_sql` of app.match_docs is not what PostgreSQL takes")
        assert words in problem


def test_a_function_that_was_changed_since_is_derived_once_more(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A filter that the application adds between the run and the cutover holds for the new vectors too."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    (alone,) = connection.execute(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'match_docs'"
    ).fetchone() or ("",)
    connection.execute(alone.replace("WHERE ", "WHERE d.published AND "))
    cutover(run)
    got = answers(connection, USUAL.call.format(schema="app", q=literal(NEW, 7)), people[:2])
    assert [{id % 2 for id, *_ in rows} for rows in got.values()] == [{0}, {0}]
    second = answers(connection, f"SELECT * FROM app.match_docs_v2('{literal(NEW, 7)}'::vector, -1, 8)", people[:2])
    assert second == got


def test_a_role_that_was_let_in_since_is_named_with_its_grant(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Who is granted the function after the cutover needs what it calls, too: verify's notes have the statement, which works."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    cutover(run)
    assert shadow_of(run, run.plan.targets[0]).notes() == []
    connection.execute(
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app TO {people[2]}; GRANT SELECT ON app.docs TO {people[2]}"
    )
    assert shadow_of(run, run.plan.targets[0]).notes() == []
    for name in ("match_docs_24%", "match_docs_16%"):
        connection.execute(
            f"DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE '{name}' LOOP "
            f"EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM {people[2]}', f); END LOOP; END $$"
        )
    notes = shadow_of(run, run.plan.targets[0]).notes()
    assert len(notes) == 2
    for note in notes:
        assert note.startswith(f"{people[2]} may execute match_docs, and not match_docs_")
        connection.execute(note[note.index("GRANT") :])
    call = USUAL.call.format(schema="app", q=literal(NEW, 7))
    assert len(answers(connection, call, people[2:])["outsider"]) == 8


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_equal_dimensions_switch_outright_and_say_so(
    connection: Connection, people: tuple[str, str, str], layout: str
) -> None:
    """Queries of old and new model look alike: plan and cutover say what every instance has to do, the name goes over to the new
    vectors, and the two versioned names answer for one model each, as those who could search before."""
    searched(connection, people, OF_A_USER.create)
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24"}
    same = {"embedder": "hashing/16"}
    form = Text384To1536.model_validate({"targets": [target], "layout": layout, **same})
    warnings = [
        w for w in make_plan(connection, form.request(), "r").warnings if "cannot tell their queries apart" in w
    ]
    assert len(warnings) == 1
    run = migrated(connection, layout=layout, **same)
    old = OF_A_USER.call.format(schema="app", q=literal(OLD, 7))
    before = answers(connection, old, people)
    lines = cutover(run)
    assert [line for line in lines if line == warnings[0]] == warnings
    kept = warnings[0].split("has to call ")[1].split(",")[0]
    for name in (kept, "match_docs_v2"):
        assert answers(connection, old.replace("match_docs", name), people) == before
    rollback(run)
    assert answers(connection, old, people) == before


def test_the_index_of_many_dimensions_is_used(connection: Connection, people: tuple[str, str, str]) -> None:
    """Above 2,000 dimensions the index is on a cast to half vectors, and so is what orders the rows: a body that orders by the bare
    column is not switched, the derived one looks into the index."""
    searched(connection, people, USUAL.create)
    connection.execute("CREATE INDEX ON app.docs USING hnsw (embedding vector_cosine_ops)")
    wide = {"embedder": "hashing/3072"}
    by_column = RENAMED.format(where="").replace("embedding_24", "wide")
    bare = migrated(connection, "bare", target={"new_column": "wide", "function_sql": by_column}, **wide)
    with pytest.raises(VerificationRefused, match=r"match_docs does not use the index of app\.docs\.wide"):
        cutover(bare)
    rollback(bare)
    cutover(migrated(connection, "cast", target={"new_column": "wide"}, **wide))


def test_a_role_that_cannot_be_taken_is_told_with_the_grant(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes of a cutover name it and the statement; who finds nothing before or after is told as well, and neither fails."""
    searched(connection, people, OF_A_USER.create)
    roles = probe.roles
    monkeypatch.setattr(
        probe, "roles", lambda *a: tuple(replace(r, taken=not r.name.startswith("keeper")) for r in roles(*a))
    )
    lines = cutover(migrated(connection, probe_settings={"app.reader": "nobody"}))
    assert any(line.endswith(f'as {people[0]}: GRANT "{people[0]}" TO CURRENT_USER') for line in lines)
    assert f"match_docs finds nothing as {people[1]}, before or after" in lines


def test_more_roles_than_there_is_time_for_are_tried_before(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the switch as many are tried as its time allows, the others in a rehearsal, and that is told; where one alone takes too
    long, nothing is switched."""
    searched(connection, people, USUAL.create)
    before = connection.execute(FUNCTION).fetchall()
    run = migrated(connection)
    monkeypatch.setattr(probe, "LIMIT", 1e-9)
    with pytest.raises(VerificationRefused, match="longer to be tried than a switch may last"):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before
    monkeypatch.undo()
    monkeypatch.setattr("tasks.shadows.postgres.unit.SHARE", 0.0)
    assert any("before the switch alone" in line for line in cutover(run))


@pytest.mark.parametrize("change", ["rollback", "contract"])
def test_a_change_of_answers_is_not_kept_by_later_verbs_either(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A rollback and a contract that would answer otherwise are rolled back, and say as whom."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    cutover(run)
    switched = connection.execute(FUNCTION).fetchall()
    ask, models = probe.ask, "SELECT array_agg(state ORDER BY model) FROM vecferry.model"
    before = connection.execute(models).fetchall()  # type: ignore[call-overload]

    def fewer_after(
        connection: Connection, call: str, role: str, settings: Mapping[str, str], *statements: str
    ) -> probe.Answer:
        answer = ask(connection, call, role, settings, *statements)
        after = connection.execute(models).fetchall() != before  # type: ignore[call-overload]
        return replace(answer, rows=answer.rows[:1]) if after else answer

    monkeypatch.setattr(probe, "ask", fewer_after)
    with pytest.raises(VerificationRefused, match=r"gives other rows|finds 1 row"):
        rollback(run) if change == "rollback" else contract(run, 0)
    assert connection.execute(FUNCTION).fetchall() == switched


def test_rights_that_a_change_opens_are_not_kept(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that a role may execute by now, and could not before, rolls the switch back."""
    searched(connection, people, USUAL.create)
    run, before = migrated(connection), connection.execute(FUNCTION).fetchall()
    monkeypatch.setattr(catalogue, "give", lambda *_: None)  # so that everybody may, as PostgreSQL has it
    with pytest.raises(
        VerificationRefused, match=rf"{people[2]} may execute match_docs_\w+, and could not execute match_docs"
    ):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before
    monkeypatch.undo()
    cutover(run)
