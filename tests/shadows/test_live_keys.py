"""Rows of live tables by keys whose text depends on who writes, and in databases of other encodings: each change is followed."""

import re
import uuid
from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.live_table import Column, LiveTable
from tasks.stores.postgres.pgvector import Layout
from tests.helpers.live import NEW, OLD, text_of
from tests.helpers.live_table import LAYOUTS
from tests.helpers.sampling import sampled
from tests.shadows.test_live_sync import begun_over, drained, loaded

KEYS = {
    "char": ("char(36)", "lpad(n::text, 36, '0')"),
    "bit": ("bit(12)", "n::bit(12)"),
    "date": ("date", "date '2024-01-01' + n"),
    "timestamp": ("timestamp", "timestamp '2024-01-01 10:00:00.25' + n * interval '31 h'"),
    "timestamptz": ("timestamptz", "timestamptz '2024-01-01 10:00:00.25+00' + n * interval '31 h'"),
    "interval": ("interval", "make_interval(months => n, days => 3, secs => -n)"),
    "float8": ("float8", "n + 1/3.0::float8"),
    "bytea": ("bytea", "int4send(n)"),
    "several": ("date", "date '2024-01-01' + n / 2"),
    "numeric": ("numeric(10, 2)", "n + 0.5"),
    "an array": ("text[]", "ARRAY['a', n::text]"),
}
OTHER = (
    "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -10; SET bytea_output = 'escape'; "
    "SET intervalstyle = 'iso_8601'"
)
"""What another session may have set."""
ROWS = 12


def made(connection: Connection, key: str, text: Callable[[int], str] = text_of) -> str:
    """``docs``, with ``n`` beside the key; returns SQL of the key of row n."""
    kind, value = KEYS[key]
    more = ", n" if key == "several" else ""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(
        f"CREATE TABLE docs (id {kind}, n int, content text, embedding vector(384), PRIMARY KEY (id{more}))"
    )
    for n in range(ROWS):
        vector = str(OLD.embed([text(n)]).whole[0].tolist())
        connection.execute(
            f"INSERT INTO docs SELECT {value}, n, %s, %s FROM (SELECT %s::int AS n)", (text(n), vector, n)
        )
    return value


def faults(connection: Connection) -> list[str]:
    """Rows, by their n, whose new vector is not that of their text."""
    beside = connection.execute(
        "SELECT relname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attname = 'embedding' "
        "WHERE relnamespace = 'vecferry'::regnamespace AND relkind = 'r' AND relname LIKE 'docs%'"
    ).fetchone()
    joined = (
        f'LEFT JOIN vecferry."{beside[0]}" s ON k1 = id' + (" AND k2 = n" if "n" in _key(connection) else "")
        if beside
        else ""
    )
    vector = "s.embedding" if beside else "embedding_1536"
    result = []
    for n, text, kept in connection.execute(f"SELECT n, content, {vector}::text FROM docs {joined} ORDER BY n"):
        right = kept and np.allclose(np.array(kept[1:-1].split(","), float), NEW.embed([text]).whole[0], atol=1e-5)
        if not right:
            result.append(f"{n} is {'stale' if kept else 'missing'}")
    return result


def _key(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
        "WHERE indisprimary AND indrelid = 'docs'::regclass"
    )
    return [name for (name,) in rows]


def waiting(connection: Connection) -> int:
    name = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'vecferry'::regnamespace AND relname LIKE '%queue' AND relkind = 'r'"
    ).fetchone()
    row = connection.execute(f'SELECT count(*) FROM vecferry."{name[0] if name else ""}"').fetchone()
    assert row
    return int(row[0])


KEPT = [
    ("char", "column"),
    ("date", "side_table"),
    ("several", "column"),
    ("float8", "side_table"),
    ("timestamptz", "column"),
]


