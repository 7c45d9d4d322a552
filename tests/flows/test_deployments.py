"""The deployments on a real Prefect server with a real worker, started as `make ui` starts them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tasks.runs import checkpoints, ledger, status
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import connect
from tests.helpers import faults, live
from tests.helpers.data import records_of
from tests.helpers.deployed import CHROMA, ENDED, ROOT, Api, deployed

pytestmark = pytest.mark.timeout(900)

READABLE = re.compile(
    r"plan \S+|list ids, pass \d+|(snapshot|load) batch(es)? \d+( to \d+)?"
    r"|write the manifest|make (shadows|keys)|cut into batches|[a-z][a-z -]* \S+"
)


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with deployed(postgres, tmp_path_factory.mktemp("home")) as client:
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


@pytest.mark.whole
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
    second = api.ended(api.start("chroma-to-pgvector/rerun-failed", parameters=parameters))

    assert second["state_type"] == "COMPLETED", second["state"]["message"]
    assert second["name"] == run["name"]
    for stage in ("snapshot", "load"):
        assert _status(stage) == dict.fromkeys(range(15), "done")
    for stage in ("snapshot", "load", "index", "catch-up", "verify"):
        assert api.artifact(f"planted-{stage}")["data"] == 100, stage
    assert "docs" in api.artifact("planted-verification")["data"]
    assert len(json.loads(api.artifact("planted-batches")["data"])) == 30
    names = api.task_names(second["id"])
    assert any(re.fullmatch(r"load batch(es)? \d+( to \d+)?", name) for name in names), names
    assert not [name for name in names if not READABLE.fullmatch(name)]

    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM docs").fetchone() == (2_400, 2_400)
        assert ledger.get(connection, "planted").state == "cut_over"


@pytest.mark.slow
@pytest.mark.whole
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
    until = time.monotonic() + 120
    while (form := api.get(f"flow_runs/{run}/input/{keys['description']}")).status_code == 404:
        assert time.monotonic() < until, "the form has no description"  # Prefect stores it after the state
        time.sleep(0.2)
    assert f"public.{table}" in form.text
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        outcome = status.outcome(connection, run_id)
    assert (outcome.state, outcome.now, outcome.exit) == ("verified", "waiting for approval", 0)
    store.write("docs", records_of(61))
    api.ask("POST", f"flow_runs/{run}/resume", run_input={"approve": approve})

    result = api.ended(run)
    assert result["state_type"] == "COMPLETED", result["state"]
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert ledger.get(connection, run_id).state == state
        there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
        assert there == (approve,)
        if approve:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (61,)
        assert status.outcome(connection, run_id).now is None
    if not approve:
        assert result["state"]["message"] == "not approved: left verified"
        assert "not approved: left verified" in api.artifact(f"{run_id}-result")["data"]
        return
    assert result["state"]["message"].startswith(f"cut over: docs → public.{table}: 60 rows loaded")
    synced = api.ended(api.start("chroma-to-pgvector/manual", parameters={**asked, "run_id": "nothing-new"}))
    assert synced["state"]["message"] == f"cut over: docs → public.{table}: synced in place, 0 changed"
    back = api.ended(api.start("rollback/rollback", parameters={"run_id": "nothing-new"}))
    assert back["state"]["message"] == f"public.{table}: 0 rows put back, 0 taken out again"
    assert back["state"]["message"] in api.artifact("nothing-new-result")["data"]


@pytest.mark.whole
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
    second = api.ended(run["id"])
    assert (second["run_count"], second["name"]) == (2, run["name"])
    assert "gates.max_quarantined" in second["state"]["message"]
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        assert [n for n in ledger.run_ids(connection) if n.endswith(run["id"][-8:])] == [name]
        assert [b.attempts for b in checkpoints.batches(connection, name, "load")] == [1]


@pytest.mark.whole
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
        assert "1 batch failed in load: 0 (WriteRefused: public.docs: writing" in run["state"]["message"]
        assert "refused (row 7 is frozen), by the trigger frozen" in run["state"]["message"]

        shown = api.artifact("frozen-rerun")
        parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
        assert parameters["batch_ids"] == [0]
        connection.execute("DROP TRIGGER frozen ON docs")
        second = api.ended(api.start("text-384-to-1536/rerun-failed", parameters=parameters))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
        assert live.faults(connection) == []
        assert not [name for name in api.task_names(second["id"]) if not READABLE.fullmatch(name)]

        looked = api.ended(api.start("text-384-to-1536/scheduled", parameters={"targets": targets, "run_id": "frozen"}))
        assert looked["state_type"] == "COMPLETED", looked["state"]["message"]

        connection.execute("UPDATE docs SET content = 'changed later' WHERE id = 9")
        assert live.faults(connection) == ["9 is stale"]
        caught_up = api.ended(api.start("catch-up/catch-up", parameters={"run_id": "frozen"}))
        assert caught_up["state_type"] == "COMPLETED", caught_up["state"]["message"]
        assert live.faults(connection) == []


@pytest.mark.whole
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


def test_compose_has_no_password_and_checks_its_databases() -> None:
    """Every password comes from the environment with no default, and what others wait for has a health check."""
    text = (ROOT / "deployments" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"postgres", "chroma", "qdrant", "prefect", "worker", "service"}
    assert set(re.findall(r"\$\{(\w*PASSWORD\w*)(.*?)\}", text)) == {("POSTGRES_PASSWORD", ":?set POSTGRES_PASSWORD")}
    for service in services.values():
        for needed, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "shm_size" in services["postgres"]
    assert services["service"]["environment"]["VECFERRY_TOKEN"] == "${VECFERRY_TOKEN:-}", (
        "the service asks for one itself"
    )


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
    assert there == {"postgres", "prefect", "worker"} | ({"chroma", "qdrant"} if profile == "development" else set())
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
