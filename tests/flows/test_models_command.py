"""The verbs about models, as they are typed."""

import json
from collections.abc import Callable

import pytest

from flows.command import models as verbs
from flows.forms.form import parse
from flows.forms.models import ModelsInit, ModelsSetup, OfTables
from flows.served import asked_of, planned_init, planned_setup, wanted_of
from tasks.shadows.postgres.models import init, setup
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection
from tests.helpers.sent import recorded
from tests.planning.test_planned_sql import squeezed, unplanned

Vecferry = Callable[..., tuple[int, str, str]]


@pytest.fixture
def served(connection: Connection) -> Connection:
    """New tables with two models, and three chunks."""
    tables, _ = init.initialise(connection, asked_of(ModelsInit()))
    setup.set_up(connection, tables, wanted_of(ModelsSetup(models=["hashing/8", "hashing/4"])))
    connection.execute(
        "INSERT INTO documents (id, title) VALUES (1, 'a'); INSERT INTO document_chunks (id, document_id, chunk_index, content) "
        "SELECT n, 1, n, 'text' FROM generate_series(1, 3) n;"
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) SELECT id, 1, '[1,2,3,4,5,6,7,8]' FROM document_chunks"
    )
    return connection


def test_a_new_user_is_led_from_nothing_to_a_switch(vecferry: Vecferry, connection: Connection, prefect: None) -> None:
    """Each message names the next command; the verbs are Prefect flows."""
    status, _, error = vecferry("models", "status")
    assert (status, "`vecferry models init` prepares them" in error) == (2, True)
    assert vecferry("models", "init")[0] == 0
    status, out, _ = vecferry("models", "list")
    assert "vecferry models setup PROVIDER/MODEL adds one" in out
    status, out, _ = vecferry("models", "setup", "hashing/8", "hashing/4", "--json")
    assert "model 1: hashing/8" in json.loads(out)["done"]
    connection.execute(
        "INSERT INTO documents (id) VALUES (1); INSERT INTO document_chunks (document_id, chunk_index, content) VALUES (1, 1, 'a')"
    )
    status, _, error = vecferry("models", "activate", "4")
    assert status == 3
    assert "hashing/4 covers 0 of 1 chunk (0.0%)" in error
    assert (
        vecferry("models", "activate", "4", "--force")[1]
        == "hashing/4 is active; back: vecferry models activate hashing/8\n"
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("activate", "nobody"), "there are hashing/8 and hashing/4. `vecferry models setup PROVIDER/MODEL` adds one"),
        (
            ("activate", "nobody/8"),
            "there are hashing/8 and hashing/4. `vecferry models setup PROVIDER/MODEL` adds one",
        ),
        (("activate", "hashing/2"), "`vecferry models setup hashing/2` adds it"),
        (("activate", "all-mpnet-base-v2"), "`vecferry models setup all-mpnet-base-v2` adds it"),
        (
            ("setup", "-p", "similarity_threshold=0.30"),
            "named: vecferry models setup hashing/8 -p similarity_threshold=0.3",
        ),
    ],
)
def test_the_next_command_can_be_typed(
    served: Connection, vecferry: Vecferry, typed: tuple[str, ...], message: str
) -> None:
    """As it is told."""
    status, _, error = vecferry("models", *typed)
    assert (status, error.endswith(f"{message}\n")) == (2, True), error


@pytest.mark.parametrize("anew", [False, True])
def test_tables_that_were_dropped_by_hand(served: Connection, vecferry: Vecferry, prefect: None, anew: bool) -> None:
    """They are prepared like new ones, whether somebody has made them anew meanwhile; nothing is left of their models."""
    served.execute("DROP TABLE documents, document_chunks, chunk_embeddings CASCADE")
    if anew:
        served.execute(
            "CREATE TABLE documents (id bigint PRIMARY KEY, title text); CREATE TABLE document_chunks (id bigint PRIMARY KEY, "
            "document_id bigint REFERENCES documents, chunk_index int, content text); CREATE TABLE chunk_embeddings (chunk_id bigint "
            "PRIMARY KEY REFERENCES document_chunks, embedding vector(4)); INSERT INTO documents VALUES (1, 'a'); "
            "INSERT INTO document_chunks VALUES (1, 1, 1, 'a'); INSERT INTO chunk_embeddings VALUES (1, '[1,2,3,4]')"
        )
    for verb in (("models", "status"), ("models", "setup", "hashing/4"), ("search", "a")):
        status, _, error = vecferry(*verb)
        assert (status, "`vecferry models init` prepares them" in error) == (2, True), (verb, error)
    given = ("-p", "source_model=hashing/4", "-p", "replace_unique=true") if anew else ()
    status, _, error = vecferry("models", "init", *given)
    assert status == 2
    served.execute(error.partition("to prepare others: ")[2].encode())
    status, _, error = vecferry("models", "init", *given)
    assert status == 0, error
    if not anew:
        assert vecferry("models", "setup", "hashing/4")[0] == 0
    models = json.loads(vecferry("models", "list", "--json")[1])
    assert [(m["name"], m["with_vector"], m["chunks"]) for m in models] == [("hashing/4", int(anew), int(anew))]
    assert vecferry("search", "a")[0] == 0


def test_a_name_is_shown_whole(served: Connection, vecferry: Vecferry) -> None:
    """Whatever the width of the terminal: it is there to be copied."""
    name = "openai/text-embedding-3-large?dimensions=1536"
    assert vecferry("models", "setup", name)[0] == 0
    for verb in ("list", "status"):
        assert name in vecferry("models", verb)[1]


