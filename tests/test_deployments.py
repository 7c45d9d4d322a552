"""The deployments on a real Prefect server with a real worker, started as `make ui` starts them."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import chromadb
import httpx
import psycopg
import pytest
import yaml

from flows import ui
from tasks.runs import checkpoints, ledger, status
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import connect
from tests import faults, live
from tests.data import records_of
from tests.servers import free_port

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[1]
UNDER_WAY = ("PENDING", "RUNNING", "CANCELLING")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
READABLE = re.compile(
    r"plan \S+|list ids, pass \d+|(snapshot|load) batch(es)? \d+( to \d+)?"
    r"|write the manifest|make (shadows|keys)|cut into batches|[a-z][a-z -]* \S+"
)


class Api(httpx.Client):
    """Prefect's REST API, so that nothing of this process's own Prefect settings is in the way."""

    def ask(self, method: str, path: str, **content: Any) -> Any:
        for _ in range(20):  # a busy server says 503, and Prefect's own client asks again too
            if (answer := self.request(method, path, json=content or None)).status_code != 503:
                break
            time.sleep(0.5)
        return answer.raise_for_status().json() if answer.content else None

    def deployment(self, name: str) -> Any:
        return self.ask("GET", f"deployments/name/{name}")

    def start(self, name: str, **content: Any) -> str:
        return str(self.ask("POST", f"deployments/{self.deployment(name)['id']}/create_flow_run", **content)["id"])

    def ended(self, run: str, seconds: float = 250, states: tuple[str, ...] = ENDED) -> Any:
        until = time.monotonic() + seconds
        while (found := self.ask("GET", f"flow_runs/{run}"))["state_type"] not in states:
            assert time.monotonic() < until, f"{found['name']} is still {found['state_name']} after {seconds} s"
            time.sleep(0.3)
        return found

    def artifact(self, key: str) -> Any:
        """The latest artifact of that key."""
        found = self.ask("POST", "artifacts/filter", artifacts={"key": {"any_": [key]}}, sort="CREATED_DESC")
        assert found, f"there is no artifact {key}"
        return found[0]

    def runs(self, name: str, states: tuple[str, ...] = ENDED) -> list[Any]:
        """The runs of a deployment that are over, in the order of their schedule."""
        where = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}}
        over = {"state": {"type": {"any_": list(states)}}}
        return list(self.ask("POST", "flow_runs/filter", **where, flow_runs=over, sort="EXPECTED_START_TIME_ASC"))

    @contextmanager
    def every(
        self, seconds: float, name: str, overrides: dict[str, Any] | None = None, **parameters: Any
    ) -> Iterator[datetime]:
        """A deployment's own schedule, edited and switched on as a person does it in the UI; off again afterwards.
        ``overrides`` are the schedule's own."""
        begun = datetime.now(UTC)
        found = self.deployment(name)
        edited = {"slug": found["schedules"][0]["slug"], "schedule": {"interval": seconds}}
        given = {"parameters": overrides} if overrides else {}
        self.edit(
            name, parameters={**found["parameters"], **parameters}, schedules=[{**edited, **given, "active": True}]
        )
        try:
            yield begun
        finally:
            none: dict[str, Any] = {"parameters": {}} if overrides else {}
            self.edit(name, parameters=found["parameters"], schedules=[{**edited, **none, "active": False}])
            until = time.monotonic() + 120
            while under_way := self.runs(name, UNDER_WAY):  # else the next test would take it for its own
                assert time.monotonic() < until, under_way[0]["state"]
                time.sleep(0.2)

    def edit(self, name: str, **content: Any) -> None:
        self.ask("PATCH", f"deployments/{self.deployment(name)['id']}", **content)

    def fired(self, name: str, after: datetime, seconds: float = 120) -> Any:
        """The first run of a deployment that began after ``after`` and is over, those aside that were cancelled."""
        until = time.monotonic() + seconds
        while True:
            for run in self.runs(name):
                begun = run["start_time"] and datetime.fromisoformat(run["start_time"])
                if run["state_type"] != "CANCELLED" and begun and begun > after:
                    return run
            assert time.monotonic() < until, f"{name} has fired nothing that ended after {seconds} s"
            time.sleep(0.2)

    def task_names(self, run: str) -> list[str]:
        return list(self.task_states(run))

    def task_states(self, run: str) -> dict[str, str]:
        found = self.ask("POST", "task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {t["name"]: t["state_type"] for t in found}


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with the deployments of prefect.yaml and a worker, whose DATABASE_URL is an empty database; NIGHTLY_URL is
    another, for what schedules bring."""
    name, port = f"t_{uuid.uuid4().hex[:12]}", free_port()
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        for database in (name, f"{name}_nightly"):
            connection.execute(f"CREATE DATABASE {database} TEMPLATE with_vector")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("DATABASE_URL", postgres(name))
        patch.setenv("NIGHTLY_URL", postgres(f"{name}_nightly"))
        patch.setenv("VECFERRY_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("VECFERRY_RETRY_SECONDS", "0.05")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        patch.delenv("PREFECT_HOME", raising=False)
        with ui.serving(port), Api(base_url=f"http://127.0.0.1:{port}/api/", timeout=60) as client:
            yield client


@pytest.fixture
def flaky(chroma_server: int) -> Iterator[faults.Faults]:
    """A proxy before a Chroma server with 2,400 records; it answers 503 to whoever asks for row 601.

    Planning samples every second record, and so does not ask for it."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(2_400))
    with faults.before(chroma_server) as proxy:
        proxy.refuse("/get", '"row-0000601"')
        yield proxy


@pytest.mark.slow
def test_a_failed_batch_is_rerun_with_the_parameters_shown(api: Api, flaky: faults.Faults) -> None:
    """`manual` ends Failed and names the batch, the others done; `rerun-failed` with the parameters of the artifact
    ends Completed, with every row there."""
    source = {"host": "127.0.0.1", "port": flaky.port}
    asked = {"chroma": source, "run_id": "planted", "batch_rows": 160, "cutover": "auto"}
    run = api.ended(api.start("chroma-to-pgvector/manual", parameters=asked))

    assert run["state_type"] == "FAILED"
    assert "1 batch failed in snapshot: 3 " in run["state"]["message"]
    assert run["name"] == "chroma-to-pgvector · planted"
    assert len(flaky.refused) == 5, "one try and four retries"
    assert _status("snapshot") == {n: "failed" if n == 3 else "done" for n in range(15)}
    (failed,) = [name for name, state in api.task_states(run["id"]).items() if state == "FAILED"]
    numbers = [int(number) for number in re.findall(r"\d+", failed.removeprefix("snapshot batch"))]
    assert numbers[0] <= 3 <= numbers[-1]
    assert 0 < api.artifact("planted-snapshot")["data"] < 100

    shown = api.artifact("planted-rerun")
    parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
    assert parameters["batch_ids"] == [3]
    assert [json.loads(row["rerun with"]) for row in json.loads(shown["data"])] == [parameters]

    flaky.heal()
    again = api.ended(api.start("chroma-to-pgvector/rerun-failed", parameters=parameters))

    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    assert again["name"] == run["name"]
    for stage in ("snapshot", "load"):
        assert _status(stage) == dict.fromkeys(range(15), "done")
    for stage in ("snapshot", "load", "index", "catch-up", "verify"):
        assert api.artifact(f"planted-{stage}")["data"] == 100, stage
    assert "docs" in api.artifact("planted-verification")["data"]
    assert len(json.loads(api.artifact("planted-batches")["data"])) == 30
    names = api.task_names(again["id"])
    assert any(re.fullmatch(r"load batch(es)? \d+( to \d+)?", name) for name in names), names
    assert not [name for name in names if not READABLE.fullmatch(name)]

    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM docs").fetchone() == (2_400, 2_400)
        assert ledger.get(connection, "planted").state == "cut_over"


@pytest.mark.slow
@pytest.mark.parametrize(("approve", "state"), [(True, "cut_over"), (False, "verified")])
def test_ask_waits_for_the_answer_of_a_person(api: Api, chroma_server: int, approve: bool, state: str) -> None:
    """`cutover=ask` frees the worker and shows a form that names the tables; the answer switches them, with what was
    written while it was waited for, or leaves the run verified."""
    store, table = chroma.connect(host="127.0.0.1", port=chroma_server), f"asked_{state}"
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(60))
    source = {"host": "127.0.0.1", "port": chroma_server}
    asked = {"chroma": source, "tables": {"docs": table}, "cutover": "ask"}
    run = api.start("chroma-to-pgvector/manual", parameters=asked)

    waiting = api.ended(run, states=(*ENDED, "PAUSED"))
    assert waiting["state_name"] == "Suspended", waiting["state"]
    run_id = waiting["name"]  # nobody named it: the answer must find it again
    keys = waiting["state"]["state_details"]["run_input_keyset"]
    until = time.monotonic() + 30
    while (form := api.get(f"flow_runs/{run}/input/{keys['description']}")).status_code == 404:
        assert time.monotonic() < until, "the form has no description"  # Prefect stores it after the state
        time.sleep(0.2)
    assert f"public.{table}" in form.text
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        outcome = status.outcome(connection, run_id)
    assert (outcome["state"], outcome["now"], outcome["exit"]) == ("verified", "waiting for approval", 0)
    store.write("docs", records_of(61))
    api.ask("POST", f"flow_runs/{run}/resume", run_input={"approve": approve})

    found = api.ended(run)
    assert found["state_type"] == "COMPLETED", found["state"]
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert ledger.get(connection, run_id).state == state
        there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
        assert there == (approve,)
        if approve:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (61,)
        assert status.outcome(connection, run_id)["now"] is None
    if not approve:
        assert found["state"]["message"] == "not approved: left verified"
        assert "not approved: left verified" in api.artifact(f"{run_id}-result")["data"]
        return
    assert found["state"]["message"].startswith(f"cut over: docs → public.{table}: 60 rows loaded")
    synced = api.ended(api.start("chroma-to-pgvector/manual", parameters={**asked, "run_id": "nothing-new"}))
    assert synced["state"]["message"] == f"cut over: docs → public.{table}: synced in place, 0 changed"
    back = api.ended(api.start("rollback/rollback", parameters={"run_id": "nothing-new"}))
    assert back["state"]["message"] == f"public.{table}: 0 rows put back, 0 taken out again"
    assert back["state"]["message"] in api.artifact("nothing-new-result")["data"]


