"""What one more column breaks is named by the plan: each definition is tried on a real table, before it has the column and after."""

from typing import Any

import psycopg
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection

TABLE, SETOF = "RETURNS TABLE (a int, b text, c vector(384))", "RETURNS SETOF docs"
PL, SQL = "LANGUAGE plpgsql AS $$ BEGIN {} END $$", "LANGUAGE sql AS $$ {} $$"
ROWS = "RETURN QUERY SELECT {} FROM docs;"
COLUMNS, CALL = "id, content, embedding", "SELECT * FROM f()"
AT_ONCE = f"RETURN QUERY EXECUTE 'SELECT {COLUMNS} FROM docs';"
TRIGGER, DELETE = "CREATE TRIGGER mine {} DELETE ON docs {} EXECUTE FUNCTION f()", "DELETE FROM docs"
PUT_TOGETHER = "EXECUTE format('INSERT INTO %I SELECT 1', 'notes');"
FIRES = "RETURNS trigger " + PL.format("{} RETURN old;")


def fires(statement: str, when: str = "BEFORE", which: str = "FOR EACH ROW") -> tuple[str, str]:
    return f"{FIRES.format(statement)}; {TRIGGER.format(when, which)}", DELETE


DEFINITIONS: dict[str, tuple[str, str]] = {
    "lists all columns": (f"{SETOF} {PL.format(ROWS.format(COLUMNS))}", CALL),
    "lists all columns in SQL": (f"{SETOF} {SQL.format(f'SELECT {COLUMNS} FROM docs')}", CALL),
    "any column": (f"{SETOF} {PL.format(ROWS.format('*'))}", CALL),
    "any column of an alias": (f"{SETOF} {SQL.format('SELECT d.* FROM docs AS d')}", CALL),
    "whole rows": (f"{SETOF} {SQL.format('SELECT d FROM docs AS d')}", CALL),
    "parsed before": (f"{SETOF} LANGUAGE sql BEGIN ATOMIC SELECT * FROM docs; END", CALL),
    "parsed before, a table": (f"{TABLE} LANGUAGE sql BEGIN ATOMIC SELECT * FROM docs; END", CALL),
    "a table of any column": (f"{TABLE} {PL.format(ROWS.format('*'))}", CALL),
    "a table of any column in SQL": (f"{TABLE} {SQL.format('SELECT docs.* FROM docs')}", CALL),
    "a table of columns": (f"{TABLE} {PL.format(ROWS.format(COLUMNS))}", CALL),
    "by a subquery": (f"{TABLE} {SQL.format('SELECT * FROM (SELECT * FROM public.docs) AS s')}", CALL),
    "by WITH": (f"{TABLE} {SQL.format('WITH s AS (SELECT * FROM docs) SELECT * FROM s')}", CALL),
    "by WITH, with names": (f"{TABLE} {SQL.format(f'WITH s AS (SELECT {COLUMNS} FROM docs) SELECT * FROM s')}", CALL),
    "of the same name elsewhere": (f"{TABLE} {SQL.format('SELECT * FROM other.docs')}", CALL),
    "returned by an insert": (f"{SETOF} {SQL.format(f'INSERT INTO docs SELECT 9 RETURNING {COLUMNS}')}", CALL),
    "record by record": (
        f"{SETOF} LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN FOR r IN SELECT {COLUMNS} FROM docs LOOP RETURN NEXT r; "
        "END LOOP; END $$",
        CALL,
    ),
    "row by row": (
        f"{SETOF} LANGUAGE plpgsql AS $$ DECLARE r docs; BEGIN FOR r IN SELECT {COLUMNS} FROM docs LOOP RETURN NEXT r; "
        "END LOOP; END $$",
        CALL,
    ),
    "at run time, in one piece": (f"{SETOF} {PL.format(AT_ONCE)}", CALL),
    "into a row": (
        f"RETURNS int LANGUAGE plpgsql AS $$ DECLARE r docs; BEGIN SELECT {COLUMNS} INTO r FROM docs LIMIT 1; RETURN r.id; END $$",
        CALL,
    ),
    "a row that is put together": (
        "RETURNS int LANGUAGE plpgsql AS $$ DECLARE r docs; BEGIN r := row(1, 'a', NULL)::docs; RETURN r.id; END $$",
        CALL,
    ),
    "into variables": (
        "RETURNS int LANGUAGE plpgsql AS $$ DECLARE n int; t text; BEGIN SELECT * INTO n, t FROM docs LIMIT 1; RETURN n; END $$",
        CALL,
    ),
    "a union": (
        f"RETURNS bigint {SQL.format('SELECT count(*) FROM (SELECT * FROM docs UNION ALL SELECT * FROM archive) AS s')}",
        CALL,
    ),
    "a union with itself": (
        f"RETURNS bigint {SQL.format('SELECT count(*) FROM (SELECT * FROM docs UNION ALL SELECT * FROM docs) AS s')}",
        CALL,
    ),
    "copies": (f"RETURNS void {PL.format('INSERT INTO archive SELECT * FROM docs;')}", CALL),
    "copies by WITH": (
        f"RETURNS void {SQL.format('WITH gone AS (DELETE FROM docs RETURNING *) INSERT INTO archive SELECT * FROM gone')}",
        CALL,
    ),
    "copies columns": (f"RETURNS void {PL.format(f'INSERT INTO archive SELECT {COLUMNS} FROM docs;')}", CALL),
    "takes back": (
        f"RETURNS void {PL.format('INSERT INTO docs SELECT id + 100, content, embedding FROM archive;')}",
        CALL,
    ),
    "archives": fires("INSERT INTO archive SELECT old.*;"),
    "archives values": fires("INSERT INTO archive VALUES (old.*);"),
    "archives into columns": fires(f"INSERT INTO archive ({COLUMNS}) VALUES ((old).*);"),
    "archives columns": fires("INSERT INTO archive VALUES (old.id, old.content, old.embedding);"),
    "archives JSON": fires("INSERT INTO notes VALUES (to_jsonb(old));"),
    "archives at run time": fires("EXECUTE 'INSERT INTO archive SELECT ($1).*' USING old;"),
    "archives statements": fires(
        "INSERT INTO archive SELECT * FROM gone;", "AFTER", "REFERENCING OLD TABLE AS gone FOR EACH STATEMENT"
    ),
    "puts a row together": (
        "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new := row(new.id, new.content, new.embedding); RETURN new; END $$; "
        "CREATE TRIGGER mine BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION f()",
        "UPDATE docs SET content = 'b'",
    ),
}


