"""Vectors that an application writes by its function where new ones lie beside the table."""

import threading
import time
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors, sql

from tasks.base.errors import VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs.run import Run
from tasks.shadows.postgres.live import place
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tasks.verify import verify
from tests.helpers.lifecycle import Rows
from tests.helpers.live_table import rounded
from tests.helpers.pipeline import gates
from tests.helpers.renamed_table import NEW, OLD, WRITE, Mirrored, Reports, plan, ready, renaming, text_of, verified
from tests.helpers.sampling import sampled

__all__ = ["renaming"]
pytestmark = pytest.mark.usefixtures("renaming")
NAMES = ("match_reports", "update_report_embedding")

WRITES = {
    "parsed": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS bigint LANGUAGE sql "
        "BEGIN ATOMIC UPDATE reports SET embedding = new_embedding WHERE id = report_id RETURNING id; END"
    ),
    "text": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding text) RETURNS SETOF reports LANGUAGE sql AS $$ "
        'UPDATE public.reports AS "R" SET seen = 0, embedding = new_embedding::vector(16) FROM (SELECT 1) AS one '
        'WHERE "R".id = report_id RETURNING "R".* $$'
    ),
    "several": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding real[]) RETURNS boolean LANGUAGE plpgsql "
        "SET search_path = '' AS $$ DECLARE rows int; BEGIN WITH done AS (UPDATE public.reports SET embedding = "
        "CASE WHEN report_id IS DISTINCT FROM 0 THEN new_embedding END, seen = 1 "
        "WHERE id BETWEEN report_id AND report_id + 2 RETURNING id) SELECT count(*) INTO rows FROM done; "
        "RETURN rows = 3; END $$"
    ),
}


def beside(connection: Connection, run: Run) -> Rows:
    """The vectors that lie beside the table."""
    side = place.side_table(run.plan.targets[0].place)
    query = sql.SQL("SELECT k1::text, embedding::text FROM {} WHERE embedding IS NOT NULL").format(side)
    return {name: rounded(np.array(text[1:-1].split(","), np.float32)) for name, text in connection.execute(query)}


def waiting(connection: Connection, run: Run) -> list[str]:
    """The rows on the queue."""
    queue = place.queue(run.plan.targets[0].place)
    return [name for (name,) in connection.execute(sql.SQL("SELECT DISTINCT id FROM {} ORDER BY 1").format(queue))]


def made(text: str, model: HashingEmbedder = NEW) -> Any:
    return rounded(model.embed([text]).whole[0])


def begun(connection: Connection, **more: Any) -> Run:
    return verified(connection, layout="side_table", **more)


def test_both_dimensions_are_written_where_they_belong(connection: Connection) -> None:
    """After the cutover the function takes new vectors too, beside the table, and old ones go on to the old column; both put the row on
    the queue, and catching up holds what was written against the model's own. The rollback gives the function back, to the letter."""
    reports = Reports(connection)
    before = [reports.function(name) for name in NAMES]
    run = begun(connection)
    shadow = shadow_of(run, run.plan.targets[0])
    for _ in range(2):
        cutover(ready(connection, run))
        assert waiting(connection, run) == []
        old, (seen,) = reports.stored(), connection.execute("SELECT seen FROM reports WHERE id = 7").fetchone() or (0,)
        reports.write(7, reports.vector("another text", NEW))
        assert beside(connection, run)["7"] == made("another text")
        assert reports.stored() == old
        assert connection.execute("SELECT seen FROM reports WHERE id = 7").fetchone() == (seen + 1,)
        reports.write(8, reports.vector("another text", OLD))
        assert reports.stored()["8"] == made("another text", OLD)
        assert beside(connection, run) == reports.expected() | {"7": made("another text")}
        assert waiting(connection, run) == ["7", "8"]
        assert shadow.compare().stale.ids == ("7",)
        with pytest.raises(VerificationRefused, match="content"):
            verify(run, gates(), None).refuse()
        assert shadow.follow(1.0).stale.ids == ("7",)
        assert beside(connection, run) == reports.expected()
        assert waiting(connection, run) == []
        with pytest.raises(errors.DataException, match=r"serves queries of 16 and 24 dimensions, not 8"):
            reports.write(7, reports.vector("another text", HashingEmbedder(8)))
        reports.write(8, reports.vector(text_of(8), OLD))
        rollback(run)
        assert [reports.function(name) for name in NAMES] == before


