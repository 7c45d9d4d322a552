"""A column that takes the name of the old one: names, functions and vectors through a switch, its rollback and a contract."""

import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from flows.forms.form import parse
from tasks.base.errors import TransientError, VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs.checkpoints import Mark
from tasks.runs.owners import owner_of, take_up
from tasks.runs.run import open_run
from tasks.shadows.postgres import rehearsal, superseded, unit
from tasks.shadows.postgres.live import place, queue as live_queue
from tasks.shadows.postgres.live.column import LiveColumn
from tasks.shadows.registry import shadow_of, units_of
from tasks.stores.postgres import locking
from tasks.stores.postgres.connection import Connection
from tasks.verify import verify
from tests.helpers.lifecycle import drive, drive_two
from tests.helpers.live_table import rounded
from tests.helpers.pipeline import gates
from tests.helpers.renamed_table import (
    NEW,
    OLD,
    SEARCH,
    WRITE,
    Mirrored,
    RenamedForm,
    Reports,
    migration_of,
    parameters,
    ready,
    renaming,
    text_of,
    verified,
)
from tests.helpers.searched import answers

__all__ = ["renaming"]
pytestmark = pytest.mark.usefixtures("renaming")
LATER = HashingEmbedder(32)


@pytest.mark.whole
@pytest.mark.usefixtures("prefect")
def test_its_whole_life(connection: Connection) -> None:
    """Plan, run, rollback, run, cutover, catch-up, rollback, cutover, contract, from the guide's IVFFlat index, while the application
    goes on writing vectors of the old model by its function."""
    reports = Reports(connection)
    drive(migration_of(reports))
    assert reports.columns() == {"embedding": "vector(24)"}


def test_names_and_functions_go_over_and_come_back(connection: Connection) -> None:
    """After the cutover both names mean the new vectors and old queries are answered as before, to the letter; after the rollback
    all is as it was, with the vectors made meanwhile, and once more after another cutover and the contract."""
    reports = Reports(connection)
    before = [reports.function(name) for name in ("match_reports", "update_report_embedding")]
    old = reports.nearest(text_of(7), OLD)
    run = verified(connection)
    assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
    for _ in range(2):
        cutover(ready(connection, run))
        assert reports.columns() == {"embedding_hashing_16": "vector(16)", "embedding": "vector(24)"}
        assert reports.nearest(text_of(7), OLD) == old
        assert reports.nearest(text_of(7), NEW)[0] == (7, text_of(7), 1)
        reports.say(7, text_of(7))
        assert reports.stored("embedding_hashing_16")["7"] == reports.expected(OLD)["7"]
        rollback(run)
        assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
        assert [reports.function(name) for name in ("match_reports", "update_report_embedding")] == before
        assert reports.nearest(text_of(7), OLD) == old
    cutover(ready(connection, run))
    contract(run, 0)
    assert reports.columns() == {"embedding": "vector(24)"}
    assert reports.nearest(text_of(7), NEW)[0] == (7, text_of(7), 1)
    reports.write(7, reports.vector("else", NEW))
    with pytest.raises(errors.DataException, match=r"update_report_embedding serves .* 24 dimensions, not 16"):
        reports.write(7, reports.vector("else", OLD))


@pytest.mark.usefixtures("prefect")
@pytest.mark.whole
def test_migrations_of_a_name_follow_each_other(connection: Connection) -> None:
    """16 → 24 → 32 under one name: the first serves while the second is made and taken back, and is itself followed, and contracted,
    under the second."""
    reports = Reports(connection)
    drive_two(migration_of(reports), migration_of(reports, LATER, NEW))
    assert reports.columns() == {"embedding": "vector(32)"}


def test_a_second_migration_keeps_the_first_ones_vectors(connection: Connection) -> None:
    """Queries of all three models are answered after the second cutover, by columns of three names, and each rollback gives each its
    name back."""
    reports = Reports(connection)
    cutover(verified(connection, "first"))
    second = verified(connection, "second", new=LATER, old=NEW)
    before = {model.dimensions: reports.nearest(text_of(7), model) for model in (OLD, NEW)}
    cutover(second)
    assert reports.columns() == {
        "embedding_hashing_16": "vector(16)",
        "embedding_hashing_24": "vector(24)",
        "embedding": "vector(32)",
    }
    assert {model.dimensions: reports.nearest(text_of(7), model) for model in (OLD, NEW)} == before
    assert reports.nearest(text_of(7), LATER)[0] == (7, text_of(7), 1)
    connection.execute("UPDATE reports SET content = 'other words' WHERE id = 7")
    for name in ("first", "second"):
        shadow = shadow_of(open_run(name, "DATABASE_URL"), open_run(name, "DATABASE_URL").plan.targets[0])
        assert shadow.compare().touched == 0
        shadow.follow(1.0)
        assert shadow.compare().touched == 0
    assert reports.stored("embedding_hashing_24") == reports.expected(NEW)
    assert reports.stored("embedding") == reports.expected(LATER)
    rollback(second)
    assert reports.columns() == {
        "embedding_hashing_16": "vector(16)",
        "embedding": "vector(24)",
        "embedding_32": "vector(32)",
    }
    rollback(open_run("first", "DATABASE_URL"))
    assert reports.columns() == {
        "embedding": "vector(16)",
        "embedding_24": "vector(24)",
        "embedding_32": "vector(32)",
    }
    with pytest.raises(
        VerificationRefused, match=r"reports\.embedding holds other vectors than this run was planned from"
    ):
        cutover(ready(connection, second))