@pytest.mark.slow
def test_a_verification_that_fails_is_shown(api: Api, chroma_server: int) -> None:
    """The checks are an artifact whether they hold or not, and the task that made them is red. Retry goes on with the same
    run, which nobody named: nothing is migrated a second time, or by another name."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(30))
    store.client.get_collection("docs").upsert(ids=["bad"], embeddings=[[1.0] * 8], documents=["a\0b"])
    asked = {"chroma": {"host": "127.0.0.1", "port": chroma_server}, "tables": {"docs": "refused"}}
    run = api.ended(api.start("chroma-to-pgvector/manual", parameters=asked))
    assert run["state_type"] == "FAILED"
    name = run["name"]
    assert "gates.max_quarantined" in run["state"]["message"]
    assert "| ❌ | quarantined | public.refused | 1 ('bad') | ≤ 0 |" in api.artifact(f"{name}-verification")["data"]
    assert [n for n, s in api.task_states(run["id"]).items() if s == "FAILED"] == [f"verify {name}"]

    retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    api.ask("POST", f"flow_runs/{run['id']}/set_state", state=retry, force=True)
    again = api.ended(run["id"])
    assert (again["run_count"], again["name"]) == (2, run["name"])
    assert "gates.max_quarantined" in again["state"]["message"]
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert [n for n in ledger.run_ids(connection) if n.endswith(run["id"][-8:])] == [name]
        assert [b.attempts for b in checkpoints.batches(connection, name, "load")] == [1]


@pytest.mark.slow
def test_live_tables_from_the_deployments(api: Api) -> None:
    """`manual` ends Failed with the batch that a trigger of the user's refuses, `rerun-failed` with the parameters of the
    artifact finishes and switches it, `scheduled` with a finished run looks at it, and `catch-up` brings what came later."""
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        connection.execute("DROP TABLE IF EXISTS docs")  # what another test migrated
        live.make_table(connection, 60)
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'row 7 is frozen'; END $$; "
            "CREATE TRIGGER frozen BEFORE UPDATE ON docs FOR EACH ROW WHEN (OLD.id = 7) EXECUTE FUNCTION refuse()"
        )
        targets = [{"table": "docs", "text": "content"}]
        asked = {
            "targets": targets,
            "embedder": "hashing/1536",
            "run_id": "frozen",
            "batch_rows": 10,
            "cutover": "auto",
        }
        run = api.ended(api.start("text-384-to-1536/manual", parameters=asked))
        assert run["state_type"] == "FAILED"
        assert "1 batch failed in load: 0 (RaiseException: row 7 is frozen" in run["state"]["message"]

        shown = api.artifact("frozen-rerun")
        parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
        assert parameters["batch_ids"] == [0]
        connection.execute("DROP TRIGGER frozen ON docs")
        again = api.ended(api.start("text-384-to-1536/rerun-failed", parameters=parameters))
        assert again["state_type"] == "COMPLETED", again["state"]["message"]
        assert live.faults(connection) == []
        assert not [name for name in api.task_names(again["id"]) if not READABLE.fullmatch(name)]

        looked = api.ended(api.start("text-384-to-1536/scheduled", parameters={"targets": targets, "run_id": "frozen"}))
        assert looked["state_type"] == "COMPLETED", looked["state"]["message"]

        connection.execute("UPDATE docs SET content = 'changed later' WHERE id = 9")
        assert live.faults(connection) == ["9 is stale"]
        caught_up = api.ended(api.start("catch-up/catch-up", parameters={"run_id": "frozen"}))
        assert caught_up["state_type"] == "COMPLETED", caught_up["state"]["message"]
        assert live.faults(connection) == []


CHROMA, TEXT = "chroma-to-pgvector/scheduled", "text-384-to-1536/scheduled"
EVERY = 4.0
"""Seconds; a run takes longer, so that one is due while another is going."""


@pytest.mark.slow
def test_a_schedule_fires_by_itself_and_brings_the_difference(api: Api, chroma_server: int) -> None:
    """The sync of collections fires by itself: the first run loads, a later one brings exactly what changed meanwhile, each
    under a name of its own; one that is due while another is going is cancelled. A schedule that names a run which is
    finished says so."""
    collection = Collection("docs", "", 0, 8, "cosine")
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(collection)
    store.write("docs", records_of(60))
    source = {"host": "127.0.0.1", "port": chroma_server}
    with api.every(EVERY, CHROMA, chroma=source, database="NIGHTLY_URL", tables={"docs": "nightly"}) as begun:
        first = api.fired(CHROMA, begun)
        assert first["state_type"] == "COMPLETED", first["state"]["message"]
        store.write("docs", records_of(2, start=60))
        store.write("docs", records_of(1, seed=9))
        other = chromadb.HttpClient("127.0.0.1", chroma_server).get_collection("docs", embedding_function=None)
        other.delete(ids=["row-0000005"])
        second = api.fired(CHROMA, datetime.now(UTC))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        names = [run["name"] for run in (first, second)]
        for run, name in zip((first, second), names, strict=True):
            assert re.fullmatch(r"chroma-to-pgvector-\d{8}-\d{6}-" + run["id"][-8:], name)
        brought = status.outcome(connection, names[1])["targets"][0]["touched"]
        assert brought == {"inserted": 2, "updated": 1, "deleted": 1}
        assert connection.execute("SELECT count(*) FROM nightly").fetchone() == (61,)
    same = {"chroma": source, "database": "NIGHTLY_URL", "tables": {"docs": "nightly"}, "run_id": names[0]}
    with api.every(EVERY, CHROMA, **same) as begun:
        third = api.fired(CHROMA, begun)
    assert third["state_type"] == "FAILED", "a night of a run that is finished is not green"
    assert f"run {names[0]} is cut over, so there is nothing left to do by that name" in third["state"]["message"]
    cancelled = [run for run in api.runs(CHROMA) if run["state_type"] == "CANCELLED" and run["auto_scheduled"]]
    assert cancelled, "none was due while another was going"
    assert {run["state"]["message"] for run in cancelled} == {"Deployment concurrency limit reached."}


@pytest.mark.slow
def test_a_schedule_of_live_tables_finds_the_run_that_owns_the_vectors(api: Api) -> None:
    """The first run of the schedule migrates and switches a live table; a later one, which names no run either, brings what
    was written meanwhile into its vectors, and says so; there is one run in the ledger."""
    asked: Any = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536", "cutover": "auto"}
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        live.make_table(connection, 60)
        with api.every(EVERY, TEXT, database="NIGHTLY_URL", **asked) as begun:
            first = api.fired(TEXT, begun)
            assert first["state_type"] == "COMPLETED", first["state"]["message"]
            connection.execute("UPDATE docs SET content = 'changed later' WHERE id = 9")
            connection.execute("INSERT INTO docs (id, content) VALUES (900, 'new'), (901, 'newer')")
            connection.execute("DELETE FROM docs WHERE id = 8")
            second = api.fired(TEXT, datetime.now(UTC))
            assert second["state_type"] == "COMPLETED", second["state"]["message"]
        (name,) = [run for run in ledger.run_ids(connection) if run.startswith("text-384-to-1536")]
        assert first["name"] == second["name"] == name
        what = "public.docs → public.docs.embedding_1536: 2 inserted, 1 updated, 1 deleted"
        assert second["state"]["message"] == f"caught up run {name}: {what}"
        assert live.faults(connection) == []


@pytest.mark.slow
def test_a_schedule_that_lacks_something_says_what_and_where(api: Api) -> None:
    """Switched on as it is shipped, a schedule's run ends Failed with what is missing and where in the UI that is set."""
    lacks = {
        CHROMA: "no source is given: chroma needs a path (a Chroma directory) or a host (a Chroma server)",
        TEXT: "there is no table bora_docs",
        "catch-up/catch-up": "parameter run_id is missing: name of the run",
    }
    with ExitStack() as on:
        begun = {name: on.enter_context(api.every(2, name, database="NIGHTLY_URL")) for name in lacks}
        runs = {name: api.fired(name, begun[name]) for name in lacks}
    for name, missing in lacks.items():
        assert runs[name]["state_type"] == "FAILED", runs[name]["state"]
        assert missing in runs[name]["state"]["message"]
        assert f"Deployments → {name} → ⋮ → Edit → Parameters" in runs[name]["state"]["message"]


