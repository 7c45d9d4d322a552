"""What a search function is tried with, so that what its switch proves was seen."""

import time
from typing import Any

import pytest

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError, VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.shadows.postgres import asking, probe
from tasks.shadows.postgres.answers import Answer, deviations, failures, unseen
from tasks.shadows.postgres.proof import Proof
from tasks.shadows.postgres.rehearsal import rehearsed
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.catalogue import find
from tasks.stores.postgres.connection import Connection
from tests.helpers.pipeline import build
from tests.helpers.search_definitions import DEFINITIONS, RESULT
from tests.helpers.searched import FUNCTION, NEW, answers, literal, migrated, searched, verified

BY_NAME = {definition.name: definition for definition in DEFINITIONS}
USUAL, OF_A_USER = BY_NAME["usual"], BY_NAME["own rows of a user, by the function's owner"]
NEAREST = (
    "SELECT d.id, d.content, 1 - (d.embedding_24 <=> query_embedding{cast}) FROM app.docs d "
    "ORDER BY d.embedding_24 <=> query_embedding{cast} LIMIT match_count"
)


def test_a_query_that_is_an_array_is_tried_too(connection: Connection, people: tuple[str, str, str]) -> None:
    """A function that takes its query as an array of numbers is called with one: a body that forgets the filter is not switched."""
    searched(
        connection,
        people,
        f"CREATE FUNCTION {{schema}}.match_docs(query_embedding float8[], match_count int) {RESULT} LANGUAGE sql STABLE SECURITY DEFINER "
        "SET search_path = public AS $$ SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding::vector({d})) FROM app.docs d "
        "WHERE d.user_id = 'user 1' ORDER BY d.embedding <=> query_embedding::vector({d}) LIMIT match_count $$",
    )
    before = connection.execute(FUNCTION).fetchall()
    run = migrated(connection, target={"function_sql": NEAREST.format(cast="::vector(24)")})
    with pytest.raises(VerificationRefused, match=r"match_docs"):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before


