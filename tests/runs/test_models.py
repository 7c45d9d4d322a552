"""The registry of models and what is generated from it, whatever is done with the runs of one table, and in which order."""

import random
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base import settings
from tasks.base.errors import UsageError, VerificationRefused
from tasks.begin import begin
from tasks.cutover import contract, cutover, rollback
from tasks.embedders.hashing import HashingEmbedder
from tasks.planning.registry import make_plan
from tasks.runs import ledger, models
from tasks.runs.run import Run, open_run
from tasks.shadows.postgres import dispatcher
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tests.fixtures.freezing import live_table
from tests.helpers import old_ledger
from tests.helpers.live_table import LAYOUTS, vectors_of

pytestmark = pytest.mark.usefixtures("kept_connections")
OLD = 8


@pytest.fixture
def docs(connection: Connection) -> Connection:
    """A database with a live table ``docs`` and its ``match_docs``, of 8 dimensions."""
    live_table(connection, "docs", 3, vectors_of(HashingEmbedder(OLD)))
    return connection


def prepared(connection: Connection, run_id: str, dimensions: int, layout: str = "column", **target: Any) -> Run:
    """A run whose new vectors are built, were it for its rows, of which it has none."""
    asked = {"table": "docs", "text": "content", "new_column": f"embedding_{dimensions}", **target}
    form = parse(Text384To1536, {"targets": [asked], "embedder": f"hashing/{dimensions}", "layout": layout})
    begin(form.request(), run_id, form.given())
    run = open_run(run_id, settings.DEFAULT_DATABASE)
    shadow_of(run, run.plan.targets[0]).expand()
    with connection.transaction():
        dispatcher.ready(connection, run_id, run.plan.targets[0])
    ledger.set_state(connection, run_id, "verified")
    return run


def dropped(run: Run) -> list[str]:
    return contract(run, 0)


def served(connection: Connection, function: str, among: set[int]) -> set[int]:
    """The dimensions that a function answers."""
    answered = set()
    for dimensions in among:
        query = str([1.0] * dimensions)
        with suppress(errors.DataError):  # its own refusal, in PL/pgSQL or SQL, or that of an operator
            connection.execute(f"SELECT * FROM {function}(%s::vector, -2, 5)", (query,))
            answered.add(dimensions)
    return answered


def bodies(connection: Connection) -> dict[str, str]:
    """The search functions there are, by name."""
    return dict(connection.execute("SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'match\\_docs%'").fetchall())


def assert_no_function_calls_itself(connection: Connection) -> None:
    """Directly or by way of another."""
    every = bodies(connection)
    calls = {
        name: {other for other in every if re.search(rf'(?<!\w){other}"?\s*\(', body)} for name, body in every.items()
    }
    TopologicalSorter(calls).prepare()  # raises CycleError


def active(connection: Connection) -> int | None:
    row = connection.execute("SELECT dimensions FROM vecferry.active_space").fetchone()
    return row[0] if row else None


@dataclass
class Oracle:
    """What must hold, said without the registry: runs by their dimensions."""

    compares: dict[int, int] = field(default_factory=dict)
    """Each run → the dimensions that it was planned from."""
    built: set[int] = field(default_factory=set)
    """Runs that nobody is switched to."""
    switched: list[int] = field(default_factory=lambda: [OLD])
    """What can be gone back to, and last what is active."""

    def begin(self, run: int, old: int) -> None:
        self.compares[run] = old
        self.built.add(run)

    def may(self, verb: str, run: int) -> bool:
        if verb == "cutover":
            return True
        if run not in self.switched:
            return not self._compared(run)
        if verb == "rollback":
            return self.switched[-1] == run
        return self.switched.index(run) == 1 and not self._compared(self.switched[0])

    def do(self, verb: str, run: int) -> None:
        if verb == "cutover":
            self.built.remove(run)
            self.switched.append(run)
        elif run not in self.switched:
            self.built.remove(run)
        elif verb == "rollback":
            self.built.add(self.switched.pop())
        else:
            self.switched.pop(0)

    def _compared(self, dimensions: int) -> bool:
        return any(self.compares[run] == dimensions for run in self.built)


