"""Vectors that an application writes itself, beside a run that writes those of the same chunks: the application's INSERTs never fail,
and what it wrote stays, through a rollback too."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest

from tasks.base.errors import UsageError
from tasks.begin import begin
from tasks.catch_up import catch_up
from tasks.cutover import rollback
from tasks.embedders.registry import open_embedder
from tasks.load import load
from tasks.runs import checkpoints, registry
from tasks.runs.registry import RegisteredModel
from tasks.runs.run import Run
from tasks.serving import documents
from tasks.shadows.postgres.live.rows import LiveRows
from tasks.shadows.postgres.models import retire
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import rounded, text_vector
from tests.helpers.pipeline import finish
from tests.helpers.served_tables import Served
from tests.shadows.test_model_column import NEW, followed, migrated

OLD = "hashing/384"


@pytest.fixture
def served(connection: Connection) -> Served:
    served = Served(connection, documents=6)
    served.init(NEW)
    return served


def model_of(served: Served, name: str) -> RegisteredModel:
    return registry.named(served.connection, served.tables, name)


def chunk(served: Served, text: str) -> int:
    """A new chunk of the last document, without a vector."""
    row = served.connection.execute(
        "INSERT INTO document_chunks (document_id, chunk_index, content) VALUES (%s, 9, %s) RETURNING id",
        (served.documents[-1], text),
    ).fetchone()
    assert row
    return int(row[0])


def vector(name: str, text: str, off: float = 0.0) -> str:
    """The model's own, or one that is ``off`` by as much in one component."""
    made = open_embedder(name).embed([text]).whole[0].copy()
    made[-1] += off
    return text_vector(made)


def insert(connection: "psycopg.Connection[Any]", model: RegisteredModel, key: int, value: str) -> None:
    """As an application does that knows of nobody else."""
    connection.execute(
        f"INSERT INTO chunk_embeddings (chunk_id, model_id, {model.column}) VALUES (%s, %s, %s)", (key, model.id, value)
    )


def stored(served: Served, name: str, key: int) -> list[float] | None:
    return served.vectors(name).get(str(key))


@pytest.mark.parametrize("cut_over", [False, True])
def test_an_insert_after_catching_up_wins(served: Served, cut_over: bool) -> None:
    """Before a cutover of the target's vector, and after it of either model's, with or without the model's number: it does not fail,
    what was written stays, whatever is caught up later, and the chunk has one vector of each model."""
    run = migrated("writes")
    if cut_over:
        finish(run)
    text = "written by the application itself"
    key = chunk(served, text)
    followed(run)
    assert stored(served, NEW, key)
    insert(served.connection, model_of(served, NEW), key, vector(NEW, text, 0.02))
    served.connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, embedding) VALUES (%s, %s)", (key, vector(OLD, text, 0.02))
    )
    served.connection.execute("UPDATE document_chunks SET content = content || '' WHERE id = %s", (key,))
    followed(run)
    for name in (NEW, OLD):
        own = rounded(np.array(vector(name, text, 0.02)[1:-1].split(","), np.float32))
        assert stored(served, name, key) == pytest.approx(own, abs=1e-4), name
    with pytest.raises(psycopg.errors.UniqueViolation):  # what the application itself has written is no less there
        insert(served.connection, model_of(served, NEW), key, vector(NEW, text))


def test_many_inserts_beside_a_run(served: Served) -> None:
    """Each looks up by an index whether the run was there first, though the table was small when the session began: a COPY of many would
    take ever longer."""
    migrated("writes")
    model = model_of(served, NEW)
    keys = [chunk(served, f"one of many {at}") for at in range(50)]
    query = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'chunk_embeddings'"
    with served.connection.transaction():
        before = served.connection.execute(query).fetchone()  # of the session, for a second after its statements
        for key in keys:
            insert(served.connection, model, key, vector(NEW, "of many"))
        assert served.connection.execute(query).fetchone() == before


def test_a_wrong_vector_is_put_right(served: Served) -> None:
    """One that is not what the model gives of the text, once the chunk is noted as changed."""
    run = migrated("writes")
    key = chunk(served, "something")
    insert(served.connection, model_of(served, NEW), key, vector(NEW, "something else"))
    followed(run)
    assert stored(served, NEW, key) == served.expected(NEW)[str(key)]


@contextmanager
def halted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Vectors that have been written by a run stay uncommitted until the second event is set; the first tells that they are."""
    written, on, put = threading.Event(), threading.Event(), LiveRows.put

    def slow(self: LiveRows, connection: Connection, page: Any, **more: Any) -> None:
        put(self, connection, page, **more)
        if page.num_rows:
            written.set()
            assert on.wait(20)

    monkeypatch.setattr(LiveRows, "put", slow)
    try:
        yield written, on
    finally:
        on.set()
        monkeypatch.undo()


def test_an_insert_while_the_run_writes_the_same_vector(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the moment that the run takes, and wins."""
    run = migrated("writes")
    text = "at the same moment"
    key, model = chunk(served, text), model_of(served, NEW)
    failed = list[BaseException]()

    def into(work: Callable[[], object]) -> threading.Thread:
        def caught() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  raised where the thread is waited for
                failed.append(error)

        thread = threading.Thread(target=caught)
        thread.start()
        return thread

    with (
        halted(monkeypatch) as (written, on),
        psycopg.connect(served.connection.info.dsn, autocommit=True) as application,
    ):
        following = into(lambda: catch_up(run, 0, max_deleted=1.0))
        assert written.wait(20)
        inserting = into(lambda: insert(application, model, key, vector(NEW, text, 0.02)))
        time.sleep(0.3)
        assert inserting.is_alive()
        on.set()
        inserting.join(20)
        following.join(20)
    assert failed == []
    assert stored(served, NEW, key) != served.expected(NEW)[str(key)]