def test_a_run_whose_column_is_renamed_meanwhile_writes_nothing(connection: Connection) -> None:
    """What caught up with the names of a moment ago is not written under them, and is once it is tried again."""
    reports = Reports(connection)
    first = verified(connection, "first")
    cutover(first)
    second = verified(connection, "second", new=Mirrored(24), old=NEW, embedder="mirrored/24")
    shadow = shadow_of(first, first.plan.targets[0])
    assert isinstance(shadow, LiveColumn)
    before = shadow.named()
    connection.execute("UPDATE reports SET content = 'other words' WHERE id = 7")
    cutover(second)
    with pytest.raises(TransientError, match="renamed meanwhile"):
        live_queue.follow(before)
    shadow.follow(1.0)
    assert reports.stored("embedding_hashing_24") == reports.expected(NEW)
    assert reports.stored("embedding")["7"] == rounded(Mirrored(24).embed(["other words"]).whole[0])


def test_vectors_of_others_are_seen_and_put_right(connection: Connection) -> None:
    """A late writer with an old model of the same dimensions, an instance that moved on, and one that takes a vector out: verify tells
    of what is not the model's own, catch-up puts that right, and writes nothing where it is; nor is anything of ours noted."""
    reports = Reports(connection)
    new = Mirrored(16)
    run = verified(connection, new=new, embedder="mirrored/16", target={"new_column": "embedding_new"})
    cutover(run)
    shadow = shadow_of(run, run.plan.targets[0])
    assert reports.stored() == reports.expected(new)
    queued = "SELECT count(*) FROM {}"
    queue = place.queue(run.plan.targets[0].place)
    assert connection.execute(sql.SQL(queued).format(queue)).fetchone() == (0,)
    reports.write(7, reports.vector(text_of(7), OLD))
    reports.write(8, reports.vector(text_of(8), new))
    connection.execute("UPDATE reports SET embedding = NULL WHERE id = 9")
    connection.execute("UPDATE reports SET seen = 5 WHERE id = 10")
    assert shadow.compare().stale.ids == ("7", "9")
    with pytest.raises(VerificationRefused, match="content"):
        verify(run, gates(), None).refuse()
    assert shadow.follow(1.0).stale.ids == ("7", "9")
    assert reports.stored() == reports.expected(new)
    assert connection.execute(sql.SQL(queued).format(queue)).fetchone() == (0,)
    assert shadow.compare().touched == 0


def test_old_vectors_go_to_the_old_column_and_queue_their_row(connection: Connection) -> None:
    """What an instance on the old model writes by the function is kept for the way back, and its row looked at; a direct write of an
    old vector by the name fails."""
    reports = Reports(connection)
    run = verified(connection)
    cutover(run)
    reports.write(7, reports.vector("as it was", OLD))
    assert reports.stored("embedding_hashing_16")["7"] == rounded(OLD.embed(["as it was"]).whole[0])
    assert reports.stored()["7"] == reports.expected()["7"]
    waiting = sql.SQL("SELECT id FROM {}").format(place.queue(run.plan.targets[0].place))
    assert connection.execute(waiting).fetchall() == [("7",)]
    with pytest.raises(errors.DataException, match="expected 24 dimensions, not 16"):
        connection.execute("UPDATE reports SET embedding = %s WHERE id = 7", (reports.vector("x", OLD),))


