"""`status` tells what goes on with a run, and its ``next`` is a command that works now."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows import approval
from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.cutover import cutover
from flows.rollback import rollback
from tasks.base.errors import BatchesFailed, VerificationRefused
from tasks.runs import dataset, holding, ledger, status
from tasks.runs.outcome import Later
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import command

pytestmark = pytest.mark.usefixtures("prefect")

Look = Callable[[], tuple[str, str | None, str | None]]


@pytest.fixture
def source(chroma_dir: Callable[..., str]) -> dict[str, Any]:
    return {"chroma": {"path": chroma_dir(count=30)}, "batch_rows": 10}


@pytest.fixture
def look(connection: Connection) -> Look:
    """State, now and next of the run ``r``."""

    def look() -> tuple[str, str | None, str | None]:
        outcome = status.outcome(connection, "r")
        return outcome.state, outcome.now, outcome.next

    return look


@pytest.fixture
def does(connection: Connection, look: Look, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Types ``next``, which must end with 0 and leave that state."""

    def does(state: str) -> None:
        typed = look()[2]
        assert typed
        ended = command(capsys, *shlex.split(typed)[1:])
        assert ended.exit == 0, ended
        assert look()[:2] == (state, None)

    return does


def test_a_run_from_beginning_to_end(
    connection: Connection, source: dict[str, Any], look: Look, does: Callable[[str], None]
) -> None:
    """verified → cutover → rollback → cutover, and contract from its date on."""
    chroma_to_pgvector(**source, run_id="r")
    assert look() == ("verified", None, "vecferry cutover r")
    does("cut_over")
    later = status.outcome(connection, "r").later
    assert later
    assert later.command == "vecferry contract r"
    opens = later.since
    assert opens
    assert timedelta(days=6, hours=23) < opens - datetime.now(UTC) < timedelta(days=7, minutes=1)
    assert look() == ("cut_over", None, None)

    rollback(run_id="r")
    assert look() == ("rolled_back", None, "vecferry cutover r")
    does("cut_over")
    connection.execute("UPDATE vecferry.run SET cut_over_at = now() - interval '8 days'")
    assert look() == ("cut_over", None, "vecferry contract r")
    does("contracted")
    assert look() == ("contracted", None, None)


def test_a_run_that_was_taken_back_before_its_cutover(
    source: dict[str, Any], look: Look, does: Callable[[str], None]
) -> None:
    """Its shadow is gone, so it is run again."""
    chroma_to_pgvector(**source, run_id="r")
    rollback(run_id="r")
    assert look() == ("rolled_back", None, "vecferry run chroma-to-pgvector --run-id r")
    does("verified")


def test_a_sync_that_was_taken_back(source: dict[str, Any], look: Look, does: Callable[[str], None]) -> None:
    """It is switched again like any run that was."""
    chroma_to_pgvector(**source, run_id="first", cutover="auto")
    chroma_to_pgvector(**source, run_id="r")
    rollback(run_id="r")
    assert look() == ("rolled_back", None, "vecferry cutover r")
    does("cut_over")


def test_a_smoke_run(source: dict[str, Any], look: Look, does: Callable[[str], None]) -> None:
    """It never cuts over: what is left to do is to take it back."""
    chroma_to_pgvector(**source, run_id="r", limit=15)
    assert look() == ("verified", None, "vecferry rollback r")
    does("rolled_back")


