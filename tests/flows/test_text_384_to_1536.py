"""Live tables onto another text model, through their whole life, in both layouts and with keys of every kind."""

import json
import os
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.variables import Variable
from psycopg import errors
from psycopg.pq import TransactionStatus

from flows.catch_up import catch_up
from flows.contract import contract
from flows.cutover import cutover
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import FatalError, UsageError, VerificationRefused
from tasks.embedders.hashing import HashingEmbedder
from tasks.planning.registry import make_plan
from tasks.runs import ledger
from tasks.runs.names import index_names
from tasks.stores.postgres import records, table as postgres
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import drive, drive_two
from tests.helpers.live_table import KEYS, LAYOUTS, NEW, OLD, Table, migration_of, text_vector
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.mark.parametrize(
    ("key", "layout"),
    sampled(product(KEYS, LAYOUTS), ("composite", "column")),
)
def test_lifecycle(connection: Connection, key: str, layout: str) -> None:
    """Plan, run, roll back, run, cut over, roll back, cut over and contract, with inserts, updates, deletes and reused keys."""
    drive(migration_of(Table(connection, key), layout))


@pytest.mark.parametrize(
    ("first", "second"),
    sampled(product(LAYOUTS, repeat=2)),
)
def test_one_migration_after_the_other(connection: Connection, first: str, second: str) -> None:
    """384 → 1536 → 768, in any layouts: the first serves until the second is switched, and after that is taken back."""
    table = Table(connection)
    columns = ("embedding_1536", "embedding_768")
    drive_two(migration_of(table, first), migration_of(table, second, "hashing/768", columns))