def test_a_chunk_whose_vector_somebody_writes_is_left_for_later(served: Served) -> None:
    """A run waits for no transaction of the application's, and brings the chunk by the next pass if that comes to nothing."""
    run = migrated("writes")
    key, model = chunk(served, "in a long transaction"), model_of(served, NEW)
    other = chunk(served, "in none")
    with psycopg.connect(served.connection.info.dsn) as application:
        insert(application, model, key, vector(NEW, "in a long transaction"))
        began = time.monotonic()
        catch_up(run, 0, max_deleted=1.0)
        assert time.monotonic() - began < 5
        assert stored(served, NEW, other)
        assert not stored(served, NEW, key)
        finish(run)  # such a chunk is none that does not arrive
        application.rollback()
    followed(run)
    assert stored(served, NEW, key)


@dataclass(frozen=True)
class Beside:
    """What somebody writes while a run is under way."""

    served: Served

    def ingested(self, text: str) -> int:
        """A chunk with its vector by the target model, in one transaction, as `vecferry ingest --model` writes it."""
        with self.served.connection.transaction():
            key = chunk(self.served, text)
            matrix = open_embedder(NEW).embed([text]).whole
            documents.write_vectors(
                self.served.connection, self.served.tables, model_of(self.served, NEW), [str(key)], matrix
            )
        return key


def test_a_rollback_takes_what_the_run_has_brought_in_and_no_more(served: Served) -> None:
    """What was ingested with the target model meanwhile stays, seen by the run or not, changed by it or not, and so does a vector
    of the run's that somebody has written anew."""
    beside = Beside(served)
    before = beside.ingested("before the run")
    run = migrated("back")
    seen = beside.ingested("while it is under way")
    changed = beside.ingested("whose text is changed")
    followed(run)
    served.connection.execute("UPDATE document_chunks SET content = 'by now another' WHERE id = %s", (changed,))
    first, text = next(iter(served.chunks().items()))
    documents.write_vectors(
        served.connection, served.tables, model_of(served, NEW), [first], -open_embedder(NEW).embed([text]).whole
    )
    late = chunk(served, "whose vector is written after the run's")
    followed(run)
    insert(served.connection, model_of(served, NEW), late, vector(NEW, "whose vector is written after the run's"))
    unseen = beside.ingested("which the run never saw")
    rollback(run)
    kept = served.vectors(NEW)
    assert kept.keys() == {str(key) for key in (before, seen, changed, first, late, unseen)}
    assert kept[str(changed)] == served.expected(NEW)[str(changed)]
    assert served.vectors(OLD).keys() >= served.chunks("chunk_index < 9").keys()
    key = chunk(served, "nobody follows it now")
    insert(served.connection, model_of(served, NEW), key, vector(NEW, "nobody follows it now"))


def test_a_batch_that_is_loaded_again_is_still_the_runs(served: Served) -> None:
    """What a run has brought in goes, however often it was loaded."""
    run = migrated("twice")
    reloaded(run)
    assert served.vectors(NEW) == served.expected(NEW)
    rollback(run)
    assert served.vectors(NEW) == {}


def reloaded(run: Run) -> None:
    """All batches once more, as a rerun that names them does."""
    with run.connection() as connection:
        numbers = [b.number for b in checkpoints.batches(connection, run.run_id, "load")]
    begin(run.plan.request, run.run_id, [], numbers)
    assert not load(run, numbers).failed


def test_a_filter_that_a_document_leaves_takes_no_vector_of_others(served: Served) -> None:
    """A vector that others wrote stays where its document leaves those of the run."""
    run = migrated("some", documents={"filter": "source = 'wiki'"})
    wiki = served.documents[0]
    key = chunk(served, "written by others")
    served.connection.execute("UPDATE document_chunks SET document_id = %s WHERE id = %s", (wiki, key))
    insert(served.connection, model_of(served, NEW), key, vector(NEW, "written by others"))
    followed(run)
    served.connection.execute("UPDATE documents SET source = 'mail' WHERE id = %s", (wiki,))
    followed(run)
    assert served.vectors(NEW).keys() & served.chunks(f"d.id = {wiki}").keys() == {str(key)}


def test_a_model_whose_vectors_are_dropped_while_a_run_follows_it(served: Served) -> None:
    """A catch-up says so, whether anything has changed or not; the application goes on writing, and a rollback ends the run."""
    run = migrated("gone")
    retire.retire(served.connection, served.tables, NEW, force=True)
    followed(run)
    retire.retire(served.connection, served.tables, NEW, rollback_days=0, force=True)
    for _ in range(2):
        with pytest.raises(
            UsageError, match="the vectors of hashing/768 were dropped: `vecferry models setup` makes room"
        ):
            catch_up(run, 0, max_deleted=1.0)
        served.insert()
    rollback(run)
    served.insert()
    assert served.vectors(OLD) == served.expected(OLD)


def test_a_rollback_leaves_nothing_out_of_the_model_before(served: Served) -> None:
    """What was written shortly before it, when others' vectors were made by the new model only, has the vector of the old one at once;
    what an application that has not heard of it writes shortly after gets it by the next pass."""
    run = migrated("back")
    finish(run)
    served.insert()
    first, *_ = served.chunks()
    served.say(int(first), "something else")
    rollback(run)
    assert served.vectors(OLD) == served.expected(OLD)
    chunk(served, "by who knows of the new model only")
    followed(run)
    assert served.vectors(OLD) == served.expected(OLD)
    assert served.vectors(NEW) == served.expected(NEW)
