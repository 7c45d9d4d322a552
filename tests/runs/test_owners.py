"""A run of live tables that names no run: which one it is about."""

from collections.abc import Callable
from typing import Any

import pytest

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import BatchesFailed, UsageError
from tasks.runs import ledger
from tasks.runs.owners import take_up
from tasks.stores.postgres.connection import Connection
from tests.helpers import live, pipeline

pytestmark = pytest.mark.usefixtures("prefect")

TARGETS = [{"table": "docs", "text": "content"}]


def repeated(**parameters: Any) -> dict[str, Any]:
    """The migration of ``docs``, as a schedule starts it: without a run_id."""
    outcome: dict[str, Any] = text_384_to_1536(targets=TARGETS, embedder="hashing/1536", **parameters)
    return outcome


def test_a_later_run_finds_the_run_that_owns_the_vectors(connection: Connection) -> None:
    """What is verified is caught up, or switched where that is asked for; what is switched is caught up; what was rolled
    back is not touched, and the message says what to do with it."""
    live.make_table(connection, 40)
    first = repeated()
    owner = first["run_id"]
    assert first["state"] == "verified"
    assert owner.startswith("text-384-to-1536-")

    for n, parameters, state in ((3, {}, "verified"), (4, {"cutover": "auto"}, "cut_over"), (5, {}, "cut_over")):
        connection.execute("UPDATE docs SET content = 'changed later' WHERE id = %s", (n,))
        later = repeated(**parameters)
        assert (later["run_id"], later["state"]) == (owner, state)
        assert live.faults(connection) == []
        if not parameters:
            what = "public.docs → public.docs.embedding_1536: 1 updated"
            assert later["done"] == [f"caught up run {owner}: {what}"]
    assert ledger.run_ids(connection) == [owner]

    rollback(run_id=owner)
    with pytest.raises(UsageError, match=f"was rolled back: switch it again, vecferry cutover {owner}"):
        repeated()
    assert ledger.get(connection, owner).state == "rolled_back"


def test_with_the_run_id_of_a_switched_run_it_is_caught_up(connection: Connection) -> None:
    """The second firing of a schedule that names its run brings what changed, where it ended green with nothing done."""
    live.make_table(connection, 40)
    repeated(run_id="named", cutover="auto")
    connection.execute("UPDATE docs SET content = 'changed later' WHERE id = 3")
    assert repeated(run_id="named", cutover="auto")["state"] == "cut_over"
    assert live.faults(connection) == []


def test_what_failed_is_gone_on_with(connection: Connection) -> None:
    """The run that owns the vectors and did not finish is resumed, and no other is begun."""
    live.make_table(connection, 40)
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'row 7 is frozen'; END $$; "
        "CREATE TRIGGER frozen BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(BatchesFailed):
        repeated()
    connection.execute("DROP TRIGGER frozen ON docs")
    assert repeated()["state"] == "verified"
    assert len(ledger.run_ids(connection)) == 1
    assert live.faults(connection) == []


def test_a_smoke_run_and_tables_of_different_runs_are_named(connection: Connection) -> None:
    """Where the vectors belong to a smoke run, or those asked for to different runs, nothing is begun or touched."""
    live.make_table(connection, 40)
    connection.execute("CREATE TABLE more (id int PRIMARY KEY, content text, embedding vector(384))")
    owner = repeated(limit=10)["run_id"]
    with pytest.raises(UsageError, match=f"run {owner}, a smoke run: drop it first, vecferry rollback {owner}"):
        repeated()
    both = [*TARGETS, {"table": "more", "text": "content"}]
    with pytest.raises(
        UsageError, match=rf"docs\.embedding_1536 to run {owner}, public\.more\.embedding_1536 to no run"
    ):
        text_384_to_1536(targets=both, embedder="hashing/1536")
    assert ledger.run_ids(connection) == [owner]


def test_a_name_that_nobody_typed_meets_no_other_run(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """A run of the name that a flow run would give its own is refused, unless this flow run began it."""
    source = {"chroma": {"path": chroma_dir(count=5)}}
    pipeline.build("taken", **source)
    request = parse(ChromaToPgvector, source).request()
    with pytest.raises(UsageError, match="run taken already exists, and this flow run did not begin it"):
        take_up(request, [], "a-flow-run", "taken")
    connection.execute('UPDATE vecferry.run SET plan = plan || \'{"flow_run": "a-flow-run"}\'')
    assert take_up(request, [], "a-flow-run", "another-name").run_id == "taken"
    form = parse(Text384To1536, {"targets": [{"table": "nowhere"}]})
    with pytest.raises(UsageError, match="there is no table nowhere"):
        take_up(form.request(), form.places(), "other-flow-run", "new")
