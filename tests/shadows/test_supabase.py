"""Databases as Supabase and careful administrators keep them: pgvector in a schema of its own, search paths that lead
nowhere, and a role that may do only what it was granted."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.embedders.hashing import HashingEmbedder
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection, connect
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")

OLD, NEW = HashingEmbedder(384), HashingEmbedder(1536)
TARGETS: list[dict[str, Any]] = [{"table": "docs", "text": "content"}]


@pytest.fixture
def extensions(
    postgres: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["psycopg.Connection[Any]"]:
    """A connection to a database that has pgvector in the schema ``extensions``, which is on nobody's search_path, and
    ``docs`` with a search function whose search_path is empty."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    monkeypatch.setenv("DATABASE_URL", postgres(name))
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    with psycopg.connect(postgres(name), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        connection.execute(
            "CREATE TABLE docs (id bigint PRIMARY KEY, content text, embedding extensions.vector(384));"
            "CREATE INDEX ON docs USING hnsw (embedding extensions.vector_cosine_ops);"
            "CREATE FUNCTION match_docs(query extensions.vector(384), threshold float, n int) "
            "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE SET search_path = '' AS $$ "
            "SELECT d.id, d.content, 1 - (d.embedding OPERATOR(extensions.<=>) query) FROM public.docs d "
            "WHERE 1 - (d.embedding OPERATOR(extensions.<=>) query) > threshold "
            "ORDER BY d.embedding OPERATOR(extensions.<=>) query LIMIT n $$"
        )
        fill(connection, "extensions.vector")
        yield connection


def fill(connection: "psycopg.Connection[Any]", kind: str = "vector") -> None:
    for n in range(30):
        text = f"row {n} says {n * n}"
        vector = str(OLD.embed([text]).whole[0].tolist())
        connection.execute(f"INSERT INTO docs VALUES (%s, %s, %s::{kind})", (n, text, vector))


@pytest.mark.parametrize("layout", sampled(["column", "side_table"], "side_table"))
def test_pgvector_in_a_schema_of_its_own(extensions: "psycopg.Connection[Any]", layout: str) -> None:
    """The whole migration works, and the functions it makes answer callers whose search_path does not lead to pgvector."""
    parameters: dict[str, Any] = {"targets": TARGETS, "embedder": "hashing/1536", "layout": layout}
    outcome = text_384_to_1536(**parameters, run_id="apart", cutover="auto", gates={"min_recall": 0})
    assert outcome["state"] == "cut_over"
    extensions.execute("SET search_path = ''")

    def nearest(function: str, vector: Any) -> Any:
        query = f"SELECT id FROM public.{function}(%s::extensions.vector, 0.1, 3)"
        return extensions.execute(query, (str(vector.tolist()),)).fetchone()

    for embedder in (OLD, NEW):
        assert nearest("match_docs", embedder.embed(["row 7 says 49"]).whole[0]) == (7,)
    assert nearest("match_docs_v2", NEW.embed(["row 8 says 64"]).whole[0]) == (8,)
    rollback(run_id="apart")
    assert nearest("match_docs", OLD.embed(["row 9 says 81"]).whole[0]) == (9,)


@pytest.mark.parametrize("layout", sampled(["column", "side_table"], "column"))
def test_every_missing_grant_is_named(connection: Connection, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """The plan of a role without rights names each statement that it lacks; once an administrator has run exactly
    those, the role carries the migration to the switch."""
    connection.execute("CREATE SCHEMA app")
    for role in ("keeper", "writer", "ferry"):
        connection.execute(f"DROP ROLE IF EXISTS {role}_{layout}; CREATE ROLE {role}_{layout} LOGIN")
    connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, content text, embedding vector(384))")
    fill(connection)
    connection.execute("ALTER TABLE docs SET SCHEMA app")
    connection.execute(
        "CREATE FUNCTION app.match_docs(query vector(384), threshold float, n int) RETURNS TABLE (id bigint, similarity float) "
        "LANGUAGE sql STABLE AS $$ SELECT d.id, 1 - (d.embedding <=> query) FROM app.docs d "
        "ORDER BY d.embedding <=> query LIMIT n $$"
    )
    connection.execute(f"ALTER TABLE app.docs OWNER TO keeper_{layout}; ALTER TABLE app.docs ENABLE ROW LEVEL SECURITY")
    connection.execute(f"ALTER TABLE app.docs FORCE ROW LEVEL SECURITY; GRANT ALL ON SCHEMA app TO writer_{layout}")
    connection.execute(f"ALTER FUNCTION app.match_docs OWNER TO writer_{layout}")
    role, database = f"ferry_{layout}", connection.info.dbname
    monkeypatch.setenv("DATABASE_URL", os.environ["DATABASE_URL"].replace("postgres:", f"{role}:", 1))
    parameters: dict[str, Any] = {
        "targets": [{"table": "app.docs", "text": "content"}],
        "embedder": "hashing/1536",
        "layout": layout,
    }

    def lacking() -> list[str]:
        with connect(os.environ["DATABASE_URL"]) as theirs:
            assert theirs.info.user == role
            planned = make_plan(theirs, parse(Text384To1536, parameters).request(), "granted")
        return [problem.rpartition(": ")[2] for problem in planned.problems]

    connection.execute(f"GRANT USAGE ON SCHEMA app TO {role}; GRANT SELECT ON app.docs TO {role}")
    first = lacking()
    assert first == [
        f"GRANT CREATE ON DATABASE {database} TO {role}",
        f'GRANT CREATE ON SCHEMA "app" TO {role}',
        f"GRANT keeper_{layout} TO {role}",
        f"GRANT writer_{layout} TO {role}",
    ]
    for statement in first:
        connection.execute(statement)  # type: ignore[call-overload]
    assert lacking() == [f"ALTER ROLE {role} BYPASSRLS"]
    connection.execute(f"ALTER ROLE {role} BYPASSRLS")
    assert lacking() == []
    outcome = text_384_to_1536(**parameters, run_id="granted", cutover="auto", gates={"min_recall": 0})
    assert outcome["state"] == "cut_over"


def test_nobody_else_makes_a_trigger_of_the_one_that_notes_changes(connection: Connection) -> None:
    """It runs its arguments with its owner's rights, so a role that may use the schema must not be able to name them."""
    connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, content text, embedding vector(384))")
    fill(connection)
    text_384_to_1536(targets=TARGETS, embedder="hashing/1536", run_id="one", gates={"min_recall": 0})
    connection.execute("DO $$ BEGIN CREATE ROLE intruder; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    connection.execute("GRANT USAGE ON SCHEMA vecferry TO intruder; GRANT ALL ON SCHEMA public TO intruder")
    connection.execute("SET ROLE intruder")
    connection.execute("CREATE TABLE theirs (id bigint)")
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(
            "CREATE TRIGGER escape AFTER INSERT ON theirs FOR EACH ROW "
            "EXECUTE FUNCTION vecferry.note_change('queue', 'current_user')"
        )
