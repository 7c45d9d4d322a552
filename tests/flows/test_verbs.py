"""What a verb owes its user: it checks before it touches, keeps the run's gates, and exits by what it has done."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.sorting import FlowRunSort

from flows import migrate, running
from flows.catch_up import catch_up
from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.command import carry_out
from flows.cutover import cutover
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from flows.verify import verify as verify_flow
from tasks.base.errors import FatalError, UsageError, VerificationRefused
from tasks.runs import checkpoints, dataset, holding, ledger, status
from tasks.stores.chroma import store as chroma
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import command
from tests.helpers.live_table import Table
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def with_nul(database: str, chroma_dir: Callable[..., str]) -> dict[str, Any]:
    """Parameters of a run that quarantines one row."""
    path = chroma_dir(count=20)
    chroma.connect(path=path).client.get_collection("docs").upsert(
        ids=["bad"], embeddings=[[1.0] * 8], documents=["a\0b"]
    )
    return {"chroma": {"path": path}}


def gates(connection: Connection, run_id: str = "r") -> dict[str, Any]:
    return ledger.get(connection, run_id).gates or {}


def everything(connection: Connection) -> list[Any]:
    """All that the ledger says."""
    return [
        connection.execute(f"SELECT to_jsonb(t)::text FROM vecferry.{table} t ORDER BY 1").fetchall()  # type: ignore[arg-type]
        for table in ("run", "batch", "relation")
    ]


def test_later_verbs_keep_the_gates_of_the_run(connection: Connection, with_nul: dict[str, Any]) -> None:
    """Who was accepted with one quarantined row is switched, verified and resumed with one, unless told otherwise."""
    assert chroma_to_pgvector(**with_nul, run_id="r", gates={"max_quarantined": 1})["state"] == "verified"
    assert gates(connection)["max_quarantined"] == 1
    assert chroma_to_pgvector(run_id="r")["state"] == "verified"
    assert cutover(run_id="r")["state"] == "cut_over"


def test_a_form_of_defaults_changes_no_gate(connection: Connection, with_nul: dict[str, Any]) -> None:
    """Prefect's pages send every field: of a whole set only what differs from the defaults is taken for stated."""
    defaults = {
        "min_recall": 0.9,
        "recall_k": 10,
        "min_row_cosine": 0.999,
        "sample": 300,
        "max_quarantined": 0,
        "max_deleted": 0.5,
    }
    chroma_to_pgvector(**with_nul, run_id="r", gates={"max_quarantined": 1})
    assert chroma_to_pgvector(run_id="r", gates=defaults)["state"] == "verified"
    assert chroma_to_pgvector(run_id="r", gates={**defaults, "sample": 7})["state"] == "verified"
    assert (gates(connection)["max_quarantined"], gates(connection)["sample"]) == (1, 7)
    with pytest.raises(VerificationRefused):
        chroma_to_pgvector(run_id="r", gates={"max_quarantined": 0})
    assert gates(connection)["max_quarantined"] == 0


