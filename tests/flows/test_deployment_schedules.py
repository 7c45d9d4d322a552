"""The deployments as they are shipped, and their schedules, on a real Prefect server with a real worker, started as `make ui` starts
them."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import chromadb
import pytest
import yaml

from tasks.runs import ledger, status
from tasks.runs.outcome import Touched
from tasks.stores.chroma import store as chroma
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import connect
from tests.helpers import live
from tests.helpers.data import records_of
from tests.helpers.deployed import AN_HOUR, CHROMA, ENDED, ROOT, TEXT, Api, deployed

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

EVERY = 4.0
"""Seconds; a run takes longer, so that one is due while another is going."""


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with deployed(postgres, tmp_path_factory.mktemp("home")) as client:
        yield client


def test_a_schedule_fires_by_itself(api: Api, chroma_server: int) -> None:
    """The sync of collections is run by the worker, under a name of its own."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(20))
    source = {"host": "127.0.0.1", "port": chroma_server}
    with api.every(AN_HOUR, CHROMA, chroma=source, database="NIGHTLY_URL", tables={"docs": "hourly"}) as begun:
        run = api.fired(CHROMA, begun)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert re.fullmatch(r"chroma-to-pgvector-\d{8}-\d{6}-" + run["id"][-8:], run["name"])
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        assert connection.execute("SELECT count(*) FROM hourly").fetchone() == (20,)


@pytest.mark.whole
def test_a_schedule_fires_by_itself_and_brings_the_difference(api: Api, chroma_server: int) -> None:
    """The sync of collections fires by itself: the first run loads, a later one brings exactly what changed meanwhile, each
    under a name of its own; one that is due while another is going is cancelled."""
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
        brought = status.outcome(connection, names[1]).targets[0].touched
        assert brought == Touched(inserted=2, updated=1, deleted=1)
        assert connection.execute("SELECT count(*) FROM nightly").fetchone() == (61,)
    cancelled = [run for run in api.runs(CHROMA) if run["state_type"] == "CANCELLED" and run["auto_scheduled"]]
    assert cancelled, "none was due while another was going"
    assert {run["state"]["message"] for run in cancelled} == {"Deployment concurrency limit reached."}


@pytest.mark.whole
def test_a_schedule_that_names_a_finished_run_says_so(api: Api, chroma_server: int) -> None:
    """A night in which nothing was done is not green."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(20))
    asked = {"chroma": {"host": "127.0.0.1", "port": chroma_server}, "tables": {"docs": "once"}, "run_id": "once"}
    with api.every(EVERY, CHROMA, database="NIGHTLY_URL", **asked) as begun:
        first = api.fired(CHROMA, begun)
        assert first["state_type"] == "COMPLETED", first["state"]["message"]
        second = api.fired(CHROMA, datetime.now(UTC))
    assert second["state_type"] == "FAILED"
    assert "run once is cut over, so there is nothing left to do under that name" in second["state"]["message"]


@pytest.mark.whole
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


@pytest.mark.whole
def test_a_schedule_that_lacks_something_says_what_and_where(api: Api) -> None:
    """Switched on as it is shipped, a schedule's run ends Failed with what is missing and where in the UI that is set."""
    lacks = {
        CHROMA: "no source is given: set chroma.path (a Chroma directory) or chroma.host (a Chroma server)",
        TEXT: "there is no table bora_docs",
        "catch-up/catch-up": "parameter run_id is missing: name of the run",
    }
    with ExitStack() as on:
        begun = {name: on.enter_context(api.every(AN_HOUR, name, database="NIGHTLY_URL")) for name in lacks}
        fired = {name: api.fired(name, begun[name], ("RUNNING", *ENDED)) for name in lacks}
    runs = {name: api.ended(run["id"]) for name, run in fired.items()}  # switched off meanwhile, so that no more begin
    for name, missing in lacks.items():
        assert runs[name]["state_type"] == "FAILED", runs[name]["state"]
        assert missing in runs[name]["state"]["message"]
        assert f"Deployments → {name} → ⋮ → Edit → Parameters" in runs[name]["state"]["message"]


@pytest.mark.whole
def test_what_a_schedule_leaves_empty_is_what_the_deployment_has(api: Api, chroma_server: int) -> None:
    """The V2 interface saves the empty fields of a schedule's dialog with it; its run takes what the deployment has."""
    store = chroma.connect(host="127.0.0.1", port=chroma_server)
    store.create(Collection("docs", "", 0, 8, "cosine"))
    store.write("docs", records_of(20))
    asked = {"chroma": {"host": "127.0.0.1", "port": chroma_server}, "tables": {"docs": "by_v2"}, "run_id": "by-v2"}
    blank = {"__prefect_kind": "json"}
    empty = {"run_id": None, "tables": blank, "metrics": blank, "chroma": {"path": None, "host": None, "token": None}}
    with api.every(AN_HOUR, CHROMA, empty, database="NIGHTLY_URL", **asked) as begun:
        run = api.fired(CHROMA, begun + timedelta(seconds=3))  # not one that an earlier test's schedule left
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["name"] == "chroma-to-pgvector · by-v2"
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        assert connection.execute("SELECT count(*) FROM by_v2").fetchone() == (20,)


def test_the_schedule_is_off_and_one_run_goes_at_a_time(api: Api) -> None:
    """The nightly sync is shipped inactive, and a second run is cancelled while one is going."""
    for name, deployment in api.shipped.items():
        assert [s["active"] for s in deployment["schedules"]] == [False], name
    api.as_shipped(CHROMA)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    due = {"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}}
    first, second = (api.start(CHROMA, state=due) for _ in range(2))
    for run in (first, second):  # what a worker does when a run is due
        api.ask("POST", f"flow_runs/{run}/set_state", state={"type": "PENDING"}, force=False)
    states = [api.ask("GET", f"flow_runs/{run}")["state_type"] for run in (first, second)]
    api.ask(
        "POST", f"flow_runs/{first}/set_state", state={"type": "CANCELLED"}, force=True
    )  # else it is under way for ever
    assert states == ["PENDING", "CANCELLED"]


def test_every_field_of_every_form_has_help(api: Api) -> None:
    """Each deployment has a description, and each field of its form too, nested ones included."""
    result = api.ask("POST", "deployments/filter")
    shipped = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())["deployments"]
    assert {d["name"] for d in result} == {d["name"] for d in shipped}
    for deployment in result:
        schema = deployment["parameter_openapi_schema"]
        forms = [schema, *schema.get("definitions", {}).values()]
        fields = {name: field for form in forms for name, field in form["properties"].items()}
        assert deployment["description"]
        assert [name for name, field in fields.items() if not field.get("description")] == []


def test_a_parameter_that_there_is_not_makes_no_run(api: Api) -> None:
    """A typing error is refused where it is made, and not by a run that crashes without a word."""
    refused = api.post(
        f"deployments/{api.deployment(CHROMA)['id']}/create_flow_run", json={"parameters": {"colections": ["docs"]}}
    )
    assert refused.status_code == 409
    assert "'colections' was unexpected" in refused.text


def test_the_automation_for_zombie_runs_is_on(api: Api) -> None:
    """A run that is killed without a word is marked Crashed; the wait is three of Prefect's default heartbeats or more."""
    (result,) = api.ask("POST", "automations/filter")
    assert result["enabled"]
    assert result["name"] == "Crash zombie runs"
    assert result["trigger"]["within"] >= 3 * 180