def test_the_search_function_serves_old_and_new_instances(connection: Connection) -> None:
    """Before the switch match_docs is as it was and match_docs_v2 is there; after it one name answers queries of either
    dimension, with its owner, grants and default argument; after a rollback it is as it was, to the letter."""
    Table(connection)
    connection.execute("DO $$ BEGIN CREATE ROLE app; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    connection.execute("REVOKE EXECUTE ON FUNCTION match_docs FROM PUBLIC; GRANT EXECUTE ON FUNCTION match_docs TO app")
    parameters: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
    text = "what row 7 says of topic 0, version 7"
    old, new = text_vector(OLD.embed([text]).whole[0]), text_vector(NEW.embed([text]).whole[0])

    def asked(function: str, query: str) -> list[Any]:
        return [row[0] for row in connection.execute(f"SELECT * FROM {function}(%s::vector, 0.1)", (query,))]

    def catalogue() -> Any:
        return connection.execute(
            "SELECT pg_get_functiondef(oid), proacl::text, pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'match_docs'"
        ).fetchone()

    before, result = catalogue(), asked("match_docs", old)
    assert text_384_to_1536(**parameters, run_id="one")["state"] == "verified"
    assert catalogue() == before
    assert connection.execute("SELECT id FROM match_docs_v2(%s, 0.1, 5)", (new,)).fetchall()[0] == (7,)

    assert cutover(run_id="one")["state"] == "cut_over"
    assert asked("match_docs", old) == result
    assert asked("match_docs", new)[0] == 7
    assert catalogue()[1:] == before[1:]
    with pytest.raises(errors.DataException, match="384 and 1536 dimensions, not 3"):
        asked("match_docs", "[1,2,3]")
    assert connection.execute("SELECT dimensions, column_name FROM vecferry.active_space").fetchall() == [
        (1536, "embedding_1536")
    ]
    assert Variable.get("vecferry_active_space_public_docs")["dimensions"] == 1536  # type: ignore[index,call-overload]

    assert rollback(run_id="one")["state"] == "rolled_back"
    assert catalogue() == before
    assert connection.execute("SELECT dimensions FROM vecferry.active_space").fetchall() == [(384,)]
    assert Variable.get("vecferry_active_space_public_docs")["dimensions"] == 384  # type: ignore[index,call-overload]
    assert asked("match_docs", old) == result


PAID: dict[str, Any] = {
    "targets": [{"table": "docs", "text": "content"}],
    "embedder": "openai/text-embedding-3-small",
    "layout": "side_table",
    "batch_rows": 50,
    "gates": {"sample": 1},
}


@pytest.mark.whole
def test_a_key_that_is_revoked_midway(connection: Connection, provider: OpenAIServer) -> None:
    """After a 401 at most 10 calls follow and nothing is quarantined; a rerun with the key restored buys only the rest."""
    Table(connection, rows=400)
    provider.plant(status=401, after=8)
    with pytest.raises(FatalError, match="401"):
        text_384_to_1536(**PAID, run_id="paid")
    assert 0 < len(provider.answered(401)) <= 11
    assert connection.execute("SELECT sum(quarantined) FROM vecferry.batch").fetchone() == (0,)

    provider.heal()
    assert text_384_to_1536(**PAID, run_id="paid")["state"] == "verified"
    bought = Counter(text for call in provider.answered() for text in call.inputs if text.startswith("what row"))
    distinct = connection.execute("SELECT count(DISTINCT content) FROM docs WHERE content <> ''").fetchone()
    sampled = 1
    assert (len(bought), bought.total() - sampled) == (*distinct, *distinct)


def test_a_budget_is_never_passed(connection: Connection, provider: OpenAIServer) -> None:
    """A run stops before it would spend more than its budget, over all its starts; what it bought serves the next run."""
    Table(connection, rows=300)
    price = 0.02 / 1e6
    whole = sum(len(text) for (text,) in connection.execute("SELECT content FROM docs WHERE content <> ''"))
    for second in ({**PAID, "budget_usd": whole * price / 10}, {"gates": PAID["gates"]}):
        with pytest.raises(FatalError, match="budget"):
            text_384_to_1536(**second, run_id="poor")
        spent = connection.execute("SELECT dollars, tokens, bought FROM vecferry.run WHERE run_id = 'poor'").fetchone()
        assert spent
        assert 0 < spent[0] <= whole * price / 10
        assert spent[1] == sum(call.tokens for call in provider.answered())
    with pytest.raises(UsageError, match="vecferry rollback poor"):
        text_384_to_1536(**PAID, run_id="rich")
    rollback(run_id="poor")
    assert text_384_to_1536(**PAID, run_id="rich")["state"] == "verified"
    bought = connection.execute("SELECT sum(bought), max(reused) FROM vecferry.run").fetchone()
    distinct = connection.execute("SELECT count(DISTINCT content) FROM docs WHERE content <> ''").fetchone()
    assert bought
    assert (bought[0],) == distinct
    assert bought[1] == spent[2] > 0


def test_without_a_key_nothing_is_written(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing OPENAI_API_KEY is told before the first table is made."""
    Table(connection, rows=5)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        text_384_to_1536(**PAID, run_id="keyless")
    assert connection.execute("SELECT to_regnamespace('vecferry')").fetchone() == (None,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_after_the_switch_both_columns_are_kept_current(connection: Connection, layout: str) -> None:
    """catch-up brings later inserts, updates and deletes into the new vectors and, the old model being named, into the old
    ones, so that what is gone back to is right."""
    table = Table(connection)
    parameters: dict[str, Any] = {
        "targets": [{"table": "docs", "text": "content"}],
        "embedder": "hashing/1536",
        "old_embedder": "hashing/384",
        "layout": layout,
    }
    assert text_384_to_1536(**parameters, run_id="one", cutover="auto")["state"] == "cut_over"
    connection.execute("INSERT INTO docs (id, content) VALUES (900, 'new and without a vector')")
    table.do("UPDATE docs SET content = %s", 7, "seven was changed")
    table.do("DELETE FROM docs", 8)
    outcome = catch_up(run_id="one")
    assert outcome["targets"][0]["touched"] == {"inserted": 1, "updated": 1, "deleted": 1}

    assert table.vectors() == table.expected()
    rollback(run_id="one")
    for n, text in ((900, "new and without a vector"), (7, "seven was changed")):
        row = connection.execute("SELECT embedding::text FROM docs WHERE id = %s", (n,)).fetchone()
        assert row
        assert np.allclose(np.array(row[0][1:-1].split(","), float), OLD.embed([text]).whole[0], atol=1e-6)


def test_old_vectors_that_must_be_there(connection: Connection) -> None:
    """In an old column that takes no null, a row whose text is taken away keeps its old vector, and catching up goes on."""
    table = Table(connection, rows=20)
    connection.execute("ALTER TABLE docs ALTER COLUMN embedding SET NOT NULL")
    parameters = {"embedder": "hashing/1536", "old_embedder": "hashing/384", "cutover": "auto"}
    text_384_to_1536(targets=[{"table": "docs", "text": "content"}], **parameters, run_id="one")
    table.say(7, None)
    table.say(8, "eight was changed")
    assert catch_up(run_id="one")["targets"][0]["touched"] == {"inserted": 0, "updated": 1, "deleted": 1}
    assert table.vectors() == table.expected()
    row = connection.execute("SELECT embedding::text FROM docs WHERE id = 8").fetchone()
    assert row
    assert np.allclose(np.array(row[0][1:-1].split(","), float), OLD.embed(["eight was changed"]).whole[0], atol=1e-6)


def test_a_column_with_strange_vectors_is_refused(connection: Connection) -> None:
    """Vectors of unknown make in the new column stop a run at the plan; those that come later stop the switch."""
    table = Table(connection, rows=20)
    parameters: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
    connection.execute("ALTER TABLE docs ADD COLUMN embedding_1536 vector(1536)")
    table.do("UPDATE docs SET embedding_1536 = %s", 3, text_vector([1.0] * 1536))
    with pytest.raises(UsageError, match="1 vector that run one did not write"):
        text_384_to_1536(**parameters, run_id="one")
    connection.execute("UPDATE docs SET embedding_1536 = NULL")
    assert text_384_to_1536(**parameters, run_id="one")["state"] == "verified"
    table.do("UPDATE docs SET embedding_1536 = %s", 10, text_vector([1.0] * 1536))  # a row without a text
    with pytest.raises(VerificationRefused):
        cutover(run_id="one")


@pytest.mark.parametrize("layout", sampled(LAYOUTS, "column"))
def test_a_run_that_was_rolled_back_makes_room(connection: Connection, layout: str) -> None:
    """After a rollback the new vectors are kept for another cutover, and another run is told so; contract drops them at
    once, and the column is the next run's."""
    table = Table(connection)
    parameters: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
    text_384_to_1536(**parameters, layout=layout, run_id="one", cutover="auto", gates={"min_recall": 0})
    with pytest.raises(UsageError, match="it is in use"):
        text_384_to_1536(**parameters, run_id="two")
    rollback(run_id="one")
    with pytest.raises(UsageError, match="vecferry contract one"):
        text_384_to_1536(**parameters, run_id="two")
    assert contract(run_id="one")["state"] == "contracted"
    left = connection.execute(
        "SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'docs'::regclass AND NOT tgisinternal), "
        "(SELECT count(*) FROM pg_proc WHERE proname = 'match_docs_v2'), "
        "(SELECT count(*) FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'embedding_1536')"
    ).fetchone()
    assert left == (0, 0, 0)
    assert text_384_to_1536(**parameters, run_id="two")["state"] == "verified"
    assert table.vectors() == table.expected()


def test_an_index_that_was_cut_off_is_built_again(connection: Connection) -> None:
    """An invalid leftover of CREATE INDEX CONCURRENTLY under the index's name is dropped and the index built."""
    Table(connection, rows=20)
    parameters: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
    assert text_384_to_1536(**parameters, run_id="one")["state"] == "verified"
    query = "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'docs'::regclass AND indisvalid"
    before = {name for (name,) in connection.execute(query)}
    target = _target(connection)
    name = next(n for n in before if n.endswith(index_names("one", target.place.table, target.name)["hnsw"][-8:]))
    connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (f'"{name}"',))
    connection.execute("UPDATE vecferry.batch SET status = 'pending' WHERE stage = 'index'")
    assert text_384_to_1536(**parameters, run_id="one")["state"] == "verified"
    assert {name for (name,) in connection.execute(query)} == before


def _target(connection: Connection) -> Any:
    return ledger.get(connection, "one").plan.targets[0]


def test_the_plan_tells_what_it_costs(connection: Connection, provider: OpenAIServer) -> None:
    """Different texts, tokens and dollars before a run; after it nothing is left to buy. No request is sent for it."""
    Table(connection, rows=50)
    connection.execute("INSERT INTO docs (id, content) SELECT 1000 + n, 'said twice' FROM generate_series(1, 2) n")
    text = [row[0] for row in connection.execute("SELECT DISTINCT content FROM docs WHERE content <> ''")]

    def cost() -> Any:
        return make_plan(connection, parse(Text384To1536, PAID).request(), "any").cost

    before = cost()
    assert (before.texts, before.kept, before.most_tokens) == (len(text), 0, sum(len(s.encode()) for s in text))
    assert before.dollars == before.tokens * 0.02 / 1e6
    assert provider.answered() == []
    text_384_to_1536(**PAID, run_id="bought")
    assert (cost().texts, cost().kept, cost().dollars) == (0, len(text), 0)


def test_nothing_is_read_while_the_old_model_is_asked(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers take as long as they take: no COPY, and so no transaction, is open meanwhile."""
    Table(connection)
    read, embed = records.read, HashingEmbedder.embed
    used: list[Connection] = []
    asked: list[set[TransactionStatus]] = []

    def reading(where: Connection, *more: Any, **named: Any) -> Any:
        used.append(where)
        return read(where, *more, **named)

    def asking(*what: Any) -> Any:
        if used:  # before, rows are loaded
            asked.append({session.info.transaction_status for session in used})
        return embed(*what)

    monkeypatch.setattr(postgres, "READ_ROWS", 10)  # else all of a small table is read at once
    monkeypatch.setattr(records, "read", reading)
    monkeypatch.setattr(HashingEmbedder, "embed", asking)
    text_384_to_1536(
        targets=[{"table": "docs", "text": "content"}],
        embedder="hashing/1536",
        old_embedder="hashing/384",
        run_id="asked",
    )
    assert len(asked) > 5
    assert set().union(*asked) == {TransactionStatus.IDLE}


def test_what_the_change_of_model_does(connection: Connection, tmp_path: Any) -> None:
    """The report tells the overlap of neighbours, the translated threshold and the verdict on labelled queries; old
    vectors that are not the named model's fail the check of the old model."""
    Table(connection, rows=120)
    labelled = tmp_path / "queries.jsonl"
    rows = connection.execute("SELECT id, content FROM docs WHERE content <> '' ORDER BY id LIMIT 30").fetchall()
    labelled.write_text("\n".join(json.dumps({"query": text, "relevant": [str(name)]}) for name, text in rows))
    parameters: dict[str, Any] = {
        "targets": [{"table": "docs", "text": "content"}],
        "embedder": "hashing/1536",
        "old_embedder": "hashing/384",
        "similarity_threshold": 0.6,
        "queries": str(labelled),
        "gates": {"min_recall": 0},
    }
    outcome = text_384_to_1536(**parameters, run_id="told")
    target = json.loads(Path(outcome["report"]).with_suffix(".json").read_text())["targets"][0]
    checks = {check["name"]: check for check in target["checks"]}
    assert checks["old model"]["passed"]
    figures = target["benchmark"]
    assert 0 < figures["old_new_overlap"]["p5"] <= figures["old_new_overlap"]["mean"] <= 1
    assert figures["threshold"]["low"] <= figures["threshold"]["new"] <= figures["threshold"]["high"]
    assert (figures["ndcg"]["old"], figures["ndcg"]["new"], figures["ndcg"]["verdict"]) == (
        1.0,
        1.0,
        "no difference is shown",
    )
    assert len(target["notes"]) == 3

    rollback(run_id="told")
    connection.execute(
        "UPDATE docs SET embedding = %s WHERE id = 5", (text_vector(OLD.embed(["something else"]).whole[0]),)
    )
    with pytest.raises(VerificationRefused, match="old model"):
        text_384_to_1536(**parameters, run_id="lied")


@pytest.mark.parametrize("layout", sampled(LAYOUTS, "side_table"))
def test_row_level_security_stays_in_force(connection: Connection, layout: str) -> None:
    """A role that a policy shows some rows sees those by the new vectors too, and no others, by the function or beside it;
    and a role that is no superuser, but owns the table, can run the whole migration."""
    Table(connection, rows=40)
    for role, rights in (("app", "NOLOGIN"), ("owner", "LOGIN")):
        connection.execute(
            f"DO $$ BEGIN CREATE ROLE {role} {rights}; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    connection.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; GRANT SELECT ON docs TO app")
    connection.execute("CREATE POLICY low ON docs FOR SELECT TO app USING (id < 10)")
    connection.execute("ALTER TABLE docs OWNER TO owner; ALTER FUNCTION match_docs OWNER TO owner")
    database = connection.info.dbname
    connection.execute(f'GRANT CREATE ON DATABASE "{database}" TO owner; GRANT CREATE, USAGE ON SCHEMA public TO owner')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"{os.environ['DATABASE_URL'].replace('postgres:', 'owner:', 1)}")
        parameters: dict[str, Any] = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536"}
        outcome = text_384_to_1536(
            **parameters, layout=layout, run_id="guarded", cutover="auto", gates={"min_recall": 0}
        )
        assert outcome["state"] == "cut_over"

    query = text_vector(NEW.embed(["what row 3 says of topic 3"]).whole[0])
    connection.execute("SET ROLE app")
    for function in ("match_docs", "match_docs_v2"):
        seen = {row[0] for row in connection.execute(f"SELECT * FROM {function}(%s::vector, -1, 100)", (query,))}
        assert seen == set(range(10)), function
    if layout == "side_table":
        connection.execute("RESET ROLE")
        side = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relrowsecurity AND relname LIKE 'docs.%'"
        ).fetchone()
        assert side
        connection.execute("SET ROLE app")
        assert connection.execute(f"SELECT max(k1) FROM {side[0]}").fetchone() == (9,)