def test_a_refusal_names_the_gate(
    connection: Connection, with_nul: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says which gate decides, verify with other gates leaves those of the run, and cutover keeps its own."""
    chroma_to_pgvector(**with_nul, run_id="r", gates={"max_quarantined": 1})
    ended = command(capsys, "verify", "r", "-p", "gates.max_quarantined=0")
    assert (ended.exit, gates(connection)["max_quarantined"]) == (3, 1)
    assert "quarantined (1 ('bad'), required ≤ 0)" in ended.complaint
    assert "gates.max_quarantined" in ended.complaint
    ended = command(capsys, "cutover", "r", "-p", "gates.max_quarantined=0", "--json")
    assert (ended.exit, ended.json["exit"], ended.json["state"]) == (3, 3, "failed")
    assert command(capsys, "cutover", "r", "-p", "gates.max_quarantined=1").exit == 0


TYPOS = [
    ("rerun", "r", "--batch", "99"),
    ("run", "chroma-to-pgvector", "--run-id", "r", "-p", "batch_ids=[99]"),
    ("run", "chroma-to-pgvector", "--run-id", "r", "-p", "batch_ids=[]"),
    ("run", "chroma-to-pgvector", "--run-id", "r", "-p", "batch_rows=7"),
    ("run", "text-384-to-1536", "--run-id", "r"),
    ("run", "chroma-to-pgvector", "--run-id", "new", "-p", "batch_ids=[1]"),
    ("cutover", "r", "-p", "gates.min_recal=0.5"),
    ("cutover", "r", "-p", "gates.min_recall=7"),
    ("verify", "r", "-p", "gates.sample=0"),
    ("catch-up", "r", "-p", "max_deleted=1"),
    ("rollback", "r", "-p", "gates.sample=1"),
    ("contract", "r", "-p", "rollback_days=-1"),
    ("restore", "r", "--format", "csv"),
    ("cutover", "other"),
]
OF_A_VERIFIED_RUN = [("contract", "r"), ("rerun", "r")]
OF_A_SWITCHED_RUN = [("rerun", "r", "--batch", "0"), ("catch-up", "r"), ("rerun", "r")]


@pytest.mark.parametrize("state", ["verified", "cut_over"])
def test_a_mistake_touches_nothing(
    connection: Connection, chroma_dir: Callable[..., str], capsys: pytest.CaptureFixture[str], state: str
) -> None:
    """Whatever is mistyped: exit 2, and the ledger, the report and the run are as they were."""
    path = chroma_dir(count=20)
    chroma_to_pgvector(chroma={"path": path}, run_id="r", batch_rows=10)
    if state == "cut_over":
        cutover(run_id="r")
    before, report = everything(connection), status.outcome(connection, "r").report
    for typed in [*TYPOS, *(OF_A_VERIFIED_RUN if state == "verified" else OF_A_SWITCHED_RUN)]:
        ended = command(capsys, *typed)
        assert (ended.exit, bool(ended.complaint)) == (2, True), (typed, ended)
        assert everything(connection) == before, typed
    assert Path(report).exists()


def test_a_verb_of_prefect_checks_too(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """From the UI nothing is checked beforehand by the command; the flow checks for itself."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r", batch_rows=10)
    before = everything(connection)
    for batch_ids in ([99], [0, 99]):
        with pytest.raises(Exception, match="has no batch 99"):
            chroma_to_pgvector(run_id="r", batch_ids=batch_ids)
    with pytest.raises(Exception, match="has not begun"):
        chroma_to_pgvector(chroma={"path": chroma_dir("more")}, run_id="new", batch_ids=[1])
    assert everything(connection) == before


@pytest.fixture
def switched(connection: Connection) -> Table:
    """A live table whose run ``r`` is cut over."""
    table = Table(connection)
    parameters = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
    text_384_to_1536(**parameters, run_id="r", cutover="auto")
    return table


def last_flow_run(name: str) -> Any:
    """The latest of that name. Unsorted, Prefect answers in the order of random ids, and no more than 200."""
    named = FlowRunFilter(name=FlowRunFilterName(any_=[f"{name} · r"]))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=named, sort=FlowRunSort.START_TIME_DESC, limit=1)
    return run


REDEPLOYED = (
    "DROP FUNCTION match_docs; CREATE FUNCTION match_docs(query_embedding vector, match_threshold float, match_count int) "
    "RETURNS TABLE (id bigint) LANGUAGE sql STABLE AS $$ SELECT 1::bigint $$"
)
CALLED = f"SELECT * FROM match_docs('[{', '.join(['1'] * 8)}]'::vector, 0, 1)"
FORBIDDEN = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'docs is frozen'; END $$; "
    "UPDATE docs SET content = 'changed' WHERE id = 3; "
    "CREATE TRIGGER frozen BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION refuse()"
)


@pytest.mark.parametrize(
    ("verb", "more", "plant", "reason", "status"),
    [
        (
            "contract",
            ("-p", "rollback_days=0"),
            "CREATE VIEW old AS SELECT embedding FROM docs",
            "view old depends on",
            1,
        ),
        ("rollback", (), REDEPLOYED, "match_docs was replaced", 3),
        pytest.param(
            *("rollback", ("--force",), f"{REDEPLOYED}; CREATE VIEW used AS {CALLED}", "view used depends on", 1),
            marks=pytest.mark.whole,
        ),
        pytest.param(*("catch-up", (), FORBIDDEN, "docs is frozen", 1), marks=pytest.mark.whole),
    ],
)
def test_what_a_verb_did_not_do_is_no_success(
    connection: Connection,
    switched: Table,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    more: tuple[str, ...],
    plant: str,
    reason: str,
    status: int,
) -> None:
    """Exit ≠ 0, in JSON too, one line that says what stood in the way, and in Prefect a failed run."""
    connection.execute(plant)  # type: ignore[arg-type]
    for form in ((), ("--json",)):
        ended = command(capsys, verb, "r", *more, *form)
        assert ended.exit == status, ended
        assert reason in ended.complaint
        assert not form or ended.json["exit"] == status
    assert ledger.get(connection, "r").state == "cut_over"
    assert last_flow_run(verb).state.type == "FAILED"