@pytest.mark.parametrize("holder", ["SELECT count(*) FROM reports", "UPDATE reports SET seen = 1 WHERE id = 1"])
def test_a_table_that_is_held_is_not_switched(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    """A long reader, or writer: the switch is tried for a while, then says who holds the table, and has changed nothing; once he is
    gone it goes through."""
    reports = Reports(connection)
    run = verified(connection)
    monkeypatch.setattr(locking, "LOCK_TRIES", 4)
    for waits in (unit, superseded):
        monkeypatch.setattr(waits, "WAIT", 0.1)
    with psycopg.connect(database, application_name="a long report") as other:
        other.execute(holder.encode())
        with pytest.raises(
            TransientError, match=rf"process {other.info.backend_pid} of .* \(a long report\).*uses .*reports"
        ):
            cutover(run)
        assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
        threading.Timer(0.3, other.rollback).start()
        monkeypatch.setattr(locking, "LOCK_TRIES", 200)
        cutover(run)
    assert reports.columns()["embedding"] == "vector(24)"


def test_a_rehearsal_locks_nobody_out(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long of a switch's proof, exact search of every role, goes on while everybody reads and writes."""
    Reports(connection)
    run, locks, asked = verified(connection), list[int](), rehearsal._asked

    def looking(switching: Connection, *arguments: Any) -> Any:
        row = switching.execute(
            "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'reports'::regclass "
            "AND mode NOT IN ('AccessShareLock', 'RowExclusiveLock')"
        ).fetchone()
        locks.append(row[0] if row else -1)
        return asked(switching, *arguments)

    monkeypatch.setattr(rehearsal, "_asked", looking)
    cutover(run)
    assert len(locks) > 2
    assert set(locks) == {0}


def test_a_switch_that_is_cut_off_changes_nothing(connection: Connection) -> None:
    """Names, functions, registry and ledger are of one transaction."""
    reports = Reports(connection)
    run = verified(connection)
    before = [reports.function(name) for name in ("match_reports", "update_report_embedding")]

    def killed(_: Connection) -> None:
        raise KeyboardInterrupt

    (unit,) = units_of(run)
    with pytest.raises(KeyboardInterrupt):
        unit.switch(Mark(run.connection, killed))
    assert reports.columns() == {"embedding": "vector(16)", "embedding_24": "vector(24)"}
    assert [reports.function(name) for name in ("match_reports", "update_report_embedding")] == before
    assert connection.execute("SELECT column_name FROM vecferry.active_space").fetchone() == ("embedding",)


def test_the_run_is_found_by_the_column_that_it_began_with(connection: Connection) -> None:
    """A schedule that asks for the working name goes on with the run whose column has taken the old one's."""
    Reports(connection)
    cutover(verified(connection, "first"))
    assert owner_of(connection, [("public", "reports", "embedding_24")]) == "first"


def test_another_model_that_takes_the_name_again_is_another_run(connection: Connection) -> None:
    """A second migration that is started without run_id, and calls its new column as the first did, is not taken for the first; each
    model's own start goes on with its own run."""
    Reports(connection)
    cutover(verified(connection, "first"))

    def taken_up(**more: Any) -> str:
        form = parse(RenamedForm, parameters(**more, target={"new_column": "embedding_24"}))
        return take_up(form.request(), form.places(), "a flow run", "of its own").run_id

    assert taken_up() == "first"
    assert taken_up(embedder="hashing/24?price=2") == "first"
    assert taken_up(new=LATER, old=NEW) == "of its own"
    second = verified(connection, "second", new=LATER, old=NEW, target={"new_column": "embedding_24"})
    for _ in range(2):  # the column is there by that name, and then it is not
        assert taken_up(new=LATER, old=NEW) == "second"
        assert taken_up() == "first"
        cutover(second)


SEARCHES = {
    "text": SEARCH,
    "parsed": SEARCH.replace("AS $$", "BEGIN ATOMIC").replace("$$", "; END"),
    "rows": (
        "CREATE FUNCTION match_reports(query_embedding vector(16), match_threshold float, match_count int) RETURNS SETOF reports "
        "LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT * FROM reports r ORDER BY r.embedding <=> query_embedding "
        "LIMIT match_count; END $$"
    ),
    "subquery": SEARCH.replace(
        "FROM public.reports r", "FROM (SELECT id, content, embedding FROM public.reports) AS r"
    ),
}
WRITES = {
    "text": WRITE,
    "parsed": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS bigint LANGUAGE sql "
        "BEGIN ATOMIC UPDATE reports SET embedding = new_embedding WHERE id = report_id RETURNING id; END"
    ),
    "upsert of text": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding text) RETURNS SETOF reports LANGUAGE sql AS $$ "
        "INSERT INTO reports AS r (id, embedding) VALUES (report_id, new_embedding::vector(16)) ON CONFLICT (id) DO UPDATE "
        "SET embedding = excluded.embedding RETURNING * $$"
    ),
}