def test_a_new_report_is_found_at_once(connection: Connection) -> None:
    """The vector that an application writes for a report that came in is there before any catching up, which then leaves it."""
    reports = Reports(connection)
    run = begun(connection)
    cutover(run)
    reports.model = NEW
    reports.add()
    assert reports.nearest(text_of(40), NEW)[0] == (40, text_of(40), 1)
    reports.say(7, "other words")
    assert reports.nearest("other words", NEW)[0] == (7, "other words", 1)
    shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert beside(connection, run) == reports.expected()


TOGETHER = (
    "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
    "UPDATE reports SET content = lower(content), embedding = new_embedding WHERE id = report_id; END $$"
)


@pytest.mark.parametrize(
    "write",
    sampled([WRITE, WRITES["parsed"], TOGETHER], WRITES["parsed"], TOGETHER),
    ids=["text", "parsed", "with what is embedded"],
)
def test_a_contract_drops_the_old_column_alone(connection: Connection, write: str) -> None:
    """The function goes on writing new vectors once the column that it wrote is gone, refuses old ones, and changes are followed."""
    reports = Reports(connection, write=write)
    run = begun(connection)
    cutover(run)
    contract(run, 0)
    assert reports.columns() == {}
    reports.write(7, reports.vector("another text", NEW))
    assert beside(connection, run)["7"] == made("another text")
    connection.execute("UPDATE reports SET content = 'other words' WHERE id = 8")
    assert waiting(connection, run) == ["7", "8"]
    with pytest.raises(errors.DataException, match=r"serves queries of 24 dimensions, not 16"):
        reports.write(7, reports.vector("another text", OLD))
    shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert beside(connection, run) == reports.expected()


def test_a_late_writer_of_equal_dimensions_is_put_right(connection: Connection) -> None:
    """What an instance with the old model writes lands beside the table, and does not stay there unseen."""
    reports = Reports(connection)
    model = Mirrored(16)
    run = begun(connection, new=model, embedder="mirrored/16", target={"new_column": "embedding_new"})
    cutover(run)
    reports.write(7, reports.vector(text_of(7), OLD))
    reports.write(8, reports.vector(text_of(8), model))
    shadow = shadow_of(run, run.plan.targets[0])
    assert shadow.compare().stale.ids == ("7",)
    assert shadow.follow(1.0).stale.ids == ("7",)
    assert beside(connection, run) == reports.expected(model)


@pytest.mark.whole
def test_two_migrations_lie_on_each_other(connection: Connection) -> None:
    """Vectors of three models are written by one function, each where they belong; a contract of the first leaves the other two."""
    reports, later = Reports(connection), HashingEmbedder(32)
    first = begun(connection, run_id="first")
    cutover(first)
    second = begun(connection, run_id="second", new=later, old=NEW, target={"old_column": "embedding_24"})
    cutover(second)
    for model in (OLD, NEW, later):
        reports.write(7, reports.vector("another text", model))
    assert reports.stored()["7"] == made("another text", OLD)
    assert beside(connection, first)["7"] == made("another text")
    assert beside(connection, second)["7"] == made("another text", later)
    contract(first, 0)
    for model in (NEW, later):
        reports.write(8, reports.vector("another text", model))
    assert beside(connection, first)["8"] == made("another text")
    assert beside(connection, second)["8"] == made("another text", later)
    for run in (first, second):
        shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert beside(connection, first) == reports.expected()
    assert beside(connection, second) == reports.expected(later)


@pytest.mark.parametrize("write", sampled(WRITES, "several"))
def test_functions_of_any_kind_hand_their_vectors_over(
    connection: Connection, people: tuple[str, str, str], write: str
) -> None:
    """Who may write does so for the rows that he may write, by vectors of both models, and who may not is refused; no role is let
    into what lies beside the table."""
    keeper, app, outsider = people
    reports = Reports(connection, write=WRITES[write])
    kind = {"text": "text", "several": "real[]"}.get(write, "vector")
    connection.execute(
        f"ALTER TABLE reports OWNER TO {keeper}; ALTER TABLE reports ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY small ON reports USING (id < 30); GRANT SELECT, INSERT, UPDATE ON reports TO {app}; "
        f"GRANT USAGE ON SCHEMA public TO PUBLIC"
    )
    run = begun(connection)
    cutover(run)

    def write_as(role: str, n: int, model: HashingEmbedder) -> None:
        value = reports.vector("another text", model)
        value = f"{{{value[1:-1]}}}" if kind == "real[]" else value
        with connection.transaction():
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            connection.execute(f"SELECT update_report_embedding({n}, '{value}'::{kind})".encode())

    write_as(app, 7, NEW)
    write_as(app, 12, OLD)
    write_as(app, 35, NEW)
    rows = {"7", "8", "9"} if write == "several" else {"7"}
    assert {name for name, vector in beside(connection, run).items() if vector == made("another text")} == rows
    assert reports.stored()["12"] == made("another text", OLD)
    assert {"7", "12"} <= set(waiting(connection, run))
    for model in (OLD, NEW):
        with pytest.raises(errors.InsufficientPrivilege):
            write_as(outsider, 7, model)
    shadow_of(run, run.plan.targets[0]).follow(1.0)
    assert beside(connection, run) == reports.expected()