@pytest.mark.slow
def test_what_a_schedule_leaves_empty_is_what_the_deployment_has(api: Api, chroma_server: int) -> None:
    """The V2 interface saves the empty fields of a schedule's dialog with it; its run takes what the deployment has."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(20))
    asked = {"chroma": {"host": "127.0.0.1", "port": chroma_server}, "tables": {"docs": "by_v2"}, "run_id": "by-v2"}
    blank = {"__prefect_kind": "json"}
    empty = {"run_id": None, "tables": blank, "metrics": blank, "chroma": {"path": None, "host": None, "token": None}}
    with api.every(2, CHROMA, empty, database="NIGHTLY_URL", **asked) as begun:
        run = api.fired(CHROMA, begun + timedelta(seconds=3))  # not one that an earlier test's schedule left
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["name"] == "chroma-to-pgvector · by-v2"
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        assert connection.execute("SELECT count(*) FROM by_v2").fetchone() == (20,)


@pytest.mark.slow
def test_deploying_again_keeps_what_was_set_in_the_ui(api: Api) -> None:
    """What `make ui` and work.sh do at every start makes what is missing and renews what belongs to the code; parameters,
    the schedule and whether it is active, and all else that a person set, stay."""
    before = api.deployment(CHROMA)
    cron = {"slug": "nightly", "active": True, "schedule": {"cron": "30 3 * * *", "timezone": "Europe/Berlin"}}
    own = {"parameters": {"chroma": {"path": "/data"}, "cutover": "manual"}, "tags": ["mine"], "concurrency_limit": 2}
    api.edit(CHROMA, **own, schedules=[cron], entrypoint="flows/gone.py:gone", description="of an older version")
    api.ask("DELETE", f"deployments/{api.deployment('restore/restore')['id']}")

    lines = _deploy(api)

    assert f"updated {CHROMA}" in lines
    assert "made restore/restore" in lines
    assert sum(line.startswith("unchanged ") for line in lines) == len(_yaml("prefect.yaml")["deployments"]) - 2
    after = api.deployment(CHROMA)
    for name in ("entrypoint", "description", "parameter_openapi_schema", "pull_steps"):
        assert after[name] == before[name], name
    assert {name: after[name] for name in ("parameters", "tags")} == {n: own[n] for n in ("parameters", "tags")}
    assert after["global_concurrency_limit"]["limit"] == 2
    (schedule,) = after["schedules"]
    assert (schedule["active"], schedule["slug"], schedule["schedule"]["cron"]) == (True, "nightly", "30 3 * * *")
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"

    shipped = {"slug": "nightly", "active": False, "schedule": before["schedules"][0]["schedule"]}
    kept = {name: before[name] for name in ("parameters", "tags")}
    api.edit(CHROMA, **kept, concurrency_limit=1, schedules=[shipped])


@pytest.mark.slow
def test_every_field_of_every_form_has_help(api: Api) -> None:
    """Each deployment has a description, and each field of its form too, nested ones included."""
    found = api.ask("POST", "deployments/filter")
    assert {d["name"] for d in found} == {d["name"] for d in _yaml("prefect.yaml")["deployments"]}
    for deployment in found:
        schema = deployment["parameter_openapi_schema"]
        forms = [schema, *schema.get("definitions", {}).values()]
        fields = {name: field for form in forms for name, field in form["properties"].items()}
        assert deployment["description"]
        assert [name for name, field in fields.items() if not field.get("description")] == []


@pytest.mark.slow
def test_a_parameter_that_there_is_not_makes_no_run(api: Api) -> None:
    """A typing error is refused where it is made, and not by a run that crashes without a word."""
    refused = api.post(
        f"deployments/{api.deployment(CHROMA)['id']}/create_flow_run", json={"parameters": {"colections": ["docs"]}}
    )
    assert refused.status_code == 409
    assert "'colections' was unexpected" in refused.text


@pytest.mark.slow
def test_the_schedule_is_off_and_one_run_goes_at_a_time(api: Api) -> None:
    """The nightly sync is shipped inactive, and a second run is cancelled while one is going."""
    for name in ("chroma-to-pgvector/scheduled", "text-384-to-1536/scheduled", "catch-up/catch-up"):
        assert [s["active"] for s in api.deployment(name)["schedules"]] == [False], name
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    due = {"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}}
    first, second = (api.start("chroma-to-pgvector/scheduled", state=due) for _ in range(2))
    for run in (first, second):  # what a worker does when a run is due
        api.ask("POST", f"flow_runs/{run}/set_state", state={"type": "PENDING"}, force=False)
    assert api.ask("GET", f"flow_runs/{first}")["state_type"] == "PENDING"
    assert api.ask("GET", f"flow_runs/{second}")["state_type"] == "CANCELLED"


@pytest.mark.slow
def test_the_automation_for_zombie_runs_is_on(api: Api) -> None:
    """A run that is killed without a word is marked Crashed; the wait is three of Prefect's default heartbeats or more."""
    (found,) = api.ask("POST", "automations/filter")
    assert found["enabled"]
    assert found["name"] == "Crash zombie runs"
    assert found["trigger"]["within"] >= 3 * 180