@pytest.mark.parametrize(("key", "layout"), sampled([(k, layout) for k in KEYS for layout in LAYOUTS], *KEPT))
def test_whoever_writes_is_followed(connection: Connection, database: str, key: str, layout: str) -> None:
    """A session with other settings inserts, changes texts and keys, and deletes; all of it arrives, and nothing else."""
    value = made(connection, key)
    shadow = loaded(begun_over(layout))
    drained(shadow)
    assert faults(connection) == []
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(OTHER)
        other.execute("UPDATE docs SET content = 'other words' WHERE n = 3")
        other.execute(f"UPDATE docs SET id = (SELECT {value} FROM (SELECT 200 AS n) AS x) WHERE n = 4")
        other.execute("DELETE FROM docs WHERE n = 5")
        other.execute(f"INSERT INTO docs SELECT {value}, n, 'a new row' FROM (SELECT 100 AS n) x")
    assert waiting(connection) == 5
    drained(shadow)
    assert (faults(connection), waiting(connection)) == ([], 0)
    assert shadow.compare().touched == 0
    assert shadow.compare().compared == ROWS


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", sampled(["LATIN1", "EUC_JP", "WIN1252", "EUC_KR"], "LATIN1", "EUC_JP"))
def test_letters_of_any_encoding(
    postgres: Callable[[str], str], database: str, monkeypatch: pytest.MonkeyPatch, encoding: str, layout: str
) -> None:
    """In a database of another encoding than UTF-8 each row with letters beyond ASCII is embedded, followed and equal."""
    name, letter = (
        f"t_{uuid.uuid4().hex[:12]}",
        "ü" if encoding in ("LATIN1", "WIN1252") else "字" if encoding == "EUC_JP" else "한",
    )
    with psycopg.connect(postgres("postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    monkeypatch.setenv("DATABASE_URL", postgres(name))
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    with connect(postgres(name)) as connection:
        made(connection, "date", lambda n: f"{letter * (n % 3)} says row {n}")
        shadow = loaded(begun_over(layout))
        drained(shadow)
        assert (faults(connection), waiting(connection)) == ([], 0)
        connection.execute("UPDATE docs SET content = %s WHERE n = 3", (f"{letter} once more",))
        drained(shadow)
        assert (faults(connection), waiting(connection), shadow.compare().touched) == ([], 0, 0)
        ledger.set_state(connection, "live", "failed", f"recall is not ≥ 0.9 of {letter}… ✓")
        told = ledger.get(connection, "live").error
        assert told
        assert re.fullmatch(f"recall is not [≥≧?] 0.9 of {letter}[…?] [✓?]", told)


@pytest.mark.parametrize(
    ("bare", "value"), [("character", "a key of 14 "), ("bit", "101100"), ("character varying", "abc")]
)
def test_plans_of_earlier_versions_name_types_without_a_length(connection: Connection, bare: str, value: str) -> None:
    """A key of theirs is read whole all the same."""
    layout = Layout("vector", 384, "cosine")
    live = LiveTable("public", "docs", (Column("id", bare),), "{content}", "embedding", layout)
    (part,) = live.parts("%s")
    assert connection.execute(f"SELECT ({part})::text", (value,)).fetchone() == (value.rstrip(),)


def test_an_old_column_that_is_generated_is_left_alone(connection: Connection) -> None:
    """After the switch changed rows get old vectors again, save where PostgreSQL makes those itself."""
    connection.execute(
        "CREATE FUNCTION made(text) RETURNS vector IMMUTABLE LANGUAGE sql AS $$ SELECT array_fill(length($1), ARRAY[384])::vector $$"
    )
    connection.execute(
        "CREATE TABLE docs (id bigint PRIMARY KEY, content text, embedding vector(384) GENERATED ALWAYS AS (made(content)) STORED)"
    )
    connection.execute("INSERT INTO docs SELECT n, 'row ' || n FROM generate_series(1, 5) AS n")
    shadow = loaded(begun_over("column", old_embedder="hashing/384"))
    drained(shadow)
    ledger.set_state(connection, "live", "cut_over")
    connection.execute("UPDATE docs SET content = 'other words' WHERE id = 3")
    drained(shadow)
    assert shadow.compare().touched == 0