def test_a_vector_under_way_belongs_to_its_row(connection: Connection) -> None:
    """What was handed over and not taken, since its row was not written, is no other row's; nor is what a rolled back write said."""
    reports = Reports(connection)
    run = begun(connection)
    connection.execute(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER a_skip BEFORE UPDATE ON reports FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION skip()"
    )
    cutover(run)
    with connection.transaction():
        reports.write(7, reports.vector("another text", NEW))
        connection.execute("UPDATE reports SET seen = 5 WHERE id = 8")
    assert beside(connection, run) == reports.expected()
    assert waiting(connection, run) == []


def test_writers_and_catching_up_wait_for_each_other(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that comes in the middle of catching up, which writes old vectors too, waits for its end: both take the table's row
    first, and what lies beside it then."""
    reports = Reports(connection)
    run = begun(connection)
    cutover(run)
    connection.execute("UPDATE reports SET content = 'other words' WHERE id = 7")
    put, faults, threads = LiveRows.put, list[str](), list[threading.Thread]()

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as other:
            try:
                other.execute("SELECT update_report_embedding(7, %s::vector)", (reports.vector("other words", NEW),))
            except psycopg.Error as error:
                faults.append(str(error))

    def then_written(rows: LiveRows, *arguments: Any, **more: Any) -> None:
        put(rows, *arguments, **more)
        threads.append(threading.Thread(target=write))
        threads[-1].start()
        time.sleep(0.3)

    with monkeypatch.context() as patch:
        patch.setattr(LiveRows, "put", then_written)
        assert shadow_of(run, run.plan.targets[0]).follow(1.0).stale.ids == ("7",)
    for thread in threads:
        thread.join()
    assert (len(threads), faults) == (1, [])
    assert beside(connection, run) == reports.expected()
    assert reports.stored()["7"] == made("other words", OLD)


UNDERIVABLE = {
    "upsert": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE sql AS $$ INSERT INTO "
        "reports (id, embedding) VALUES (report_id, new_embedding) ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding $$"
    ),
    "several at once": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE sql AS $$ "
        "UPDATE reports SET (embedding, seen) = (SELECT new_embedding, 1) WHERE id = report_id $$"
    ),
    "by its old vector": (
        "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE sql AS $$ "
        "UPDATE reports SET embedding = new_embedding WHERE id = report_id AND embedding IS DISTINCT FROM new_embedding $$"
    ),
}


@pytest.mark.parametrize("write", UNDERIVABLE)
def test_what_cannot_be_derived_is_refused_with_the_way_on(connection: Connection, write: str) -> None:
    """By the plan; without a function that switches the run goes ahead, and it goes on with the old vectors."""
    reports = Reports(connection, write=UNDERIVABLE[write])
    (problem,) = plan(connection, layout="side_table").problems
    assert "no function that writes the new vectors can be derived from public.update_report_embedding" in problem
    assert "layout=column" in problem
    assert "write_function=null" in problem
    run = begun(connection, write_function="")
    cutover(run)
    reports.write(7, reports.vector("another text", OLD))
    assert reports.stored()["7"] == made("another text", OLD)


def test_what_the_application_has_to_change_is_told(connection: Connection) -> None:
    """By the plan and by the cutover."""
    Reports(connection)
    words = "update_report_embedding writes vectors of 24 dimensions beside the table, and those of 16 to embedding"
    assert any(words in line for line in plan(connection, layout="side_table").warnings)
    assert any(words in line for line in cutover(begun(connection)))
