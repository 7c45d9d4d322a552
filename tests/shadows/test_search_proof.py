"""What a switch of a search function proves before it is kept, and what is told of it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError, VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.planning.registry import make_plan
from tasks.shadows.postgres import probe
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres import catalogue
from tasks.stores.postgres.connection import Connection
from tests.helpers.search_definitions import DEFINITIONS
from tests.helpers.searched import FUNCTION, NEW, OLD, answers, literal, migrated, searched, verified

BY_NAME = {definition.name: definition for definition in DEFINITIONS}
USUAL, OF_A_USER = BY_NAME["usual"], BY_NAME["own rows of a user, by the function's owner"]
RENAMED = "SELECT d.id, d.content, 1 - (d.embedding_24 <=> query_embedding) FROM app.docs d {where} ORDER BY d.embedding_24 <=> query_embedding LIMIT match_count"  # noqa: E501


def test_a_function_that_shows_a_role_more_is_not_switched(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A body of the user's that forgets the filter finds a row that its caller never got from the old function: the switch is
    rolled back and names role and row. The same body with the filter is switched."""
    searched(connection, people, OF_A_USER.create)
    before = connection.execute(FUNCTION).fetchall()
    leaky = migrated(connection, "leaky", target={"function_sql": RENAMED.format(where="")})
    with pytest.raises(
        VerificationRefused, match=r"match_docs shows app_\w+ what its own old vector does not find: row \d+"
    ):
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
    assert f"match_docs finds nothing as {people[1]} and {connection.info.user}, before or after" in lines


@pytest.mark.usefixtures("impatient")
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
    assert any("was tried only in the rehearsal as " in line for line in cutover(run))


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


UNLIKE = {
    "another table's vectors too": (
        USUAL.create[: USUAL.create.index("AS $$")]
        + "AS $$ SELECT id, content, 1 - (docs.embedding <=> query_embedding) FROM app.docs UNION ALL SELECT 0, name, "
        "1 - (u.embedding::vector <=> query_embedding) FROM app.users u ORDER BY 3 DESC LIMIT match_count $$",
        "takes a distance, <=>, from something other",
    ),
    "by a field of the row": (
        USUAL.create.replace("SELECT d.id, d.content, 1 - (d.embedding", "SELECT d.id, d.content, 1 - ((d).embedding"),
        "takes a distance, <=>, from something other",
    ),
    "coarse": (
        USUAL.create.replace(
            "ORDER BY d.embedding <=> query_embedding",
            "ORDER BY binary_quantize(d.embedding)::bit({d}) <~> binary_quantize(query_embedding)",
        ),
        "searches by binary_quantize",
    ),
    "a variable of that name": (
        "CREATE FUNCTION {schema}.match_docs(embedding vector, match_threshold float, match_count int) "
        "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE plpgsql STABLE AS $$ #variable_conflict use_variable\n"
        "BEGIN RETURN QUERY SELECT d.id, d.content, 1 - (d.embedding <=> embedding) FROM app.docs d "
        "ORDER BY d.embedding <=> embedding LIMIT match_count; END $$",
        "may be a variable",
    ),
    "a jsonb query": (
        "CREATE FUNCTION {schema}.match_docs(q jsonb, match_count int) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$ SELECT id "
        "FROM app.docs ORDER BY embedding <=> q::text::vector LIMIT match_count $$",
        "its query is of the type jsonb",
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_would_be_derived_wrong_is_refused_by_the_plan(
    connection: Connection, people: tuple[str, str, str], name: str
) -> None:
    """Another column in the place of the old one would change what the function means: the plan names it and the reason."""
    create, reason = UNLIKE[name]
    searched(connection, people, create)
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24"}
    form = Text384To1536.model_validate({"targets": [target], "embedder": "hashing/24"})
    (problem,) = make_plan(connection, form.request(), "r").problems
    assert problem.startswith("no function for the new vectors can be derived from app.match_docs")
    assert reason in problem


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("coalesce(1 - (d.embedding <=> query_embedding), 5) FROM app.docs d", "rows without a vector"),
        ("1 - min(d.embedding <=> query_embedding) FROM app.docs d GROUP BY d.id", "groups rows"),
        (
            "1 - (d.embedding <=> query_embedding) FROM "
            "(SELECT * FROM app.docs JOIN (SELECT user_id, name FROM app.users) u USING (user_id)) d",
            "columns that a join has merged",
        ),
    ],
)
def test_what_a_table_beside_cannot_do_is_refused_for_it(
    connection: Connection, people: tuple[str, str, str], middle: str, reason: str
) -> None:
    """In the layout side_table; in the table's own column it is derived."""
    head = USUAL.create[: USUAL.create.index("AS $$")]
    searched(connection, people, f"{head} AS $$ SELECT d.id, d.content, {middle} ORDER BY 3 DESC LIMIT match_count $$")
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24"}
    for layout in ("column", "side_table"):
        form = Text384To1536.model_validate({"targets": [target], "embedder": "hashing/24", "layout": layout})
        problems = make_plan(connection, form.request(), "r").problems
        assert bool(problems) == (layout == "side_table"), problems
    assert reason in problems[0]