@pytest.mark.parametrize(
    ("search", "write"), [("text", "parsed"), ("parsed", "text"), ("rows", "upsert of text"), ("subquery", "text")]
)
def test_functions_of_any_kind_keep_owner_rights_and_answers(
    connection: Connection, people: tuple[str, str, str], search: str, write: str
) -> None:
    """With row level security and functions of their owner's: who may search and write does so by vectors of both models, who may not
    is refused, and the rollback restores each to the letter; a body that is parsed follows its column, one that is text its name."""
    keeper, app, _ = people
    reports = Reports(connection, search=SEARCHES[search], write=WRITES[write])
    written = "text" if "text" in WRITES[write].partition("RETURNS")[0] else "vector"
    connection.execute(
        f"ALTER TABLE reports OWNER TO {keeper}; ALTER TABLE reports ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY small ON reports USING (id < 30); GRANT SELECT, INSERT, UPDATE ON reports TO {app}; "
        f"ALTER FUNCTION match_reports OWNER TO {keeper}; ALTER FUNCTION update_report_embedding OWNER TO {keeper}; "
        f"REVOKE ALL ON FUNCTION match_reports, update_report_embedding FROM PUBLIC; "
        f"GRANT EXECUTE ON FUNCTION match_reports, update_report_embedding TO {app}; GRANT USAGE ON SCHEMA public TO PUBLIC"
    )
    connection.execute("SET enable_indexscan = off")  # IVFFlat finds some, by this session's plans
    names = ("match_reports", "update_report_embedding")
    before = [reports.function(name) for name in names]

    def searched(model: HashingEmbedder) -> Any:
        call = f"SELECT id FROM match_reports('{reports.vector(text_of(7), model)}'::vector, -2, 40)"
        got = answers(connection, call, people)
        return {role: rows if isinstance(rows, str) else (rows[0], sorted(rows)) for role, rows in got.items()}

    def wrote(text: str, model: HashingEmbedder) -> Any:
        call = f"SELECT count(*) FROM update_report_embedding(7, '{reports.vector(text, model)}'::{written})"
        return answers(connection, call, people[1:])

    old = searched(OLD)
    assert old["app"][0] == (7,)
    assert (len(old["keeper"][1]), len(old["app"][1])) == (40, 30)
    assert old["outsider"] == "InsufficientPrivilege"
    run = verified(connection)
    cutover(run)
    rights = [(function or ())[1:] for function in before]
    assert [(reports.function(name) or ())[1:] for name in names] == rights
    assert searched(OLD) == old
    new = searched(NEW)
    assert new == old
    assert wrote("new words", NEW) == {"app": [(1,)], "outsider": "InsufficientPrivilege"}
    assert reports.stored()["7"] == rounded(NEW.embed(["new words"]).whole[0])
    assert wrote("old words", OLD) == {"app": [(1,)], "outsider": "InsufficientPrivilege"}
    assert reports.stored("embedding_hashing_16")["7"] == rounded(OLD.embed(["old words"]).whole[0])
    rollback(run)
    assert [reports.function(name) for name in names] == before
    assert wrote(text_of(7), OLD)["app"] == [(1,)]
    assert searched(OLD) == old


def test_whoever_calls_the_functions_does_not_see_the_switch(connection: Connection, database: str) -> None:
    """People search and write by both functions all the while: a call that meets the renaming waits for its end, for a moment, and then
    names the columns as they are called by then, at the cutover and at the rollback."""
    reports = Reports(connection, rows=200)
    run = verified(connection, batch_rows=200)
    query, vector, stop = reports.vector(text_of(7), OLD), reports.vector(text_of(8), OLD), threading.Event()
    calls, faults, waits = 0, list[str](), [0.0]

    def call(pause: float, statement: str, *values: object) -> None:
        nonlocal calls
        with psycopg.connect(database, autocommit=True) as other:
            while not stop.wait(pause):
                started, calls = time.perf_counter(), calls + 1
                try:
                    row = other.execute(statement.encode(), values).fetchone()
                    if row not in ((7,), ("",)):
                        faults.append(str(row))
                except psycopg.Error as error:
                    faults.append(str(error))
                waits.append(time.perf_counter() - started)

    search = (0.002, "SELECT id FROM match_reports(%s::vector, -2, 5)", query)
    # Slower: with one vector hundreds of times, which nobody vacuums, two searches of one moment by an HNSW index may differ.
    write = (0.05, "SELECT update_report_embedding(8, %s::vector)", vector)
    threads = [threading.Thread(target=call, args=arguments) for arguments in (search, search, write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            cutover(ready(connection, run))
            rollback(run)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert calls > 100
    assert max(waits) < 5  # on a machine that does other things