def made(connection: Connection) -> None:
    connection.execute("CREATE TABLE docs (id int PRIMARY KEY, content text, embedding vector(384))")
    connection.execute("CREATE TABLE archive (LIKE docs); CREATE TABLE notes (note jsonb)")
    connection.execute("CREATE SCHEMA other; CREATE TABLE other.docs (LIKE docs)")
    connection.execute("INSERT INTO docs SELECT n, 'text ' || n FROM generate_series(1, 3) AS n")
    connection.execute(
        "CREATE FUNCTION match_docs(query vector(384)) RETURNS SETOF int LANGUAGE sql AS $$ SELECT id FROM docs "
        "ORDER BY embedding <=> query $$"
    )


def planned(connection: Connection, **parameters: Any) -> Planned:
    target = {"table": "docs", "text": "content"}
    form = parse(Text384To1536, {"targets": [target], "embedder": "hashing/1536", **parameters})
    return make_plan(connection, form.request(), "planned")


def works(database: str, call: str) -> bool:
    """In a session of its own, which is rolled back."""
    with psycopg.connect(database) as session:
        try:
            session.execute(call)
        except psycopg.Error:
            session.rollback()
            return False
        session.rollback()
        return True


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_breaks_is_named_and_nothing_else(connection: Connection, database: str, definition: str) -> None:
    """A function is a problem of layout=column exactly where it works without the column and does not with it."""
    made(connection)
    text, call = DEFINITIONS[definition]
    connection.execute(f"CREATE FUNCTION f() {text}")
    assert works(database, call)
    problems, beside = planned(connection).problems, planned(connection, layout="side_table").problems
    connection.execute("ALTER TABLE docs ADD embedding_1536 vector(1536)")
    breaks = not works(database, call)
    assert [("f()" in p, "layout=side_table" in p) for p in problems] == ([(True, True)] if breaks else [])
    assert beside == []
    assert planned(connection).problems == [], "there is the column already"


def test_a_trigger_is_named(connection: Connection) -> None:
    """With the function that it calls; what is put together at run time is told."""
    made(connection)
    connection.execute(f"CREATE FUNCTION f() {fires('INSERT INTO archive VALUES (old.*);')[0]}")
    connection.execute(
        f"CREATE FUNCTION g() {FIRES.format(PUT_TOGETHER)}; "
        "CREATE TRIGGER another AFTER DELETE ON docs FOR EACH ROW EXECUTE FUNCTION g()"
    )
    plan = planned(connection)
    assert "breaks f() of the trigger mine: choose" in plan.problems[0]
    assert [w for w in plan.warnings if "could not be read" in w] == [
        "public.docs: what one more column does to g() of the trigger another could not be read; layout=side_table adds none"
    ]


def test_publications(connection: Connection) -> None:
    """Those that publish whichever columns the table has are told, and those of all tables in either layout; others and views
    are not."""
    made(connection)
    connection.execute("CREATE VIEW seen AS SELECT * FROM docs; CREATE PUBLICATION part FOR TABLE docs (id, content)")
    (seen,) = planned(connection).warnings
    assert seen.startswith("public.docs.embedding is used by view seen"), "it is safe, and stays with the old vectors"
    connection.execute("DROP VIEW seen")
    connection.execute("CREATE PUBLICATION app FOR TABLE docs")
    (warning,) = planned(connection).warnings
    assert warning.startswith("public.docs is published by app without a list of columns")
    assert planned(connection, layout="side_table").warnings == []
    connection.execute("DROP PUBLICATION app; CREATE PUBLICATION everything FOR ALL TABLES")
    assert "everything publishes all tables" in planned(connection, layout="side_table").warnings[0]


def test_triggers_that_fire(connection: Connection) -> None:
    """They are told with what they set; where that is a vector, a text or a key, with what comes of it."""
    made(connection)
    connection.execute("ALTER TABLE docs ADD changed_at timestamptz")
    fires_on_update = "CREATE TRIGGER {0} BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION {0}()"
    sets = "CREATE FUNCTION {} () RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN new; END $$; "
    touch = 'new.changed_at := now(); IF new.id > 9 THEN New . "changed_at" = NULL; END IF;'
    connection.execute(sets.format("touch", touch) + fires_on_update.format("touch"))
    (warning,) = planned(connection).warnings
    assert warning.startswith("public.docs: filling a column fires touch (which sets changed_at) for every row")
    connection.execute(sets.format("clear", "new.embedding := NULL;") + fires_on_update.format("clear"))
    named, _, clears = planned(connection).warnings
    assert clears.startswith("public.docs: clear sets embedding: a run stops at the first rows")
    assert named.startswith("public.docs.embedding is named by public.clear, which the run does not switch")
    assert planned(connection, layout="side_table").warnings == [named]