def test_what_fails_with_new_vectors_is_told_before_any_is_made(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A function that raises for other dimensions is called once where the new vectors are about to lie."""
    head = USUAL.create[: USUAL.create.index("LANGUAGE")]
    searched(
        connection,
        people,
        f"{head} LANGUAGE plpgsql STABLE AS $$ BEGIN IF vector_dims(query_embedding) <> 16 THEN RAISE 'sixteen, please'; END IF; "
        "RETURN QUERY SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM app.docs d "
        "ORDER BY d.embedding <=> query_embedding LIMIT match_count; END $$",
    )
    with pytest.raises(UsageError, match=r"app\.match_docs for the new vectors fails: sixteen, please.*function_sql"):
        migrated(connection)
    assert connection.execute("SELECT count(*) FROM vecferry.vector").fetchone() == (0,)


def test_ties_zero_vectors_and_other_answers_each_time_are_no_differences(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Many rows of one text, a row whose vector is zero, and a column that is another one each time do not keep a table from being
    switched and taken back; the column is told."""
    create = USUAL.create.replace("similarity float)", "similarity float, search uuid)").replace(
        "AS similarity ", "AS similarity, gen_random_uuid() "
    )
    searched(connection, people, create.replace("STABLE", ""))
    connection.execute(
        f"UPDATE app.docs SET embedding = '{[0] * 16}' WHERE id = 0; "
        "UPDATE app.docs SET content = c, embedding = e FROM (SELECT content AS c, embedding AS e FROM app.docs WHERE id = 1) AS one "
        "WHERE id BETWEEN 1 AND 30; CREATE INDEX ON app.docs USING hnsw (embedding vector_cosine_ops)"
    )
    run = migrated(connection)
    assert "match_docs returns a different search on each call, which was not compared" in cutover(run)
    rollback(run)
    cutover(verified(connection, run))


@pytest.mark.usefixtures("impatient")
def test_a_rollback_is_not_kept_back_by_its_proof_when_it_is_told_to(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overloaded server proves nothing in time: the refusal names --force, which goes back and says what was not proven."""
    searched(connection, people, USUAL.create)
    run, before = migrated(connection), connection.execute(FUNCTION).fetchall()
    cutover(run)
    monkeypatch.setattr(probe, "LIMIT", 1e-9)
    with pytest.raises(VerificationRefused, match=r"To go back all the same: vecferry rollback switched --force"):
        rollback(run)
    assert rollback(run, force=True)[-1].startswith("not proven: ")
    assert connection.execute(FUNCTION).fetchall() == before


def test_a_right_that_was_taken_since_is_named_with_its_revoke(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Who may no longer execute a SECURITY DEFINER function may still execute match_docs_v2: verify's notes have the statement."""
    searched(connection, people, OF_A_USER.create)
    run = migrated(connection)
    cutover(run)
    connection.execute(f"REVOKE EXECUTE ON FUNCTION app.match_docs FROM {people[1]}")
    (note,) = shadow_of(run, run.plan.targets[0]).notes()
    assert note.startswith(f"{people[1]} may execute match_docs_v2, and match_docs no longer: REVOKE")
    connection.execute(note[note.index("REVOKE") :])
    call = f"SELECT * FROM app.match_docs_v2('{literal(NEW, 7)}'::vector, -1, 8)"
    assert answers(connection, call, people[1:2]) == {"app": "InsufficientPrivilege"}


@pytest.mark.parametrize("argument", ["text", "vector({d})"])
def test_a_given_body_is_chosen_by_the_query_too(
    connection: Connection, people: tuple[str, str, str], argument: str
) -> None:
    """With function_sql as without it, old instances are answered as before, also where the query is a text."""
    create = USUAL.create.replace("query_embedding vector({d})", f"query_embedding {argument}", 1)
    searched(
        connection,
        people,
        create.replace("query_embedding)", "query_embedding::vector)")
        .replace("query_embedding LIMIT", "query_embedding::vector LIMIT")
        .replace("> match", "> match"),
    )
    old = USUAL.call.format(schema="app", q=literal(OLD, 7)).replace(
        "::vector", "" if argument == "text" else "::vector"
    )
    before = answers(connection, old, people)
    body = RENAMED.format(where="").replace("query_embedding", "query_embedding::vector")
    cutover(migrated(connection, target={"function_sql": body}))
    assert answers(connection, old, people) == before
    assert len(answers(connection, old.replace(literal(OLD, 7), literal(NEW, 7)), people)["app"]) == 8