def test_failed_batches_and_failed_checks(
    connection: Connection,
    source: dict[str, Any],
    look: Look,
    does: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Failed batches are rerun; a run whose checks failed is run again."""

    def broken(*_: Any, **__: Any) -> Any:
        raise dataset.ChecksumError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_part", broken)
        with pytest.raises(BatchesFailed):
            chroma_to_pgvector(**source, run_id="r")
    assert look() == ("failed", None, "vecferry rerun r")
    does("verified")
    collection = chroma.connect(**source["chroma"]).client.get_collection("docs")
    collection.upsert(ids=["bad"], embeddings=[[1.0] * 8], documents=["a\0b"])
    with pytest.raises(VerificationRefused):
        cutover(run_id="r")
    assert look()[0] == "failed"
    assert look()[2] == "vecferry run chroma-to-pgvector --run-id r"


def test_who_works_on_it_and_who_was_killed(
    connection: Connection, database: str, source: dict[str, Any], look: Look, does: Callable[[str], None]
) -> None:
    """The advisory lock knows: a run that nobody holds any more was killed, in a run or in the middle of a cutover."""
    chroma_to_pgvector(**source, run_id="r")
    ledger.set_state(connection, "r", "running")
    for verb, now in (("run", "running"), ("verify", "running"), ("cutover", "switching"), ("rollback", "switching")):
        ledger.set_doing(connection, "r", verb)  # type: ignore[arg-type]
        with holding.sole_runner(database, "r"):
            assert look() == ("running", now, None)
            assert status.outcome(connection, "r").later == Later("vecferry status r", None)
    for verb, second in (("cutover", "vecferry cutover r"), ("run", "vecferry run chroma-to-pgvector --run-id r")):
        ledger.set_doing(connection, "r", verb)  # type: ignore[arg-type]
        assert look() == ("running", "killed", second)
    does("verified")


def test_an_approval_that_is_waited_for(connection: Connection, source: dict[str, Any], look: Look) -> None:
    """It says so until it is too late, and `vecferry cutover` is the way of the terminal."""
    chroma_to_pgvector(**source, run_id="r")
    ledger.set_waiting(connection, "r", 60)
    assert look() == ("verified", "waiting for approval", "vecferry cutover r")
    ledger.set_doing(connection, "r", "run")  # whoever waited was killed
    assert look() == ("verified", None, "vecferry cutover r")
    ledger.set_doing(connection, "r", None)
    ledger.set_waiting(connection, "r", -1)
    assert look() == ("verified", None, "vecferry cutover r")


@pytest.mark.whole
def test_nobody_approves_in_time(
    connection: Connection, source: dict[str, Any], look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is a no: the run is left verified, and nobody is waited for any more."""
    monkeypatch.setenv("PREFECT_API_URL", "http://the.tests/api")  # that there is one
    monkeypatch.setattr(approval, "A_DAY", 1)
    # Prefect's server calls a flow run that was paused and never resumed failed, whatever the flow makes of it.
    chroma_to_pgvector(**source, run_id="r", cutover="ask", return_state=True)
    assert look() == ("verified", None, "vecferry cutover r")


def test_a_cutover_that_is_refused_leaves_the_run_verified(
    connection: Connection, source: dict[str, Any], look: Look
) -> None:
    """What stands in the way of the switch says nothing against the vectors."""
    chroma_to_pgvector(**source, run_id="first", cutover="auto")
    connection.execute("CREATE VIEW titles AS SELECT id FROM docs")
    chroma_to_pgvector(**source, run_id="r", halfvec=True)
    with pytest.raises(VerificationRefused, match="view titles"):
        cutover(run_id="r")
    assert look() == ("verified", None, "vecferry cutover r")
    assert "view titles" in str(status.outcome(connection, "r").error)


def test_it_can_be_read_and_copied_at_80_columns(
    connection: Connection, source: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When, how long, which flow, which source; and the next command stands whole on a line of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    name = "a-name-of-forty-eight-characters-as-is-allowed-x"
    chroma_to_pgvector(**source, run_id=name)
    for arguments in ((), (name,)):
        shown = command(capsys, "status", *arguments).out
        assert [x.strip() for x in shown.splitlines() if "next" in x] == [f"next    vecferry cutover {name}"]
        for part in ("verified", "chroma-to-pgvector, chroma /", f"started {datetime.now(UTC):%Y-%m-%d}", "s of work"):
            assert part in shown, part
    outcome = command(capsys, "status", name, "--json").json
    assert outcome["source"] == f"chroma {source['chroma']['path']}"
    assert datetime.fromisoformat(outcome["started"]) <= datetime.fromisoformat(outcome["changed"])