VERBS = {
    "verified": {"cutover": cutover, "rollback": rollback},
    "rolled_back": {"cutover": cutover, "contract": dropped},
    "cut_over": {"rollback": rollback, "contract": dropped},
    "contracted": {},
}
"""What is tried with a run in each state."""


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.whole) for n in (1, 3, 4, 5))])
def test_every_order_of_runs(docs: Connection, seed: int) -> None:
    """Runs of one table are begun, cut over, rolled back and contracted in any order, in any layouts: each verb is done
    or refused as the table in the dispatcher says, a refusal changes nothing, match_docs answers for what is active and
    what can be gone back to, match_docs_v2 for all that is built, and no function calls itself."""
    chance, oracle, runs, refused = random.Random(seed), Oracle(), dict[int, Run](), 0
    own, every = bodies(docs)["match_docs"], {OLD}
    for step in range(24):
        known = sorted(oracle.built.union(oracle.switched) - {OLD})
        if len(oracle.built) < 2 and chance.random() < 0.5:
            run, old = 16 + step, chance.choice(oracle.switched)
            column = "embedding" if old == OLD else f"embedding_{old}"
            runs[run] = prepared(docs, f"r{run}", run, chance.choice(LAYOUTS), old_column=column)
            oracle.begin(run, old)
            every.add(run)
        elif known:
            run, functions = chance.choice(known), bodies(docs)
            state = ledger.get(docs, f"r{run}").state
            if not VERBS[state]:
                continue
            rash = "cutover" in VERBS[state] and chance.random() < 0.7
            verb = "cutover" if rash else chance.choice(list(VERBS[state]))
            do = VERBS[state][verb]
            if verb == "cutover":
                ledger.set_state(docs, f"r{run}", "verified")
            if oracle.may(verb, run):
                do(runs[run])
                oracle.do(verb, run)
            else:
                with pytest.raises(UsageError, match=r"vecferry (rollback|contract|cutover) r"):
                    do(runs[run])
                assert bodies(docs) == functions
                refused += 1
        left = oracle.built.union(oracle.switched) - {OLD}
        assert served(docs, "match_docs", every) == set(oracle.switched)
        if left:
            assert served(docs, "match_docs_v2", every) == oracle.built.union(oracle.switched)
            assert active(docs) == oracle.switched[-1]
        else:
            assert bodies(docs) == {"match_docs": own}
        if oracle.switched == [OLD]:
            assert bodies(docs)["match_docs"] == own
        assert_no_function_calls_itself(docs)
    assert refused, "a walk in which all is done says nothing of what is refused"


@pytest.mark.parametrize("careful", [False, True])
def test_rights_of_the_function_are_open_to_nobody_else(docs: Connection, careful: bool) -> None:
    """A match_docs that runs with its owner's rights answers those who may call it, by old and by new vectors; others get
    at the table neither by what it was nor by what searches the new vectors. It does so too where new functions are nobody's
    to call by default."""
    for role in ("app", "nobody_else"):
        docs.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        docs.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    docs.execute("ALTER FUNCTION match_docs SECURITY DEFINER; REVOKE EXECUTE ON FUNCTION match_docs FROM PUBLIC")
    docs.execute("GRANT EXECUTE ON FUNCTION match_docs TO app")
    if careful:
        docs.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    cutover(prepared(docs, "first", 16))
    prepared(docs, "second", 32)
    names = set(bodies(docs))
    assert len(names) == 5
    docs.execute("SET ROLE app")
    assert served(docs, "match_docs", {8, 16, 32}) == {8, 16}
    docs.execute("SET ROLE nobody_else")
    for name in names:
        for dimensions in (8, 16):
            with pytest.raises(errors.InsufficientPrivilege):
                served(docs, name, {dimensions})