def test_a_rollback_that_is_told_to_puts_back_what_was_replaced(
    connection: Connection, switched: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --force, also where what is there by now returns something else."""
    connection.execute(REDEPLOYED)
    assert command(capsys, "rollback", "r", "--force").exit == 0
    assert connection.execute("SELECT pg_get_function_result('match_docs'::regproc)").fetchone() == (
        "TABLE(id bigint, content text, similarity double precision)",
    )


def test_a_rollback_puts_back_a_function_that_was_dropped(
    connection: Connection, switched: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where somebody has replaced match_docs since the cutover, a rollback says so; once that is dropped, it is as it was."""
    connection.execute(REDEPLOYED)  # type: ignore[arg-type]
    refused = command(capsys, "rollback", "r")
    assert "public.match_docs was replaced after it was switched" in refused.complaint
    connection.execute("DROP FUNCTION match_docs")
    assert command(capsys, "rollback", "r").exit == 0
    definition = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'match_docs'"
    assert "1 - (d.embedding <=> query_embedding)" in str(connection.execute(definition).fetchone())  # type: ignore[arg-type]


def test_work_that_is_done_is_done_though_the_api_is_gone(
    connection: Connection, chroma_dir: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prefect's API is lost after the switch: exit 0, because the ledger has it; lost before anything was done: exit 1."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")

    def lost_before() -> dict[str, Any]:
        raise httpx.ConnectError("all connection attempts failed")

    def lost_after() -> dict[str, Any]:
        cutover(run_id="r")
        raise httpx.ConnectError("all connection attempts failed")

    for verb in ("cutover", "run", "verify", "catch-up"):
        capsys.readouterr()
        with pytest.raises(httpx.ConnectError):
            carry_out.carry_out(lost_before, verb, "r", "DATABASE_URL", as_json=True)  # type: ignore[arg-type]
    assert carry_out.carry_out(lost_after, "cutover", "r", "DATABASE_URL", as_json=True).exit == 0


def test_a_sync_whose_switch_was_not_reached_is_not_done(
    connection: Connection,
    chroma_dir: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The API is lost between the verification of a sync and what makes it cut over: exit 1."""
    source = f"chroma.path={chroma_dir(count=20)}"
    assert (
        command(capsys, "run", "chroma-to-pgvector", "-p", source, "--run-id", "first", "-p", "cutover=auto").exit == 0
    )

    def lost(*_: Any) -> None:
        raise httpx.ConnectError("all connection attempts failed")

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "cutover_task", lost)
        ended = command(capsys, "run", "chroma-to-pgvector", "-p", source, "--run-id", "r", "--json")
    assert (ended.exit, ended.json["exit"], ended.json["state"]) == (1, 1, "verified")
    assert command(capsys, *shlex.split(ended.json["next"])[1:]).exit == 0
    assert ledger.get(connection, "r").state == "cut_over"


def test_a_live_table_that_was_not_caught_up_is_not_done(
    connection: Connection, switched: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is switched is caught up by `run`; without that, exit 1."""

    def lost(*_: Any) -> None:
        raise httpx.ConnectError("all connection attempts failed")

    asked = ("run", "text-384-to-1536", "--run-id", "r")
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "follow", lost)
        assert command(capsys, *asked).exit == 1
    assert command(capsys, *asked).exit == 0


@pytest.mark.parametrize("live", sampled([False, True], True))
def test_an_interruption_is_over_when_the_next_verb_begins(
    connection: Connection, request: pytest.FixtureRequest, chroma_dir: Callable[..., str], live: bool
) -> None:
    """A verb that was told to stop stops no later one: verify and catch-up go on after Ctrl-C and after a refusal."""
    if live:
        request.getfixturevalue("switched")
        connection.execute("UPDATE docs SET content = 'changed' WHERE id = 3")
    else:
        chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")
    for reason in ("run r was interrupted", "run r has ended: cutover refused"):
        checkpoints.request_stop(connection, "r", reason)
        ledger.set_error(connection, "r", reason)
        assert verify_flow(run_id="r")["exit"] == 0
        checkpoints.request_stop(connection, "r", reason)
        assert catch_up(run_id="r")["exit"] == 0
        assert ledger.get(connection, "r").error is None


def test_two_cutovers_at_once(
    connection: Connection, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run is, is read once nobody else can change it: the second finds it switched, and it can be taken back."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")
    hold, first = running.sole_runner, [True]

    def late(url: str, run_id: str) -> Any:
        if first.pop() if first else False:
            assert cutover(run_id="r")["state"] == "cut_over"
        return hold(url, run_id)

    monkeypatch.setattr(running, "sole_runner", late)
    assert cutover(run_id="r")["state"] == "cut_over"
    assert ledger.get(connection, "r").state == "cut_over"
    assert "public.docs was removed" in rollback(run_id="r")["done"][0]


@pytest.mark.parametrize("live", sampled([False, True], True))
def test_of_a_run_that_was_dropped_nothing_is_done(
    connection: Connection,
    request: pytest.FixtureRequest,
    chroma_dir: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    live: bool,
) -> None:
    """Rolled back and contracted: run, cutover, catch-up and verify exit with 2 and say so, before and after a switch."""
    if live:
        request.getfixturevalue("switched")
    else:
        chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")
    flow = ledger.get(connection, "r").plan.request.flow
    assert rollback(run_id="r")["state"] == "rolled_back"
    assert command(capsys, "contract", "r", "--yes").exit == 0
    before = everything(connection)
    for verb in (("run", flow, "--run-id"), ("cutover",), ("catch-up",), ("verify",)):
        ended = command(capsys, *verb, "r")
        assert (ended.exit, "✓" in ended.out) == (2, False), (verb, ended)
        assert "start a new run" in ended.complaint or "dropped" in ended.complaint
    assert everything(connection) == before


def test_a_refused_verb_shows_no_earlier_checks(
    connection: Connection, database: str, chroma_dir: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of ✓ is of this verb's own verification, or there is none."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")
    with holding.sole_runner(database, "r"):
        for verb in ("cutover", "verify"):
            ended = command(capsys, verb, "r")
            assert (ended.exit, "✓" in ended.out, "rows loaded" in ended.out) == (2, False, False), ended
    assert "✓" in command(capsys, "verify", "r").out


def test_a_batch_that_was_to_be_loaded_again_is_not_forgotten(
    connection: Connection, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rerun that is stopped leaves its run failed, not verified with a batch missing."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=30)}, run_id="r", batch_rows=10)

    def broken(*_: Any, **__: Any) -> Any:
        raise FatalError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "read_part", broken)
        with pytest.raises(FatalError):
            chroma_to_pgvector(run_id="r", batch_ids=[1])
    assert ledger.get(connection, "r").state == "failed"
    assert chroma_to_pgvector(run_id="r")["targets"][0]["loaded"] == 30


def test_the_older_of_two_runs_takes_nothing_from_the_newer(
    connection: Connection, chroma_dir: Callable[..., str]
) -> None:
    """Two runs that made the same table: only the one that is live is rolled back, then the one before it."""
    source = {"chroma": {"path": chroma_dir(count=20)}}
    for run_id in ("a", "b"):
        chroma_to_pgvector(**source, run_id=run_id)
    for run_id in ("a", "b"):
        cutover(run_id=run_id)
    with pytest.raises(UsageError, match="vecferry rollback b"):
        rollback(run_id="a")
    assert "earlier table again" in rollback(run_id="b")["done"][0]
    assert "was removed" in rollback(run_id="a")["done"][0]


def test_what_a_verification_found_is_in_the_status(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Of a run that is switched too, until a later verb finds it mended."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r", cutover="auto")
    connection.execute("CREATE TABLE kept AS SELECT * FROM docs WHERE id = 'row-0000007'")
    connection.execute("DELETE FROM docs WHERE id = 'row-0000007'")
    with pytest.raises(VerificationRefused):
        verify_flow(run_id="r")
    outcome = status.outcome(connection, "r")
    assert (outcome.state, "missing" in str(outcome.error)) == ("cut_over", True)
    connection.execute("INSERT INTO docs SELECT * FROM kept")
    assert verify_flow(run_id="r")["error"] is None


def test_a_snapshot_alone_is_not_rerun(
    connection: Connection,
    chroma_dir: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """rerun would go on to the end; a backup that is complete is no failure in the status."""
    asked = ("chroma-to-pgvector", "-p", f"chroma.path={chroma_dir(count=20)}", "--run-id", "r")

    def broken(*_: Any, **__: Any) -> Any:
        raise FatalError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_part", broken)
        assert command(capsys, "snapshot", *asked).exit == 1
    ended = command(capsys, "rerun", "r")
    assert (ended.exit, "vecferry snapshot chroma-to-pgvector --run-id r" in ended.complaint) == (2, True)
    assert command(capsys, "snapshot", *asked).exit == 0
    assert command(capsys, "status", "r", "--json").json["exit"] == 0
