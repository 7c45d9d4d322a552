"""A ledger that earlier code left is read as it is, gets what it lacks from the first verb that writes, and its runs go on."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.catch_up import catch_up
from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.contract import contract
from flows.cutover import cutover
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from flows.verify import verify
from tasks.base.errors import VecferryError
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import ledger, ledger_versions, models, status
from tasks.runs.ledger_versions import WORK
from tasks.stores.postgres.connection import Connection
from tests.fixtures.freezing import NEW, OLD
from tests.helpers import old_ledger
from tests.helpers.live_table import vectors_of
from tests.helpers.old_ledger import KINDS, SYNCED, WAYS
from tests.helpers.openai_server import OpenAIServer

COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'vecferry.run'::regclass AND attname = ANY(%s)"
TEXT = ("column", "side_table")
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "planned": (("run", "verified"),),
    "snapshot": (("run", "verified"),),
    "killed": (("run", "verified"),),
    "killed_snapshot": (("run", "verified"),),
    "killed_load": (("run", "verified"),),
    "killed_index": (("run", "verified"),),
    "killed_catch_up": (("run", "verified"),),
    "killed_cutover": (("cutover", "cut_over"),),
    "failed": (("run", "verified"),),
    "refused": (("run with leave", "verified"),),
    "verified": (("cutover", "cut_over"), ("verify", "cut_over"), ("contract now", "contracted")),
    "waiting": (("cutover", "cut_over"),),
    "smoke": (("rollback", "rolled_back"),),
    "cut_over": (("catch-up", "cut_over"), ("rollback", "rolled_back")),
    "due": (("contract", "contracted"),),
    "dropped": (("run", "verified"),),
    "rolled_back": (("cutover", "cut_over"),),
    "contracted": (("catch-up", "contracted"),),
}
"""How a run goes on that was left in this way: verbs, and the state after each."""


@pytest.fixture
def restored(connection: Connection, database: str, tmp_path: Path) -> Callable[[str], Connection]:
    """Fills the database with what a fixture holds, in place of nothing."""

    def restore(fixture: str) -> Connection:
        connection.execute("DROP EXTENSION vector")
        old_ledger.restore(fixture, database, tmp_path)
        return connection

    return restore


def structure(connection: Connection) -> list[Any]:
    """Every column of every relation of the ledger."""
    return connection.execute(
        "SELECT c.relname, a.attname, a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'vecferry'::regnamespace AND a.attnum > 0 ORDER BY 1, a.attnum"
    ).fetchall()


@pytest.mark.parametrize("fixture", KINDS)
def test_it_is_read_as_it_is(restored: Callable[[str], Connection], fixture: str) -> None:
    """status, now and next of every run, and nothing is added to a ledger that is only read."""
    old = restored(fixture)
    before = structure(old)
    names = {f"{kind}-{way}" for kind, ways in KINDS[fixture].items() for way in ways}
    assert set(ledger.run_ids(old)) == names | set(SYNCED)
    for name in names:
        outcome, way = status.outcome(old, name), name.partition("-")[2]
        left = WAYS[way]
        assert (outcome.state, outcome.now) == (left.state, left.now), name
        assert (outcome.next and outcome.next.split()[1]) == left.verb, name
        assert bool(outcome.later) == (way == "cut_over"), name
        if fixture == "ledger_0_1_0":
            assert (outcome.gates, outcome.log) == (None, None), name
        else:
            assert outcome.log, name
            assert (way == "planned") == (outcome.gates is None), name
            assert way == "planned" or outcome.gates["min_recall"] == 0.8, name
        if way == "failed":
            assert outcome.targets[0].failed_batches == (1,)
    for name in SYNCED:
        assert status.outcome(old, name).state == "cut_over"
    assert structure(old) == before


SAMPLED: dict[str, dict[str, tuple[str, ...]]] = {
    "ledger_0_1_0": {"chroma": ("killed", "verified"), "column": ("verified", "cut_over"), "side_table": ()},
    "ledger_before_versions": {
        "chroma": ("snapshot", "refused", "due"),
        "embedded": ("killed_load",),
        "column": ("killed_catch_up", "killed_cutover"),
        "side_table": ("killed_snapshot", "contracted"),
    },
}
"""Of each fixture make test takes these on, and `make chaos` the others."""


def runs() -> Iterator[Any]:
    """Fixture, kind and ways."""
    for fixture, kinds in KINDS.items():
        for kind, ways in kinds.items():
            name, some = f"{fixture}-{kind}", SAMPLED[fixture][kind]
            rest = [way for way in ways if way not in some]
            if some:
                yield pytest.param(fixture, kind, some, id=name)
            yield pytest.param(fixture, kind, rest, id=f"{name}-rest", marks=pytest.mark.whole)


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(("fixture", "kind", "ways"), runs())
def test_its_runs_go_on(
    restored: Callable[[str], Connection], provider: OpenAIServer, fixture: str, kind: str, ways: Sequence[str]
) -> None:
    """Every run that is not at its end is taken on from where it was left, what searches is right after each verb, gates are
    kept, nothing is bought again, and the first verb adds what the ledger lacks."""
    old = restored(fixture)
    bought = old.execute("SELECT sum(bought) FROM vecferry.run").fetchone()
    for way in ways:
        run_id = f"{kind}-{way}"
        for verb, state in STEPS[way]:
            if verb != "catch-up":
                outcome = do(verb, run_id)
            elif kind not in TEXT or (kind, way) == ("column", "contracted"):
                continue  # a later run syncs its table; nothing notes changes any more
            else:
                old.execute(f"UPDATE {kind}_{way} SET content = 'changed again' WHERE id = 3")
                outcome = catch_up(run_id=run_id)
                assert outcome["targets"][0]["touched"]["updated"] == 1
            assert (outcome["state"], outcome["exit"]) == (state, 0), (run_id, verb)
            assert len(old.execute(COLUMNS, (list(WORK),)).fetchall()) == len(WORK)
            assert fixture == "ledger_0_1_0" or way == "planned" or outcome["gates"]["min_recall"] == 0.8, run_id
            in_use(old, kind, way, outcome)
    if fixture == "ledger_0_1_0" and "verified" in ways:
        assert status.outcome(old, f"{kind}-verified").gates["min_recall"] == 0.9
    if kind == "embedded":
        assert old.execute("SELECT sum(bought) FROM vecferry.run").fetchone() == bought


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(
    ("fixture", "table"),
    [
        ("ledger_before_versions", "chroma_synced"),
        pytest.param("ledger_0_1_0", "docs_synced", marks=pytest.mark.whole),
    ],
)
def test_a_sync_is_taken_back(restored: Callable[[str], Connection], fixture: str, table: str) -> None:
    """What it removed is in the table again, and is removed again by going on with it."""
    old = restored(fixture)

    def rows() -> int:
        (count,) = old.execute(f"SELECT count(*) FROM public.{table}").fetchone() or (0,)
        return int(count)

    synced = rows()
    assert rollback(run_id="chroma-synced")["state"] == "rolled_back"
    assert rows() == synced + 3
    assert chroma_to_pgvector(run_id="chroma-synced")["state"] == "cut_over"
    assert rows() == synced


def do(verb: str, run_id: str) -> dict[str, Any]:
    """Does it with the run."""
    chroma = run_id.startswith(("chroma", "embedded"))
    resume: Callable[..., dict[str, Any]] = chroma_to_pgvector if chroma else text_384_to_1536
    verbs: dict[str, Callable[[], dict[str, Any]]] = {
        "run": lambda: resume(run_id=run_id),
        "run with leave": lambda: resume(run_id=run_id, gates={"max_quarantined": 1, "min_row_cosine": -1}),
        "verify": lambda: verify(run_id=run_id),
        "cutover": lambda: cutover(run_id=run_id),
        "rollback": lambda: rollback(run_id=run_id),
        "contract": lambda: contract(run_id=run_id),
        "contract now": lambda: contract(run_id=run_id, rollback_days=0),
    }
    return verbs[verb]()


def in_use(connection: Connection, kind: str, way: str, outcome: dict[str, Any]) -> None:
    """Asserts that people search what they should, by the state of a run."""
    switched = outcome["state"] in ("cut_over", "contracted")
    if kind not in TEXT:
        for target in outcome["targets"]:
            there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (target["table"],)).fetchone()
            assert there == (switched,), target
        return
    served = {"cut_over": (OLD, NEW), "contracted": (NEW,)}.get(outcome["state"], (OLD,))
    table = f"{kind}_{way}"
    for dimensions in served:
        (query,) = vectors_of(HashingEmbedder(dimensions))([f"text 0 of {table}"])
        row = connection.execute(f"SELECT id FROM match_{table}(%s::vector, 0.1)", (str(query.tolist()),)).fetchone()
        assert row == (0,), (table, dimensions)


def bring_forward(connection: Connection) -> dict[str, Any]:
    """Makes the registry of models; returns what is active, by table."""
    ledger_versions.ensure(connection)
    return dict(
        connection.execute(
            "SELECT table_name, array_agg(column_name ORDER BY column_name) FROM vecferry.active_space GROUP BY 1"
        ).fetchall()
    )


def test_views_of_others_read_what_takes_the_place_of_active_space(restored: Callable[[str], Connection]) -> None:
    """A view on it, and one on that, read the registry of models from then on, with their options and rights; what cannot
    be put there is named in one line, and the ledger stays as it was."""
    old = restored("ledger_0_1_0")
    old.execute("CREATE VIEW app_space WITH (security_barrier) AS SELECT * FROM vecferry.active_space")
    old.execute("CREATE VIEW app_top AS SELECT column_name FROM app_space WHERE table_name = 'column_cut_over'")
    old.execute("GRANT SELECT ON app_space TO PUBLIC")
    old.execute("CREATE MATERIALIZED VIEW app_copy AS SELECT * FROM vecferry.active_space")
    with pytest.raises(VecferryError, match=r"materialized view app_copy depends on .*; drop what reads it") as refused:
        bring_forward(old)
    assert "\n" not in str(refused.value)
    assert old.execute("SELECT column_name FROM app_top").fetchall() == [("embedding_1536",)]
    old.execute("DROP MATERIALIZED VIEW app_copy")
    looks = "SELECT reloptions, relacl::text, relowner FROM pg_class WHERE relname = 'app_space'"
    before = old.execute(looks).fetchall()
    bring_forward(old)
    old.execute("UPDATE vecferry.model SET column_name = 'later' WHERE run_id = 'column-cut_over'")
    assert old.execute("SELECT column_name FROM app_top").fetchall() == [("later",)]
    assert old.execute(looks).fetchall() == before


def copied(connection: Connection, run_id: str, name: str, number: int, at: str, **target: Any) -> None:
    """Plants another target like the first of a run: in a run of its own, ``name``, or as ``number`` of the same."""
    connection.execute("CREATE TEMP TABLE likeness AS SELECT * FROM vecferry.run WHERE run_id = %s", (run_id,))
    connection.execute("UPDATE likeness SET run_id = %s, created_at = created_at + %s::interval", (name, at))
    (plan,) = connection.execute("SELECT plan FROM likeness").fetchone() or ({},)
    like = plan["targets"][0]
    live = like["live"] | {key: target.pop(key) for key in ("text", "vectors") if key in target}
    made = like | target | {"number": number, "live": live}
    if name == run_id:
        changed = json.dumps(plan | {"targets": [like, made]})
        connection.execute("UPDATE vecferry.run SET plan = %s WHERE run_id = %s", (changed, run_id))
    else:
        connection.execute("UPDATE likeness SET plan = %s", (json.dumps(plan | {"targets": [made]}),))
        connection.execute("INSERT INTO vecferry.run SELECT * FROM likeness")
    connection.execute(
        "INSERT INTO vecferry.relation SELECT table_schema, table_name || '_like', %s, %s, role, source, space "
        "FROM vecferry.relation WHERE run_id = %s",
        (name, number, run_id),
    )


def test_of_two_old_columns_that_named_last_is_active(restored: Callable[[str], Connection]) -> None:
    """Two runs of one table and text, neither of them switched, which were planned from different columns."""
    old = restored("ledger_0_1_0")
    old.execute("ALTER TABLE column_verified ADD COLUMN better vector(8)")
    copied(old, "column-verified", "later", 0, "1 minute", vectors="better", new_column="other")
    assert bring_forward(old)["column_verified"] == ["better"]


def test_every_text_that_was_switched_is_active(restored: Callable[[str], Connection]) -> None:
    """A run that switched two columns of one table, for different texts, is taken back as a whole, though the ledger of
    0.1.0 told of the last alone."""
    old = restored("ledger_0_1_0")
    copied(old, "column-cut_over", "column-cut_over", 1, "0", text="{id}", new_column="other")
    old.execute("UPDATE vecferry.active_space SET column_name = 'other' WHERE table_name = 'column_cut_over'")
    assert bring_forward(old)["column_cut_over"] == ["embedding_1536", "other"]
    for number in (0, 1):
        model = models.of_run(old, "column-cut_over", number)
        assert model
        before = models.go_back(old, model)
        assert before
        assert before.column_name == "embedding"


def test_a_function_of_the_users_is_not_taken_for_a_copy(restored: Callable[[str], Connection]) -> None:
    """match_…_v1 is what the function was before the switch only where the run is switched and the function calls it."""
    old = restored("ledger_0_1_0")
    head = "(q vector, t float, c int) RETURNS TABLE (id bigint) LANGUAGE sql AS 'SELECT 1::bigint'"
    old.execute(f"CREATE FUNCTION match_column_verified_v1{head}")
    bring_forward(old)
    bodies = "SELECT body FROM vecferry.search_function WHERE own AND function = %s"
    assert old.execute(bodies, ("match_column_verified",)).fetchall() == [("match_column_verified",)]
    assert old.execute(bodies, ("match_column_cut_over",)).fetchall() == [("match_column_cut_over_v1",)]