def test_a_key_is_needed_where_something_is_embedded(
    served: Connection, vecferry: Vecferry, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nowhere else: OpenAI's models are set up, shown, switched to and retired without one; a plan has all but the cost, and names
    the key as what stands in the way."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    long, short = "openai/text-embedding-3-large", "openai/text-embedding-3-small?dimensions=256"
    assert vecferry("models", "setup", "text-embedding-3-large", short)[0] == 0
    listed = {m["name"]: m["dimension"] for m in json.loads(vecferry("models", "list", "--json")[1])}
    assert (listed[long], listed[short]) == (3072, 256)
    assert vecferry("models", "setup", "openai/nobody")[0] == 2
    missing = "OPENAI_API_KEY is not set"
    status, out, error = vecferry("plan", "multi-model", "-p", f"target_model={long}")
    assert (status, missing in out + error, "3072" in out) == (2, True, True), (out, error)
    assert missing in vecferry("run", "multi-model", "-p", f"target_model={long}", "--run-id", "r")[2]
    assert missing in vecferry("search", "anything", "--model", long)[2]
    assert vecferry("models", "activate", long, "--force")[0] == 0
    assert vecferry("models", "retire", short)[0] == 0


def test_what_there_is(served: Connection, vecferry: Vecferry) -> None:
    """For people and for programs; `status --json` has the dimensions."""
    status, out, _ = vecferry("models", "status")
    assert status == 0
    assert "hashing/8           8  active    3 of 3 chunks  embedding_8" in out
    assert "idx_embeddings_hnsw_4  on embedding_4" in out
    read = json.loads(vecferry("models", "status", "--json")[1])
    assert read["dimensions"] == [4, 8]
    assert [(m["name"], m["missing"]) for m in read["models"]] == [("hashing/8", 0), ("hashing/4", 3)]
    assert json.loads(vecferry("models", "list", "--json")[1]) == read["models"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["setup", "foo"], "model 'foo' has no provider: write provider/foo"),
        (["activate", "foo"], "no model 'foo' is registered; there are hashing/8 and hashing/4"),
        (["status", "-p", "roles.chunks=nowhere"], "there are public.document_chunks"),
        (["init", "-p", "role=x"], "unknown parameter 'role': did you mean roles?"),
        (["init", "-p", "roles.chunks.txt=x"], "unknown parameter 'roles.chunks.txt'"),
    ],
)
def test_a_mistake_is_a_line(served: Connection, vecferry: Vecferry, given: list[str], line: str) -> None:
    """It names what is wrong and what there is, before Prefect is started."""
    status, _, error = vecferry("models", *given)
    assert status == 2
    assert line in error


def test_what_a_plan_shows_is_sent_and_nothing_else(connection: Connection) -> None:
    """Over the column that tables came with, and for models of new dimensions; the plan has written nothing."""
    connection.execute(
        "CREATE TABLE documents (id int PRIMARY KEY);"
        "CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int REFERENCES documents, content text);"
        "CREATE TABLE chunk_embeddings (chunk_id int UNIQUE REFERENCES document_chunks, embedding vector(8) NOT NULL)"
    )
    asked = parse(ModelsInit, {"source_model": "hashing/8", "replace_unique": True})
    shown = planned_init(asked)
    assert shown.problems == []
    assert connection.execute("SELECT to_regnamespace('vecferry')").fetchone() == (None,)
    with recorded() as statements:
        init.initialise(connection, asked_of(asked))
    lines = [line for line in shown.sql if not line.startswith("--")]
    assert "\n".join(unplanned(lines, statements)) == ""
    sent = squeezed(" ".join(one.text for one in statements))
    assert [line for line in lines if squeezed(line) not in sent] == []
    more = parse(ModelsSetup, {"models": ["hashing/4"]})
    shown = planned_setup(more)
    with recorded() as statements:
        setup.set_up(connection, model_tables.find(connection), wanted_of(more))
    lines = [line for line in shown.sql if not line.startswith("--")]
    assert "\n".join(unplanned(lines, statements)) == ""
    assert len(lines) > 5


def test_roles_are_read_as_names_or_in_parts() -> None:
    """`-p roles.chunks=passages`, or `-p roles.chunks.table=…` with its columns."""
    short = parse(OfTables, {"roles": {"chunks": "passages"}}).roles.resolved()
    assert short.chunks == {"table": "passages"}
    long = parse(OfTables, {"roles": {"chunks": {"table": "passages", "text": "words"}}}).roles.resolved()
    assert (long.chunks, long.documents) == ({"table": "passages", "text": "words"}, {})
    assert {command.name for command in verbs.app.registered_commands} == {
        "init",
        "setup",
        "list",
        "status",
        "activate",
        "retire",
    }


def test_a_role_without_rights_is_told_which(
    served: Connection, database: str, vecferry: Vecferry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it asks for: one that may search may not switch."""
    served.execute("DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    monkeypatch.setenv("DATABASE_URL", database.replace("postgres:@", "stranger:@"))
    for asked in (
        ["status"],
        ["activate", "8"],
        ["retire", "4"],
        ["setup", "hashing/8"],
        ["setup", "hashing/8", "--plan"],
    ):
        status, _, error = vecferry("models", *asked)
        assert status == 1
        assert "permission denied for schema vecferry; grant it to this role" in error