def test_the_owner_of_the_table_reads_what_lies_beside_it(docs: Connection) -> None:
    """A function that runs with the rights of the table's owner, whom nobody granted anything, searches the new vectors."""
    docs.execute("DO $$ BEGIN CREATE ROLE keeper; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    docs.execute("GRANT ALL ON SCHEMA public TO keeper; ALTER TABLE docs OWNER TO keeper")
    docs.execute("ALTER FUNCTION match_docs SECURITY DEFINER; ALTER FUNCTION match_docs OWNER TO keeper")
    cutover(prepared(docs, "first", 16, "side_table"))
    assert served(docs, "match_docs", {8, 16}) == {8, 16}


def test_two_models_of_the_same_dimensions(docs: Connection) -> None:
    """The plan says that queries cannot be told apart; match_docs searches the active model, and match_docs_v2 the new one,
    which is tried by it."""
    target = {"table": "docs", "text": "content", "new_column": "other"}
    request = parse(Text384To1536, {"targets": [target], "embedder": "hashing/8"}).request()
    (warning,) = make_plan(docs, request, "first").warnings
    assert "public.docs.other and public.docs.embedding both have 8 dimensions" in warning
    first = prepared(docs, "first", 8, new_column="other")
    docs.execute("UPDATE docs SET other = '[1,0,0,0,0,0,0,0]' WHERE id = 1")

    def nearest(function: str) -> Any:
        return docs.execute(f"SELECT id, similarity FROM {function}('[1,0,0,0,0,0,0,0]', 0.99, 1)").fetchone()

    assert nearest("match_docs_v2") == (1, 1.0)
    assert nearest("match_docs") is None
    docs.execute("UPDATE docs SET other = NULL")  # the run has not written it
    cutover(first)
    docs.execute("UPDATE docs SET other = '[1,0,0,0,0,0,0,0]' WHERE id = 1")
    assert nearest("match_docs_v2") == nearest("match_docs") == (1, 1.0)
    rollback(first)
    assert nearest("match_docs") is None


def test_the_text_that_is_embedded_changes(docs: Connection) -> None:
    """Vectors of another text of the same rows take over from those there are, and leave no two models active."""
    first = prepared(docs, "first", 16)
    cutover(first)
    second = prepared(docs, "second", 32, text="{content} of {id}", old_column="embedding")
    cutover(second)
    assert served(docs, "match_docs", {8, 16, 32}) == {8, 16, 32}
    assert docs.execute("SELECT dimensions FROM vecferry.active_space").fetchall() == [(32,)]
    line, *_ = rollback(second)  # what else there is tells of roles of other tests, who may not read the table
    assert "is searched by embedding_16 again, which vecferry catch-up first brings up to date" in line
    assert docs.execute("SELECT dimensions FROM vecferry.active_space").fetchall() == [(16,)]


def test_what_else_of_a_row_is_embedded_has_an_active_model_of_its_own(docs: Connection) -> None:
    """One for each content of a table, and never two for one."""
    run = prepared(docs, "first", 16)
    (came_with, made) = models.of_table(docs, "public", "docs")
    picture = models.register(docs, replace(came_with, content="image:{path}", column_name="picture", dimensions=4))
    cutover(run)
    spaces = docs.execute("SELECT column_name, dimensions FROM vecferry.active_space ORDER BY 1").fetchall()
    assert spaces == [("embedding_16", 16), ("picture", 4)]
    assert models.predecessor(docs, models.at(docs, "public", "docs", "embedding_16") or made) == replace(
        came_with, state="built"
    )
    with pytest.raises(errors.UniqueViolation):
        docs.execute("UPDATE vecferry.model SET content = %s WHERE model = %s", (came_with.content, picture.model))


def test_what_the_table_came_with_is_what_the_last_plan_says(docs: Connection) -> None:
    """After a run that was rolled back the application's function searches another column: that is what a later run takes
    over from, and goes back to."""
    rollback(prepared(docs, "first", 16))
    docs.execute("ALTER TABLE docs ADD COLUMN better vector(12)")
    own = "SELECT id, content, 1 - (better <=> query_embedding) FROM docs"
    docs.execute(
        f"CREATE OR REPLACE FUNCTION match_docs(query_embedding vector(8), match_threshold float, match_count int DEFAULT 5) "
        f"RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ {own} $$"
    )
    second = prepared(docs, "second", 32, old_column="better")
    docs.execute("UPDATE docs SET better = '[1,0,0,0,0,0,0,0,0,0,0,0]'")
    cutover(second)
    assert served(docs, "match_docs", {8, 12, 16, 32}) == {12, 32}
    rollback(second)
    assert served(docs, "match_docs", {8, 12, 16, 32}) == {12}
    assert active(docs) == 12


def test_the_body_is_given_by_the_user(docs: Connection) -> None:
    """What searches the new vectors may be another function than the one that is derived; the choice is the same."""
    run = prepared(docs, "first", 16, function_sql="SELECT 7::bigint, 'seven', 0.5::float8")
    cutover(run)
    query = str([1.0] * 16)
    assert docs.execute("SELECT * FROM match_docs(%s::vector, 0, 1)", (query,)).fetchall() == [(7, "seven", 0.5)]


def test_a_name_that_is_taken_is_left_alone(docs: Connection) -> None:
    """A match_docs_v2 of the user's is no obstacle: it stays as it is, and match_docs is switched and taken back."""
    docs.execute("CREATE FUNCTION match_docs_v2(n int) RETURNS int LANGUAGE sql AS 'SELECT n'")
    before = bodies(docs)
    first = prepared(docs, "first", 16)
    cutover(first)
    assert served(docs, "match_docs", {8, 16}) == {8, 16}
    assert bodies(docs)["match_docs_v2"] == before["match_docs_v2"]
    rollback(first)
    dropped(first)
    assert bodies(docs) == before


def test_a_function_that_was_replaced_is_left_alone(docs: Connection) -> None:
    """What the user made of match_docs after the switch is his: no later cutover overwrites it, verify names it, and a rollback
    overwrites it only when it is told to."""
    before = bodies(docs)["match_docs"]
    first = prepared(docs, "first", 16)
    cutover(first)
    second = prepared(docs, "second", 32)
    docs.execute(
        "CREATE OR REPLACE FUNCTION match_docs(query_embedding vector(8), match_threshold float, match_count int DEFAULT 5) "
        "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ SELECT 1, 'mine', 1.0 $$"
    )
    with pytest.raises(VerificationRefused, match="match_docs was replaced after it was switched"):
        cutover(second)
    with pytest.raises(UsageError, match="match_docs was replaced after it was switched"):
        prepared(docs, "third", 64)
    rollback(second)
    with pytest.raises(VerificationRefused, match="vecferry rollback first --force"):
        rollback(first)
    assert bodies(docs)["match_docs"] == " SELECT 1, 'mine', 1.0 "
    (note,) = shadow_of(first, first.plan.targets[0]).notes()
    assert note.startswith("public.match_docs was replaced after it was switched")
    rollback(first, force=True)
    assert bodies(docs)["match_docs"] == before


@pytest.mark.parametrize("kind", LAYOUTS)
def test_over_a_run_of_0_1_0(connection: Connection, database: str, tmp_path: Path, kind: str) -> None:
    """A table that 0.1.0 switched is migrated once more: what its functions answered they answer, the _v2 of 0.1.0 becomes
    one that chooses, and all of it is taken back to the application's own function, to the letter."""
    connection.execute("DROP EXTENSION vector")
    old_ledger.restore("ledger_0_1_0", database, tmp_path)
    table = f"{kind}_cut_over"
    function = f"match_{table}"
    before = connection.execute("SELECT * FROM vecferry.active_space ORDER BY table_name").fetchall()
    connection.execute("DO $$ BEGIN CREATE ROLE app; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    connection.execute("GRANT SELECT ON vecferry.active_space TO app")
    (own,) = connection.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", (f"{function}_v1",)).fetchone() or (
        "",
    )

    second = prepared(connection, "second", 32, kind, table=table)
    after = connection.execute("SELECT * FROM vecferry.active_space ORDER BY table_name").fetchall()
    assert set(before) <= set(after)
    assert connection.execute("SELECT has_table_privilege('app', 'vecferry.active_space', 'SELECT')").fetchone() == (
        True,
    )
    assert served(connection, function, {8, 16, 32}) == {8, 16}
    assert served(connection, f"{function}_v2", {8, 16, 32}) == {8, 16, 32}
    cutover(second)
    assert served(connection, function, {8, 16, 32}) == {8, 16, 32}
    assert_no_function_calls_itself(connection)
    first = open_run(f"{kind}-cut_over", settings.DEFAULT_DATABASE)
    with pytest.raises(UsageError, match="vecferry rollback second"):
        rollback(first)
    rollback(second)
    assert served(connection, function, {8, 16, 32}) == {8, 16}
    dropped(second)
    rollback(first)
    assert connection.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", (function,)).fetchone() == (own,)
    dropped(first)
    names = connection.execute("SELECT proname FROM pg_proc WHERE starts_with(proname, %s)", (function,)).fetchall()
    assert names == [(function,)]


def _own(connection: Connection, column: str) -> None:
    """Writes a match_docs that searches the column."""
    connection.execute(
        f"CREATE OR REPLACE FUNCTION match_docs(query_embedding vector, match_threshold float, match_count int DEFAULT 5) "
        f"RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS "
        f"$$ SELECT id, content, 1 - ({column} <=> query_embedding) FROM docs LIMIT match_count $$"
    )


@pytest.mark.parametrize("contracted", [False, True], ids=["written after the cutover", "rewritten after the contract"])
def test_a_function_of_the_users_over_vectors_of_a_run(docs: Connection, contracted: bool) -> None:
    """It is put aside at the next cutover as the one that searches that run's vectors, and back at the rollback."""
    if not contracted:
        docs.execute("DROP FUNCTION match_docs")
    first = prepared(docs, "first", 16)
    cutover(first)
    if contracted:
        dropped(first)
    _own(docs, "embedding_16")
    own = bodies(docs)["match_docs"]
    second = prepared(docs, "second", 32, old_column="embedding_16")
    assert bodies(docs)["match_docs"] == own
    for _ in range(2):
        ledger.set_state(docs, "second", "verified")
        cutover(second)
        assert_no_function_calls_itself(docs)
        assert bodies(docs)["match_docs"] != own
        assert served(docs, "match_docs", {16, 32, 64}) == {16, 32}
        assert served(docs, "match_docs_v2", {16, 32, 64}) >= {16, 32}
        rollback(second)
        assert bodies(docs)["match_docs"] == own
    if not contracted:  # the first goes on and off too, and the function stays the user's
        dropped(second)
        rollback(first)
        ledger.set_state(docs, "first", "verified")
        cutover(first)
        assert bodies(docs)["match_docs"] == own
        second = prepared(docs, "other", 32, new_column="other")
    ledger.set_state(docs, second.run_id, "verified")
    cutover(second)
    assert served(docs, "match_docs", {16, 32, 64}) == {16, 32}
    if not contracted:
        dropped(first)
    dropped(second)
    assert served(docs, "match_docs", {16, 32, 64}) == {32}
    assert sum(name.startswith("match_docs_16") for name in bodies(docs)) == 0


def test_two_texts_of_one_table(docs: Connection) -> None:
    """Vectors of other columns are another search: they take over from nothing that a run made, and their contract drops
    nothing of it. One run of both is refused."""
    docs.execute("ALTER TABLE docs ADD COLUMN title text DEFAULT 'a title'")
    (own,) = docs.execute("SELECT pg_get_functiondef('match_docs'::regproc)").fetchone() or ("",)
    docs.execute(own.replace("match_docs", "match_content"))
    first = prepared(docs, "first", 16, text="{title}", old_column="embedding")
    cutover(first)
    second = prepared(docs, "second", 32, text="{content}", old_column="embedding", function="match_content")
    cutover(second)
    assert docs.execute("SELECT dimensions FROM vecferry.active_space ORDER BY 1").fetchall() == [(16,), (32,)]
    for function, dimensions in (("match_docs", 16), ("match_content", 32)):
        assert served(docs, function, {8, 16, 32}) == {8, dimensions}
    line, *_ = rollback(second)
    assert line == "public.docs.embedding_32 is no longer searched; embedding_32 is kept"
    assert served(docs, "match_content", {8, 16, 32}) == {8}
    ledger.set_state(docs, "second", "verified")
    cutover(second)
    dropped(first)
    dropped(second)
    for function, dimensions in (("match_docs", 16), ("match_content", 32)):
        assert served(docs, function, {8, 16, 32}) == {dimensions}
    assert models.at(docs, "public", "docs", "embedding_16")
    assert docs.execute("SELECT dimensions FROM vecferry.active_space ORDER BY 1").fetchall() == [(16,), (32,)]
    asked = {"table": "docs", "old_column": "embedding_16"}
    targets = [{**asked, "text": f"{{{name}}}", "new_column": f"{name}_8"} for name in ("title", "content")]
    request = parse(Text384To1536, {"targets": targets, "embedder": "hashing/8"}).request()
    assert (
        "public.docs is named by 2 targets, but a run can follow only one of them: give each a run of its own"
        in make_plan(docs, request, "third").problems
    )


def test_beginning_a_run_changes_nothing_that_applications_read(docs: Connection) -> None:
    """Whatever column it is planned from, active_space is what it was until the cutover."""
    rollback(prepared(docs, "first", 16))
    docs.execute("ALTER TABLE docs ADD COLUMN better vector(12)")
    (searches,) = docs.execute("SELECT pg_get_functiondef('match_docs'::regproc)").fetchone() or ("",)
    docs.execute(searches.replace("embedding <=>", "better <=>"))
    second = prepared(docs, "second", 32, old_column="better")
    assert active(docs) == OLD
    cutover(second)
    assert active(docs) == 32
    rollback(second)
    assert active(docs) == 12


def test_a_column_that_the_table_came_with_is_no_place_for_new_vectors(docs: Connection) -> None:
    """Though it be empty by now: the plan says so, and not the index of the registry."""
    rollback(prepared(docs, "first", 16))
    docs.execute("ALTER TABLE docs ADD COLUMN better vector(12); UPDATE docs SET embedding = NULL")
    target = {"table": "docs", "text": "content", "old_column": "better", "new_column": "embedding"}
    request = parse(Text384To1536, {"targets": [target], "embedder": "hashing/8"}).request()
    assert make_plan(docs, request, "second").problems == [
        "public.docs.embedding is registered as vectors that public.docs came with: choose another new_column"
    ]


def test_a_run_whose_function_a_later_one_took(docs: Connection) -> None:
    """As 0.1 left it: after a rollback of the later run the earlier one's vectors are searched, and not the first alone."""
    cutover(prepared(docs, "first", 16))
    second = prepared(docs, "second", 32)
    cutover(second)
    row = docs.execute("DELETE FROM vecferry.search_function WHERE body LIKE 'match\\_docs\\_16%' RETURNING body")
    docs.execute(f"DROP FUNCTION {(row.fetchone() or [''])[0]}")
    rollback(second)
    assert active(docs) == 16
    assert served(docs, "match_docs", {8, 16, 32}) == {8, 16}


def test_an_overload_is_no_obstacle_to_a_way_back(docs: Connection) -> None:
    """A match_docs of other arguments that came after the cutover is left alone: the rollback puts back the one that was
    switched, and what was made for the new vectors is dropped."""
    own = bodies(docs)["match_docs"]
    first = prepared(docs, "first", 16)
    cutover(first)
    second = prepared(docs, "second", 32)
    cutover(second)
    docs.execute("CREATE FUNCTION match_docs(n int) RETURNS int LANGUAGE sql AS 'SELECT n'")
    rollback(second)
    assert served(docs, "match_docs", {8, 16, 32}) == {8, 16}
    dropped(second)
    rollback(first)
    dropped(first)
    left = docs.execute("SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'match\\_docs%' ORDER BY pronargs")
    assert left.fetchall() == [("match_docs", "SELECT n"), ("match_docs", own)]