def test_compose_has_no_password_and_checks_its_databases() -> None:
    """Every password comes from the environment with no default, and what others wait for has a health check."""
    text = (ROOT / "deployments" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "chroma", "prefect", "worker"}
    assert set(re.findall(r"\$\{(\w*PASSWORD\w*)(.*?)\}", text)) == {("POSTGRES_PASSWORD", ":?set POSTGRES_PASSWORD")}
    for service in services.values():
        for needed, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "shm_size" in services["postgres"]


MEMORY = {
    "shared_buffers": ("POSTGRES_SHARED_BUFFERS", "256MB"),
    "effective_cache_size": ("POSTGRES_EFFECTIVE_CACHE_SIZE", "1GB"),
    "work_mem": ("POSTGRES_WORK_MEM", "64MB"),
    "maintenance_work_mem": ("POSTGRES_MAINTENANCE_WORK_MEM", "128MB"),
}


def test_compose_takes_the_memory_of_postgresql_from_the_environment() -> None:
    """The four settings have the names and the defaults of the guide, and each is handed to the server once."""
    command = _yaml("compose.yaml")["services"]["postgres"]["command"]
    given = dict(argument.split("=", 1) for argument in command if "=" in argument)
    assert {name: given[name] for name in MEMORY} == {
        name: f"${{{variable}:-{default}}}" for name, (variable, default) in MEMORY.items()
    }