def test_a_function_that_fails_as_it_is_called_is_told_before_anything_is_paid(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """What reads a setting that is not there fails for everybody, and nothing can be proven of it: the run stops before any vector is
    made, with the server's words and what sets it."""
    create = OF_A_USER.create.replace("current_setting('app.reader', true)", "current_setting('app.reader')")
    searched(connection, people, create)
    with pytest.raises(UsageError, match=r"app\.match_docs fails .*app\.reader.*`probe_settings`"):
        migrated(connection, probe_settings={})
    assert connection.execute("SELECT count(*) FROM vecferry.vector").fetchone() == (0,)


def test_a_function_that_fails_for_everybody_is_not_switched(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Where every call fails, before and after, nothing was proven: the switch is refused with the server's words."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    connection.execute(
        USUAL.create.replace("WHERE ", "WHERE d.user_id = current_setting('app.other') AND ")
        .replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        .format(schema="app", d=16)  # type: ignore[arg-type]
    )
    before = connection.execute(FUNCTION).fetchall()
    with pytest.raises(VerificationRefused, match=r"match_docs fails .*app\.other.*`probe_settings`"):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before


def test_a_role_whose_calls_fail_is_told_with_the_servers_words(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Who may execute the function and not read the table is refused before and after, which is no difference, and is told."""
    searched(connection, people, USUAL.create)
    connection.execute(f"GRANT EXECUTE ON FUNCTION app.match_docs TO {people[2]}")
    lines = cutover(migrated(connection))
    assert f"match_docs fails as {people[2]}: permission denied for table docs" in lines
    assert not [line for line in lines if "finds nothing" in line]
    call = USUAL.call.format(schema="app", q=literal(NEW, 7))
    assert answers(connection, call, people[2:]) == {"outsider": "InsufficientPrivilege"}


def test_many_roles_are_told_in_a_line(connection: Connection, people: tuple[str, str, str]) -> None:
    """However many roles fail, find nothing or cannot be tried: a function says so in one line of each, which names some; the GRANT
    names all."""
    searched(connection, people, USUAL.create)
    function = find(connection, "app", "match_docs")
    assert function
    names = [f"r{n}" for n in range(12)]
    failing = {
        (name, 16): Answer(refused="InsufficientPrivilege", words="permission denied for table docs") for name in names
    }
    assert failures("f", failing) == ["f fails as r0, r1, r2 and 9 others: permission denied for table docs"]
    assert unseen("f", dict.fromkeys(failing, Answer())) == [
        "f finds nothing as r0, r1, r2 and 9 others, before or after"
    ]
    (line,) = probe.Probe(function, {}, tuple(probe.Role(name, False) for name in names), {}).notes
    assert line.startswith('match_docs was not tried as r0, r1, r2 and 9 others: GRANT "r0", "r1", ')
    assert line.endswith('"r11" TO CURRENT_USER')


def test_answers_of_many_rows_are_compared_at_once() -> None:
    """What a switch compares within its transaction takes no time, however many rows there are and in whatever order."""
    rows = tuple((n, f"text {n}", 1 - n / 200) for n in range(200))
    started = time.perf_counter()
    assert deviations("f", {("a", 1): Answer(rows)}, {("a", 1): Answer((*rows[:100], *reversed(rows[100:])))}) == []
    assert time.perf_counter() - started < 2


def test_a_function_without_a_limit_is_looked_at_as_far_as_fifty_rows(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that would give the whole table is asked for no more than is compared, so that it can be switched."""
    searched(connection, people, USUAL.create.replace("> match_threshold", "> -2").replace("LIMIT match_count", ""))
    connection.execute(
        "INSERT INTO app.docs SELECT 100 + id, content || '!', user_id, published, metadata, embedding FROM app.docs"
    )
    ask, rows = probe.ask, list[int]()

    def counting(*given: Any) -> Answer:
        answer = ask(*given)
        rows.append(len(answer.rows))
        return answer

    monkeypatch.setattr(probe, "ask", counting)
    cutover(migrated(connection))
    assert max(rows) == 50


@pytest.mark.usefixtures("impatient")
def test_all_that_a_proof_does_within_a_switch_is_timed(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing counts as calling does: where it takes too long, the switch is rolled back."""
    searched(connection, people, USUAL.create)
    run, before = migrated(connection), connection.execute(FUNCTION).fetchall()

    def slowly(*_: object) -> list[str]:
        time.sleep(probe.LIMIT + 0.01)
        return []

    monkeypatch.setattr("tasks.shadows.postgres.answers.deviations", slowly)
    with pytest.raises(VerificationRefused, match="longer to be tried than a switch may last"):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before


@pytest.mark.usefixtures("impatient")
def test_a_switch_that_takes_too_long_is_tried_again_without_its_rehearsal(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the rehearsal has shown is not shown anew where only time was short."""
    searched(connection, people, USUAL.create)
    run, rehearsals = migrated(connection), list[str]()

    def counting(*given: Any) -> Any:
        rehearsals.append("one")
        return rehearsed(*given)

    monkeypatch.setattr("tasks.shadows.postgres.proof.rehearsed", counting)
    monkeypatch.setattr(probe, "LIMIT", 1e-9)
    with pytest.raises(VerificationRefused, match="longer to be tried than a switch may last"):
        cutover(run)
    assert rehearsals == ["one"]


def test_a_call_that_does_not_end_is_ended(connection: Connection, people: tuple[str, str, str]) -> None:
    """A call within a switch is cut off when its time is over, and not when it comes back."""
    searched(connection, people, USUAL.create)
    function = find(connection, "app", "match_docs")
    assert function
    roles = (probe.Role(connection.info.user, True),)
    tried = probe.Probe(function, {(connection.info.user, 16): "SELECT pg_sleep(20)"}, roles, {})
    started = time.perf_counter()
    with pytest.raises(probe.TooSlow), connection.transaction():
        Proof(tried, (16,), roles=(connection.info.user,)).before(connection, probe.Clock())
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("page", ["DEFAULT 0", ""])
def test_a_function_that_turns_pages_is_switched(
    connection: Connection, people: tuple[str, str, str], page: str
) -> None:
    """A count that rows are left out by is left at its default, or is none, and every row is looked for where it is shown."""
    create = USUAL.create.replace("match_count int)", f"match_count int, page_offset int {page})")
    searched(connection, people, create.replace("LIMIT match_count", "LIMIT match_count OFFSET page_offset"))
    assert not [line for line in cutover(migrated(connection)) if "finds nothing" in line or "looked at" in line]


def test_a_threshold_that_all_rows_come_up_to_is_not_taken_where_that_takes_long(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """A function that has a threshold and no limit is tried with one that few rows come up to."""
    searched(
        connection,
        people,
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_threshold float) RETURNS SETOF {schema}.docs "
        "LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(1) WHERE match_threshold < 0.1; RETURN QUERY SELECT * FROM app.docs "
        "WHERE docs.embedding <#> query_embedding < -match_threshold ORDER BY docs.embedding <#> query_embedding; END $$",
    )
    assert not [line for line in cutover(migrated(connection)) if "finds nothing" in line]


def test_new_vectors_are_searched_with_a_threshold_of_their_own(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Where more rows come up to a threshold by new vectors than by old ones, and a call takes long for it, the new ones are asked for
    with another threshold."""
    searched(
        connection,
        people,
        "CREATE FUNCTION {schema}.match_docs(query_embedding vector({d}), match_threshold float) RETURNS SETOF {schema}.docs "
        "LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(0.3) WHERE match_threshold < 0.5 AND vector_dims(query_embedding) = 24; "
        "RETURN QUERY SELECT * FROM app.docs WHERE 1 - (docs.embedding <=> query_embedding) > match_threshold "
        "ORDER BY docs.embedding <=> query_embedding; END $$",
    )
    assert not [line for line in cutover(migrated(connection)) if "finds nothing" in line]


def test_a_call_that_is_slow_once_is_not_given_up_for_one_that_shows_less(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of a session, or one on a busy server, takes longer than the function does: several rows are asked for all the
    same, so that a body that forgets the filter is not switched."""
    create = OF_A_USER.create.replace("match_threshold float, ", "").replace("> match_threshold", "> -2")
    searched(connection, people, create)
    run, ask, calls = migrated(connection, target={"function_sql": NEAREST.format(cast="")}), probe.ask, list[str]()

    def cold(connection: Connection, call: str, *given: Any) -> Answer:
        if not calls:
            time.sleep(2 * asking.QUICK)
        calls.append(call)
        return ask(connection, call, *given)

    monkeypatch.setattr(probe, "ask", cold)
    with pytest.raises(VerificationRefused, match=r"match_docs shows \w+ what its own old vector does not find"):
        cutover(run)


def test_what_is_asked_with_is_a_row_that_the_function_shows(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Where rows are hidden and a threshold has a default, each role asks with a row of its own, so that something is found by old
    and by new vectors."""
    create = USUAL.create.replace(
        "match_threshold float, match_count int", "match_threshold float DEFAULT 0.7, match_count int DEFAULT 5"
    )
    searched(connection, people, create.replace("WHERE ", "WHERE d.user_id = 'user 2' AND "))
    assert not [line for line in cutover(migrated(connection)) if "finds nothing" in line]


@pytest.mark.parametrize("embedder", ["hashing/16", "hashing/24"])
def test_a_body_that_shows_more_is_not_switched_whatever_its_threshold(
    connection: Connection, people: tuple[str, str, str], embedder: str
) -> None:
    """A body that forgets a filter shows rows that the function did not, also where only very near rows are shown, and where old
    and new queries cannot be told apart."""
    create = USUAL.create.replace(
        "match_threshold float, match_count int", "match_threshold float DEFAULT 0.99, match_count int DEFAULT 5"
    )
    searched(connection, people, create.replace("WHERE ", "WHERE d.user_id = 'user 2' AND "))
    before = connection.execute(FUNCTION).fetchall()
    run = migrated(connection, target={"function_sql": NEAREST.format(cast="")}, embedder=embedder)
    with pytest.raises(
        VerificationRefused,
        match=r"for a new query match_docs shows \w+ what its own old vector does not find: row \d+, ",
    ):
        cutover(run)
    assert connection.execute(FUNCTION).fetchall() == before


def _slow(name: str, seconds: float) -> str:
    return (
        f"CREATE FUNCTION {{schema}}.match_{name}(query_embedding vector({{d}}), match_count int) {RESULT} LANGUAGE plpgsql STABLE AS $$ "
        f"BEGIN PERFORM pg_sleep({seconds}); RETURN QUERY SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) "
        f"FROM app.{name} d ORDER BY d.embedding <=> query_embedding LIMIT match_count; END $$"
    )


@pytest.mark.whole
def test_a_function_that_takes_most_of_the_time_can_go_back_and_be_contracted(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """What can be switched can be taken back, switched once more and contracted."""
    searched(connection, people, _slow("docs", 0.11))
    run = migrated(connection)
    cutover(run)
    rollback(run)
    cutover(verified(connection, run))
    contract(run, 0)


def test_a_function_that_takes_longer_than_a_switch_is_told_before_anything_is_paid(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Its switch could never be proven: the run stops before any vector is made."""
    searched(connection, people, _slow("docs", 0.25))
    with pytest.raises(UsageError, match=r"app\.match_docs takes 2\d\d ms .* a switch of it may take 200 ms in all"):
        migrated(connection)
    assert connection.execute("SELECT count(*) FROM vecferry.vector").fetchone() == (0,)


def test_several_tables_share_the_time_of_a_switch(connection: Connection, people: tuple[str, str, str]) -> None:
    """Two functions, of each of which all could be tried alone, are tried together as far as their time goes."""
    searched(connection, people, _slow("docs", 0.045))
    connection.execute("CREATE TABLE app.notes AS TABLE app.docs; ALTER TABLE app.notes ADD PRIMARY KEY (id)")
    connection.execute(_slow("notes", 0.045).format(schema="app", d=16))  # type: ignore[arg-type]
    targets = [{"table": f"app.{name}", "text": "content", "new_column": "embedding_24"} for name in ("docs", "notes")]
    run = verified(connection, build("two", Text384To1536, targets=targets, embedder="hashing/24", layout="column"))
    cutover(run)


@pytest.mark.usefixtures("impatient")
def test_a_change_that_cannot_be_tried_in_time_is_named(
    connection: Connection, people: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback is not called a switch."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    cutover(run)
    monkeypatch.setattr(probe, "LIMIT", 1e-9)
    with pytest.raises(
        VerificationRefused, match=r"longer to be tried than a rollback may last .* nothing was changed"
    ):
        rollback(run)


def test_a_run_that_was_taken_back_is_not_called_one_that_was_never_switched(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """The contract of a run that was switched and rolled back says so."""
    searched(connection, people, USUAL.create)
    run = migrated(connection)
    cutover(run)
    rollback(run)
    assert contract(run, 0)[0].startswith("app.docs.embedding_24 was switched back; it was dropped with its triggers")


def test_a_role_that_may_read_the_table_since_is_let_read_what_lies_beside_it(
    connection: Connection, people: tuple[str, str, str]
) -> None:
    """Who is granted the table after the cutover gets the new vectors with the next catching up; until then verify's notes name him,
    with the statement that lets him."""
    searched(connection, people, USUAL.create)
    run = migrated(connection, layout="side_table")
    cutover(run)
    shadow, call = shadow_of(run, run.plan.targets[0]), USUAL.call.format(schema="app", q=literal(NEW, 7))
    assert shadow.notes() == []
    grant = f"GRANT SELECT ON app.docs TO {people[2]}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app TO {people[2]}"
    connection.execute(grant)  # type: ignore[call-overload]
    assert answers(connection, call, people[2:]) == {"outsider": "InsufficientPrivilege"}
    (note,) = shadow.notes()
    assert note.startswith(
        f"{people[2]} may read app.docs, and not the new vectors that lie beside it: GRANT USAGE ON SCHEMA vecferry"
    )
    with connection.transaction(force_rollback=True):
        connection.execute(note[note.index("GRANT") :])
        assert len(answers(connection, call, people[2:])["outsider"]) == 8
    shadow.follow(1.0)
    assert shadow.notes() == []
    assert len(answers(connection, call, people[2:])["outsider"]) == 8
