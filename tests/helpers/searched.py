"""Tables that are searched by functions as people have them, and who gets what from them."""

import math
from typing import Any

from psycopg import Error

from flows.forms.text_384_to_1536 import Text384To1536
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import ledger
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection
from tests.helpers.live import text_of
from tests.helpers.pipeline import build
from tests.helpers.search_definitions import TABLE

OLD, NEW = HashingEmbedder(16), HashingEmbedder(24)
ROWS = 40
USER = "SET app.reader = 'user 1'"
FUNCTION = (
    "SELECT pg_get_functiondef(oid), proacl::text, proowner FROM pg_proc "
    "WHERE proname = 'match_docs' AND pronamespace = 'app'::regnamespace"
)
NAMES = (
    "SELECT oid::regprocedure::text FROM pg_proc "
    "WHERE starts_with(proname, 'match_docs') AND pronamespace = '{schema}'::regnamespace"
)


def literal(embedder: HashingEmbedder, n: int) -> str:
    return str(embedder.embed([text_of(n)]).whole[0].tolist())


def fill(connection: Connection, schema: str, embedder: HashingEmbedder, kind: str = "vector") -> None:
    """The table and its rows, with vectors of ``embedder``."""
    connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(TABLE.format(schema=schema, d=embedder.space.dimensions))
    if kind == "halfvec":
        connection.execute(f"ALTER TABLE {schema}.docs ALTER embedding TYPE halfvec({embedder.space.dimensions})")
    for n in range(ROWS):
        connection.execute(
            f"INSERT INTO {schema}.docs VALUES (%s, %s, %s, %s, %s, %s)",
            (n, text_of(n), f"user {n % 3}", n % 2 == 0, f'{{"kind": {n % 2}}}', literal(embedder, n)),
        )
    connection.execute(f"INSERT INTO {schema}.users SELECT 'user ' || i, 'name ' || i FROM generate_series(0, 2) i")
    if kind == "untyped":
        connection.execute(f"ALTER TABLE {schema}.docs ALTER embedding TYPE vector")


def answers(connection: Connection, call: str, roles: tuple[str, ...]) -> dict[str, Any]:
    """What each role gets, or the class of its refusal."""
    got: dict[str, Any] = {}
    for role in roles:
        connection.execute(f"SET ROLE {role}")
        try:
            got[role.partition("_")[0]] = connection.execute(call).fetchall()  # type: ignore[call-overload]
        except Error as e:
            got[role.partition("_")[0]] = type(e).__name__
        finally:
            connection.execute("RESET ROLE")
    return got


def alike(got: Any, ideal: Any) -> bool:
    if isinstance(got, dict):
        return got.keys() == ideal.keys() and all(alike(got[k], ideal[k]) for k in got)
    if isinstance(got, list | tuple):
        return len(got) == len(ideal) and all(map(alike, got, ideal))
    if isinstance(got, float):
        return math.isclose(got, ideal, abs_tol=2e-3)
    return bool(got == ideal)


def grant(connection: Connection, schema: str, people: tuple[str, str, str]) -> None:
    keeper, app, _ = people
    connection.execute(f"ALTER SCHEMA {schema} OWNER TO {keeper}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    for table in ("docs", "users"):
        connection.execute(f"ALTER TABLE {schema}.{table} OWNER TO {keeper}; GRANT SELECT ON {schema}.{table} TO {app}")
    ((name,),) = connection.execute(NAMES.format(schema=schema)).fetchall()  # type: ignore[call-overload]
    connection.execute(f"ALTER FUNCTION {name} OWNER TO {keeper}; REVOKE ALL ON FUNCTION {name} FROM PUBLIC")  # type: ignore[call-overload]
    connection.execute(f"GRANT EXECUTE ON FUNCTION {name} TO {app}")  # type: ignore[call-overload]


def searched(connection: Connection, people: tuple[str, str, str], create: str, dimensions: int = 16) -> None:
    """A table of 16 dimensions with its function, which one role may execute."""
    fill(connection, "app", OLD)
    connection.execute(create.format(schema="app", d=dimensions))  # type: ignore[call-overload]
    grant(connection, "app", people)
    connection.execute(USER)


def verified(connection: Connection, run: Run) -> Run:
    ledger.set_state(connection, run.run_id, "verified")
    return run


def migrated(connection: Connection, run_id: str = "switched", **form: Any) -> Run:
    """A run of app.docs to 24 dimensions that is ready for its cutover."""
    given = {"embedder": "hashing/24", "layout": "column", "probe_settings": {"app.reader": "user 1"}, **form}
    target = {"table": "app.docs", "text": "content", "new_column": "embedding_24", **given.pop("target", {})}
    return verified(connection, build(run_id, Text384To1536, targets=[target], **given))