@pytest.mark.parametrize("profile", ["development", "production"])
def test_a_profile_names_its_services_and_its_memory(profile: str) -> None:
    """Each profile's file switches it on and sets all four; what its services wait for is there, or need not be."""
    lines = (ROOT / "deployments" / f"{profile}.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given.pop("COMPOSE_PROFILES") == profile
    assert sorted(given) == sorted(variable for variable, _ in MEMORY.values()), "and no password"
    assert all(re.fullmatch(r"\d+(MB|GB)", value) for value in given.values())
    if profile == "development":
        assert given == dict(MEMORY.values())
    else:
        assert given["POSTGRES_SHARED_BUFFERS"] == "1GB"
    services = _yaml("compose.yaml")["services"]
    there = {name for name, service in services.items() if profile in service["profiles"]}
    assert there == {"postgres", "prefect", "worker"} | ({"chroma"} if profile == "development" else set())
    for name in there:
        for needed, condition in services[name].get("depends_on", {}).items():
            assert needed in there or condition.get("required") is False, f"{name} waits for {needed}"


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / "deployments" / name).read_text())


def _deploy(api: Api) -> list[str]:
    """What `python -m flows.deploy` says."""
    environment = os.environ | {"PREFECT_API_URL": str(api.base_url).rstrip("/")}
    command = [sys.executable, "-m", "flows.deploy"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _status(stage: str) -> dict[int, str]:
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        return {b.number: b.status for b in checkpoints.batches(connection, "planted", stage)}
